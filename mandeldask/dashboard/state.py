"""What the scheduler knows of jobs: arrays over their tiles, filled by events in any order.

All that is shown is counted from these arrays, so an event that is late or repeated does no harm. The order of runs is
the order in which they were first heard of, because the clocks of drivers differ.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.image import ToIndex, palette_index
from mandeldask.telemetry import KNOWN_TILE, MAX_TILES, DriverEvent, Failure, JobInfo, Progress, Tile, TileEvent

WAITING, RETRY, FAILED, DONE = range(4)  # RETRY: failed, and to be tried again
MAX_JOBS = 20  # shown; the oldest are forgotten
MAX_WORKERS = 10_000
MAX_FAILURES = 1000  # with their errors, of a job
MAX_RUNS = 100  # of a job that are known to be over
MAX_POINTS = 600  # of the rate over time; then every second one is dropped
MAX_WANTED = 1000  # previews asked for at a time
SCALE_SAMPLES = 2**15  # that the colours are laid out for
SCALE_GROWTH = 1.25  # tiles done since, before they are laid out anew
SILENT_SECONDS = 20.0  # a driver reports every second


class JobState:
    """One job: for each tile its state, figures and part of the preview. `stamp` counts up with every change."""

    def __init__(self, job: JobInfo) -> None:
        self.job = job
        self.grid = job.preview
        shape = self.grid.tiles
        self.state = np.zeros(shape, np.uint8)
        self.worker = np.full(shape, -1, np.int32)  # index in `workers`
        self.seconds = np.full(shape, np.nan, np.float32)  # of kernel
        self.mean = np.full(shape, np.nan, np.float32)  # escape time
        self.minimum = np.zeros(shape, np.int32)
        self.maximum = np.zeros(shape, np.int32)
        self.stamps = np.zeros(shape, np.int64)  # when a tile changed last
        self.preview = np.zeros(self.grid.size, np.int32)  # escape times; 0 where not known
        self.sampled = np.zeros(shape, np.bool_)  # the preview has this tile's samples, and not their mean
        self.failures: dict[Tile, Failure] = {}
        self.replaced: deque[str] = deque(maxlen=MAX_RUNS)  # runs that another has followed
        self.workers: dict[str, int] = {}  # address -> index
        self.progress: Progress | None = None
        self.points: list[tuple[float, float]] = []  # seconds since the start, iterations a second
        self.ended = ""
        self.heard = time.monotonic()  # from the driver
        self.stamp = 0
        self.scale: ToIndex | None = None
        self.scale_stamp = 0
        self._scaled_for = 0

    def take_driver(self, event: DriverEvent) -> None:
        """Enter an event of the driver; to enter it again changes nothing that is shown."""
        self.heard = time.monotonic()
        self.stamp += 1
        self._take_table(np.frombuffer(event.table, KNOWN_TILE))
        if event.job.run in self.replaced:  # late: only its tiles are news
            return
        if event.job.run != self.job.run:
            self._follow(event.job)
        for failure in event.failures:
            self._take_failure(failure)
        if event.progress:
            self._take_progress(event.progress)
        self.ended = event.ended or self.ended

    def take_tile(self, event: TileEvent) -> None:
        """Enter a finished tile. ValueError where it is none of this job's."""
        tile, grid = event.tile, self.grid
        if tile[0] >= grid.tiles[0] or tile[1] >= grid.tiles[1] or not event.minimum <= event.maximum <= grid.max_iter:
            raise ValueError("a tile outside its field, or with impossible figures")
        cells = grid.cells(tile)
        part = np.minimum(grid.decode(event.preview, cells), grid.max_iter)
        self.stamp += 1
        self.preview[cells] = part
        self.seconds[tile] = event.seconds
        self.mean[tile] = event.iterations / self._samples(*tile)
        self.minimum[tile], self.maximum[tile] = event.minimum, event.maximum
        if event.worker:
            self.worker[tile] = self._worker_index(event.worker)
        self.sampled[tile] = True
        self._finish(tile)

    def take_state(self, tile: Tile, finished: bool) -> None:
        """Enter what became of a tile's task on the scheduler; the driver says later whether it is tried again."""
        if any(i >= n for i, n in zip(tile, self.grid.tiles, strict=True)) or self.state[tile] == DONE:
            return
        self.stamp += 1
        if finished:
            self._finish(tile)
        elif self.state[tile] == WAITING:
            self.state[tile], self.stamps[tile] = RETRY, self.stamp

    def _finish(self, tile: Tile) -> None:
        self.state[tile], self.stamps[tile] = DONE, self.stamp
        self.failures.pop(tile, None)

    def _follow(self, job: JobInfo) -> None:
        """Another run of the job: it tries again what failed."""
        self.replaced.append(self.job.run)
        self.job, self.ended, self.progress, self.points = job, "", None, []
        failed = (self.state == FAILED) | (self.state == RETRY)
        self.state[failed], self.stamps[failed] = WAITING, self.stamp
        self.failures.clear()

    def _take_table(self, table: NDArray[np.void]) -> None:
        """Tiles that were done before the page was there: shown in their mean colour, until there is more."""
        table = table[~self.sampled[table["row"], table["column"]]]
        at = table["row"], table["column"]
        self.mean[at] = table["iterations"] / self._samples(*(index.astype(np.int64) for index in at))
        self.seconds[at], self.minimum[at], self.maximum[at] = table["seconds"], table["minimum"], table["maximum"]
        self.state[at], self.stamps[at] = DONE, self.stamp
        for tile in zip(*(index.tolist() for index in at), strict=True):
            self.failures.pop(tile, None)
            if self.minimum[tile]:
                self.preview[self.grid.cells(tile)] = np.clip(round(float(self.mean[tile])), 1, self.job.max_iter)

    def _samples(self, row: Any, column: Any) -> Any:
        """The number of samples of a tile, or of many."""
        (height, width), (rows, columns) = self.grid.tile, self.grid.shape
        if isinstance(row, int):
            return min(height, rows - row * height) * min(width, columns - column * width)
        return np.minimum(height, rows - row * height) * np.minimum(width, columns - column * width)

    def _worker_index(self, name: str) -> int:
        if name not in self.workers and len(self.workers) >= MAX_WORKERS:
            return -1
        return self.workers.setdefault(name, len(self.workers))

    def _take_failure(self, failure: Failure) -> None:
        tile = failure.tile
        if self.state[tile] == DONE:  # late: it was computed since
            return
        before = self.failures.get(tile)
        if before and before.attempt > failure.attempt and before.final:
            return
        self.state[tile] = FAILED if failure.final else RETRY
        self.stamps[tile] = self.stamp
        if tile in self.failures or len(self.failures) < MAX_FAILURES:
            self.failures[tile] = failure

    def _take_progress(self, progress: Progress) -> None:
        if self.progress and (progress == self.progress or progress.done < self.progress.done):  # repeated, or late
            return
        self.progress = progress
        self.points.append((time.time() - self.job.started, progress.iterations_per_second))
        if len(self.points) > MAX_POINTS:
            del self.points[::2]

    def lay_out_colours(self) -> None:
        """Lay the colours out for what is there, whenever it has grown by a quarter, and at the end."""
        done = self.done
        grown = done >= max(1, self._scaled_for * SCALE_GROWTH) or (done == self.state.size > self._scaled_for)
        if not grown:
            return
        known = self.preview[self.preview > 0]
        self.scale = palette_index(known[:: 1 + known.size // SCALE_SAMPLES], self.job.max_iter)
        self.scale_stamp, self._scaled_for = self.stamp, done

    def picture(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """The palette indices of a part of the preview."""
        part = self.preview[rows, columns]
        return self.scale(part) if self.scale else np.zeros(part.shape, np.uint8)

    @property
    def done(self) -> int:
        return int(np.count_nonzero(self.state == DONE))

    @property
    def silent(self) -> float:
        """Seconds since the last update from the driver of a job that has not ended; 0 while they come."""
        seconds = time.monotonic() - self.heard
        return 0.0 if self.ended or seconds < SILENT_SECONDS else seconds


class Board:
    """The jobs, the one whose latest run was heard of last at the end."""

    def __init__(self, warn: Callable[[str], Any]) -> None:
        self.jobs: dict[str, JobState] = {}
        self.warn = warn
        self.warned = False

    def take(self, event: TileEvent | DriverEvent) -> None:
        """Enter a checked event. A tile of a job that no driver has told of is passed over."""
        if isinstance(event, DriverEvent):
            self._take_driver(event)
        elif event.job in self.jobs:
            self.jobs[event.job].take_tile(event)

    def previews_wanted(self, job: str) -> list[Tile]:
        """Some of the finished tiles of a job whose samples are not in its preview."""
        state = self.jobs.get(job)
        wanted = [] if state is None else np.argwhere((state.state == DONE) & ~state.sampled)[:MAX_WANTED].tolist()
        return [(row, column) for row, column in wanted]

    def refuse(self, why: str) -> None:
        """Warn of an event that was dropped, once."""
        if not self.warned:
            self.warned = True
            self.warn(f"an event that is not one of mandeldask's was dropped, and others will be: {why}")

    def _take_driver(self, event: DriverEvent) -> None:
        job = self.jobs.get(event.job.id)
        if job is None or job.grid != event.job.preview:
            self._make_room(event.job)
            job = self.jobs[event.job.id] = JobState(event.job)
        run = job.job.run
        job.take_driver(event)
        if job.job.run != run:
            self.jobs[job.job.id] = self.jobs.pop(job.job.id)

    def _make_room(self, job: JobInfo) -> None:
        rows, columns = job.preview.tiles
        self.jobs.pop(job.id, None)
        while self.jobs:
            tiles = sum(other.state.size for other in self.jobs.values()) + rows * columns
            if len(self.jobs) < MAX_JOBS and tiles <= MAX_TILES:
                return
            over = [key for key, other in self.jobs.items() if other.ended] or list(self.jobs)
            del self.jobs[over[0]]
