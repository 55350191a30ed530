"""Functions of a store, done here or on a cluster: what reads one, and leaves it as it is."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker

from mandeldask.check import check_on_worker
from mandeldask.errors import ClusterError
from mandeldask.store import Store

MIN_IN_FLIGHT, IN_FLIGHT = 8, 3  # tasks, and tasks a thread
T = TypeVar("T")
U = TypeVar("U")
Work: TypeAlias = Iterator[tuple[Callable[[Store], T], int]]
"""Tasks, and how many tiles or samples each takes."""


def done(work: Work[T], store: Store, client: Client | None) -> Iterator[tuple[T, int]]:
    """What comes of tasks: one after another here, or on a cluster."""
    return _there(work, store, client) if client else ((task(store), n) for task, n in work)


def _there(work: Work[T], store: Store, client: Client) -> Iterator[tuple[T, int]]:
    name = f"verify-{uuid.uuid4().hex}"
    room = max(MIN_IN_FLIGHT, IN_FLIGHT * sum(client.nthreads().values()))
    futures = (
        (client.submit(check_on_worker, task, store, key=(name, n), pure=False), tiles)
        for n, (task, tiles) in enumerate(work)
    )
    return results(futures, client, room, "read these tiles")


def results(futures: Iterator[tuple[Future, U]], client: Client, room: int, what: str) -> Iterator[tuple[Any, U]]:
    """What comes of futures, each with what it is about; at most `room` of them are asked for at a time.

    ClusterError where the cluster is lost, or a worker dies each time it did `what`.
    """
    in_flight: dict[Future, U] = {}
    completed = as_completed(loop=client.loop)
    try:
        while True:
            for future, about in islice(futures, room - len(in_flight)):
                in_flight[future] = about
                completed.add(future)
            if not in_flight:
                return
            future = next(completed)
            about = in_flight.pop(future)
            try:
                yield future.result(), about
            except CancelledError:
                raise ClusterError("the cluster was lost: its scheduler is gone or cancelled the work") from None
            except KilledWorker:
                raise ClusterError(f"a worker died each time it {what}: give workers more memory") from None
            future.release()
    finally:
        client.cancel(list(in_flight), force=True)
