"""Functions of a store, done here or on a cluster: what reads one, and leaves it as it is."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from itertools import islice
from typing import TypeAlias, TypeVar

from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker

from mandeldask.check import check_on_worker
from mandeldask.errors import ClusterError
from mandeldask.store import Store

MIN_IN_FLIGHT, IN_FLIGHT = 8, 3  # tasks, and tasks a thread
T = TypeVar("T")
Work: TypeAlias = Iterator[tuple[Callable[[Store], T], int]]
"""Tasks, and how many tiles or samples each takes."""


def done(work: Work[T], store: Store, client: Client | None) -> Iterator[tuple[T, int]]:
    """What comes of tasks: one after another here, or on a cluster."""
    return _there(work, store, client) if client else ((task(store), n) for task, n in work)


def _there(work: Work[T], store: Store, client: Client) -> Iterator[tuple[T, int]]:
    """What comes of the tasks on a cluster, a bounded number of them at a time."""
    name = f"verify-{uuid.uuid4().hex}"
    numbered = enumerate(work)
    in_flight: dict[Future, int] = {}
    completed = as_completed(loop=client.loop)
    room = max(MIN_IN_FLIGHT, IN_FLIGHT * sum(client.nthreads().values()))
    try:
        while True:
            for n, (task, tiles) in islice(numbered, room - len(in_flight)):
                future = client.submit(check_on_worker, task, store, key=(name, n), pure=False)
                in_flight[future] = tiles
                completed.add(future)
            if not in_flight:
                return
            future = next(completed)
            tiles = in_flight.pop(future)
            try:
                yield future.result(), tiles
            except CancelledError:
                raise ClusterError("the cluster was lost: its scheduler is gone or cancelled the work") from None
            except KilledWorker:
                raise ClusterError("a worker died each time it read these tiles: give workers more memory") from None
            future.release()
    finally:
        client.cancel(list(in_flight), force=True)
