"""The tiles of a job that are on a worker at this moment: the scheduler's own view, looked at when a page asks."""

from __future__ import annotations

import time
from dataclasses import dataclass

from distributed import Scheduler

from mandeldask.messages import tile_of_key


@dataclass(frozen=True)
class Flight:
    """A tile on a worker; `seconds` since its computation began, None while it waits for a thread there."""

    tile: tuple[int, int]
    worker: str
    seconds: float | None


def in_flight(scheduler: Scheduler, job: str) -> list[Flight]:
    """The tiles of `job` that workers have in hand. A heartbeat tells what runs, so it is up to seconds late."""
    flights = []
    now = time.time()
    for worker in scheduler.workers.values():
        for task in worker.processing:
            tile = tile_of_key(task.key, job)
            if tile is not None:
                seconds = worker.executing.get(task)
                late = max(0.0, now - worker.last_seen)
                flights.append(Flight(tile, worker.address, None if seconds is None else seconds + late))
    return flights
