"""The reference orbit of a deep field, made once: by the driver, before the first tile."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

from mandeldask.errors import DamagedError, JobCancelledError
from mandeldask.job.dispatcher import CANCELLED
from mandeldask.job.events import ORBIT_BYTES, Notice, Observer, Orbit, Plan
from mandeldask.job.plan import check_memory
from mandeldask.kernels import reference_of
from mandeldask.store import StoredReference, read_reference, write_reference
from mandeldask.text import data_size, duration, pip_install, plural
from mandeldask.view import Deep

TELL_SECONDS = 0.5
MANY_BITS = 800  # from which gmpy2 is faster than Python's integers


def prepare_reference(plan: Plan, tell: Observer, is_cancelled: Callable[[], bool]) -> StoredReference:
    """See to it that the store has its orbit, and that it fits in the workers' memory; what gives it to them.

    One that is damaged, or of another field, is made again. Raises ClusterError where it does not fit,
    JobCancelledError where the job is cancelled meanwhile.
    """
    d, begun, made = plan.store.description, time.monotonic(), ""
    look = _Look(plan, tell, is_cancelled)
    try:
        found = read_reference(plan.store)
    except DamagedError as error:
        tell(Notice(f"what the store has {error.problem}: it is made again", "reference"))
        found = None
    if not found:
        orbit = reference_of(d.view, d.max_iter, look)
        look.check(orbit.length)
        made = f", made in {duration(time.monotonic() - begun)}"
        found = write_reference(plan.store, orbit), orbit
    loader, orbit = found
    look.check(orbit.length)
    size = data_size(ORBIT_BYTES * orbit.length)
    tell(Notice(f"{plural(orbit.length, 'step')} of {orbit.bits} bits, {size} in each worker{made}", "reference"))
    return loader


class _Look:
    """Looks at an orbit while it is made: tells how far it is, and ends it where it does not fit or is not wanted."""

    def __init__(self, plan: Plan, tell: Observer, is_cancelled: Callable[[], bool]) -> None:
        self.plan, self.tell, self.is_cancelled = plan, tell, is_cancelled
        self.begun = self.told = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if now - self.told < TELL_SECONDS:
            return
        if self.is_cancelled():
            raise JobCancelledError(CANCELLED)
        self.check(done)
        if self.told == self.begun:
            self._advise()
        self.told = now
        self.tell(Orbit(done, of))

    def check(self, length: int) -> None:
        d = self.plan.store.description
        check_memory(d.fields, d.tile, self.plan.cluster, d.exact, ORBIT_BYTES * length)

    def _advise(self) -> None:
        frame = self.plan.store.description.frame
        assert isinstance(frame, Deep)
        if -frame.finest > MANY_BITS and not importlib.util.find_spec("gmpy2"):
            faster = "gmpy2 makes the orbit up to seven times as fast, with the same bits"
            self.tell(Notice(f"{faster}: `{pip_install('deep')}`", "reference"))
