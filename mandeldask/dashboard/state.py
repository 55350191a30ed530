"""What the scheduler knows of a job: one record a tile, filled by events in any order.

All that is shown is counted from these records, so an event that is late or repeated does no harm. The order of runs is
the order in which they were first heard of, because the clocks of drivers differ.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from distributed import Scheduler

from mandeldask.telemetry import DriverEvent, JobInfo, Progress, Tile, TileEvent, TileFailed, parse_key

WAITING, RETRY, FAILED, DONE = range(4)  # RETRY: failed, and to be tried again
MAX_POINTS = 600  # of the rate over time; then every second one is dropped
MAX_WANTED = 1000  # previews asked for at a time
SILENT_SECONDS = 20.0  # a driver reports every second
TILE = np.dtype(
    [
        ("state", np.uint8),
        ("sampled", np.bool_),  # the preview has this tile's samples, and not their mean
        ("worker", np.int32),  # index in `JobState.workers`; -1 where it is not known
        ("seconds", np.float32),  # of kernel; NaN, as `mean`, where it is not known
        ("mean", np.float32),  # escape time
        ("minimum", np.int32),  # 0 where it is not known
        ("maximum", np.int32),
    ]
)
UNKNOWN = np.array((WAITING, False, -1, math.nan, math.nan, 0, 0), TILE)


class JobState:
    """One job: for each tile its state, figures and part of the preview. `stamp` counts up with every change."""

    def __init__(self, job: JobInfo) -> None:
        self.job = job
        self.grid = job.preview
        self.tiles = np.full(self.grid.tiles, UNKNOWN)
        self.preview = np.zeros(self.grid.size, np.int32)  # escape times; 0 where not known
        self.failures: dict[Tile, TileFailed] = {}
        self.replaced: set[str] = set()  # runs that another has followed
        self.workers: dict[str, int] = {}  # address -> index
        self.progress: Progress | None = None
        self.points: list[tuple[float, float]] = []  # seconds since the start, iterations a second
        self.ended = ""
        self.heard = time.monotonic()  # from the driver
        self.stamp = 0

    def take_driver(self, event: DriverEvent) -> None:
        """Enter an event of the driver; to enter it again changes nothing that is shown."""
        self.heard = time.monotonic()
        for tile in event.tiles:
            self.take_tile(tile)
        if event.job.run in self.replaced:  # late: only its tiles are news
            return
        self.stamp += 1
        if event.job.run != self.job.run:
            self._follow(event.job)
        for failure in event.failures:
            self._take_failure(failure)
        if event.progress:
            self._take_progress(event.progress)
        self.ended = event.ended or self.ended

    def take_tile(self, event: TileEvent) -> None:
        """Enter a finished tile. Any exception means that it is none of this job's, and that nothing has changed."""
        tile, grid = event.tile, self.grid
        if not self.has(tile) or not 0 <= event.minimum <= event.maximum <= grid.max_iter:
            raise ValueError("a tile outside its field, or with impossible escape times")
        if not math.isfinite(event.seconds + event.iterations):
            raise ValueError("a tile of endless work")
        cells = grid.cells(tile)
        part = self.preview[cells]
        sampled = bool(event.preview) or not part.size
        if self.tiles["sampled"][tile] and not sampled:  # late
            return
        seconds = mean = math.nan
        if event.minimum:
            size = math.prod(min(side, n - i * side) for i, side, n in zip(tile, grid.tile, grid.shape, strict=True))
            seconds, mean = event.seconds, event.iterations / size
            part[...] = np.minimum(grid.decode(event.preview, cells) if sampled else max(1, round(mean)), grid.max_iter)
        worker = self.workers.setdefault(event.worker, len(self.workers)) if event.worker else -1
        self.tiles[tile] = (DONE, sampled, worker, seconds, mean, event.minimum, event.maximum)
        self.failures.pop(tile, None)
        self.stamp += 1

    def take_state(self, tile: Tile, finished: bool) -> None:
        """Enter what became of a tile's task on the scheduler; the driver says later whether it is tried again."""
        if not self.has(tile) or self.tiles["state"][tile] == DONE:
            return
        self.stamp += 1
        if finished:
            self.tiles["state"][tile] = DONE
            self.failures.pop(tile, None)
        elif self.tiles["state"][tile] == WAITING:
            self.tiles["state"][tile] = RETRY

    def has(self, tile: Tile) -> bool:
        """Whether the job has such a tile."""
        return all(0 <= i < n for i, n in zip(tile, self.grid.tiles, strict=True))

    def _follow(self, job: JobInfo) -> None:
        """Another run of the job: it tries again what failed."""
        self.replaced.add(self.job.run)
        self.job, self.ended, self.progress, self.points, self.failures = job, "", None, [], {}
        state = self.tiles["state"]
        state[(state == FAILED) | (state == RETRY)] = WAITING

    def _take_failure(self, failure: TileFailed) -> None:
        tile, before = failure.tile, self.failures.get(failure.tile)
        late = before and before.final and before.attempt > failure.attempt
        if self.tiles["state"][tile] != DONE and not late:
            self.tiles["state"][tile] = FAILED if failure.final else RETRY
            self.failures[tile] = failure

    def _take_progress(self, progress: Progress) -> None:
        if self.progress and (progress == self.progress or progress.done < self.progress.done):  # repeated, or late
            return
        self.progress = progress
        self.points.append((time.time() - self.job.started, progress.iterations_per_second))
        if len(self.points) > MAX_POINTS:
            del self.points[::2]

    @property
    def done(self) -> int:
        return int(np.count_nonzero(self.tiles["state"] == DONE))

    @property
    def silent(self) -> float:
        """Seconds since the last update from the driver of a job that has not ended; 0 while they come."""
        seconds = time.monotonic() - self.heard
        return 0.0 if self.ended or seconds < SILENT_SECONDS else seconds

    def previews_wanted(self) -> list[Tile]:
        """Some of the finished tiles whose samples are not in the preview."""
        wanted = np.argwhere((self.tiles["state"] == DONE) & ~self.tiles["sampled"])[:MAX_WANTED].tolist()
        return [(row, column) for row, column in wanted]


@dataclass(frozen=True)
class RunningTile:
    """A tile on a worker; `seconds` since its computation began, None while it waits for a thread there."""

    tile: Tile
    worker: str
    seconds: float | None


def running_tiles(scheduler: Scheduler, job: JobState) -> list[RunningTile]:
    """The unfinished tiles of a job that workers have in hand, as the scheduler sees them.

    The times come with heartbeats, so they are up to seconds late.
    """
    found = []
    now = time.time()
    for worker in scheduler.workers.values():
        for task in worker.processing:
            key = parse_key(task.key)
            if key and key[0] == job.job.id and job.has(tile := key[2]) and job.tiles["state"][tile] != DONE:
                seconds = worker.executing.get(task)
                late = max(0.0, now - worker.last_seen)
                found.append(RunningTile(tile, worker.address, None if seconds is None else seconds + late))
    return found
