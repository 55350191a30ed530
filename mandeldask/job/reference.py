"""The reference orbit of a deep field, made once: by the driver, before the first tile."""

from __future__ import annotations

import time
from collections.abc import Callable

from dask.utils import format_bytes

from mandeldask.errors import DamagedError, JobCancelledError
from mandeldask.job.dispatcher import CANCELLED
from mandeldask.job.events import Notice, Observer, Orbit, Plan
from mandeldask.job.plan import check_memory
from mandeldask.kernels import reference_of
from mandeldask.store import StoredReference, read_reference, write_reference
from mandeldask.text import duration

TELL_SECONDS = 0.5


def prepare_reference(plan: Plan, tell: Observer, is_cancelled: Callable[[], bool]) -> StoredReference:
    """See to it that the store has its orbit, and that it fits in the workers' memory; what gives it to them.

    One that is damaged, or of another field, is made again. Raises ClusterError where it does not fit,
    JobCancelledError where the job is cancelled meanwhile.
    """
    from mandeldask.kernels.deep import memory

    d, begun, made = plan.store.description, time.monotonic(), ""
    told = begun

    def check(length: int) -> None:
        check_memory(d.fields, d.tile, plan.cluster, d.exact, memory(length))

    def look(done: int, of: int) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            if is_cancelled():
                raise JobCancelledError(CANCELLED)
            check(done)
            tell(Orbit(done, of))

    try:
        found = read_reference(plan.store)
    except DamagedError as error:
        tell(Notice(f"what the store has {error.problem}: it is made again", "reference"))
        found = None
    if not found:
        orbit = reference_of(d.view, d.max_iter, look)
        made = f", made in {duration(time.monotonic() - begun)}"
        found = write_reference(plan.store, orbit), orbit
    loader, orbit = found
    check(orbit.length)
    size = format_bytes(memory(orbit.length))
    tell(Notice(f"{orbit.length} steps of {orbit.bits} bits, {size} in each worker{made}", "reference"))
    return loader
