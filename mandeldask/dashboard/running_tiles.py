"""The tiles of a job that are on a worker at this moment: the scheduler's own view, read when a page asks."""

from __future__ import annotations

import time
from dataclasses import dataclass

from distributed import Scheduler

from mandeldask.telemetry import Tile, tile_of_key


@dataclass(frozen=True)
class RunningTile:
    """A tile on a worker; `seconds` since its computation began, None while it waits for a thread there."""

    tile: Tile
    worker: str
    seconds: float | None


def running_tiles(scheduler: Scheduler, job: str) -> list[RunningTile]:
    """The tiles of `job` that workers have in hand. The times come with heartbeats, so they are up to seconds late."""
    found = []
    now = time.time()
    for worker in scheduler.workers.values():
        for task in worker.processing:
            tile = tile_of_key(task.key, job)
            if tile is not None:
                seconds = worker.executing.get(task)
                late = max(0.0, now - worker.last_seen)
                found.append(RunningTile(tile, worker.address, None if seconds is None else seconds + late))
    return found
