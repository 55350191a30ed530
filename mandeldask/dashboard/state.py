"""What the scheduler knows of the jobs it was told of: arrays over their tiles, filled by messages in any order.

All that is shown is counted from these arrays, so a message twice, late or after a resume does no harm. What happened
first is told by what arrived first: clocks of drivers differ.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.image import ToIndex, palette_index
from mandeldask.messages import MAX_TILES, Failure, Grid, Job, Message, Pace

Tile = tuple[int, int]
WAITING, AGAIN, FAILED, DONE = range(4)  # AGAIN: failed, and to be tried again
MAX_JOBS = 20  # shown; the oldest are forgotten
MAX_WORKERS = 10_000
MAX_FAILURES = 1000  # with their errors, of a job
MAX_RUNS = 100  # of a job that are known to be over
MAX_POINTS = 600  # of the rate over time; then every second one is dropped
SCALE_SAMPLES = 2**15  # that the colours are laid out for
SCALE_GROWTH = 1.25  # tiles done since, before they are laid out anew
SILENT_SECONDS = 20.0  # four heartbeats of a driver


class JobState:
    """One job: for each tile its state, figures and part of the preview. `stamp` counts up with every change."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.grid: Grid = job.grid
        shape = self.grid.tiles
        self.state = np.zeros(shape, np.uint8)
        self.worker = np.full(shape, -1, np.int32)  # index in `workers`
        self.seconds = np.full(shape, np.nan, np.float32)  # of kernel
        self.mean = np.full(shape, np.nan, np.float32)  # escape time
        self.minimum = np.zeros(shape, np.int32)
        self.maximum = np.zeros(shape, np.int32)
        self.stamps = np.zeros(shape, np.int64)  # when a tile changed last
        self.preview = np.zeros(self.grid.preview, np.int32)  # escape times; 0 where not known
        self.failures: dict[Tile, Failure] = {}
        self.replaced: deque[str] = deque(maxlen=MAX_RUNS)  # runs that another has followed
        self.workers: list[str] = []
        self.pace: Pace | None = None
        self.points: list[tuple[float, float]] = []  # seconds since the start, iterations a second
        self.ended = ""
        self.heard = time.monotonic()
        self.stamp = 0
        self.scale: ToIndex | None = None
        self.scale_stamp = 0
        self._scaled_for = 0

    def take(self, message: Message) -> None:
        """Enter a message; to enter it again changes nothing that is shown."""
        self.heard = time.monotonic()
        self.stamp += 1
        if message.job.run != self.job.run:
            if message.job.run in self.replaced:  # late
                message = message.model_copy(update={"pace": None, "ended": "", "failures": ()})
            else:
                self._follow(message.job)
        self._take_tiles(message)
        for failure in message.failures:
            self._take_failure(failure)
        if message.pace:
            self._take_pace(message.pace)
        self.ended = message.ended or self.ended
        self._lay_out_colours()

    def _follow(self, job: Job) -> None:
        """Another run of the job: it tries again what failed."""
        self.replaced.append(self.job.run)
        self.job, self.ended, self.pace, self.points = job, "", None, []
        failed = (self.state == FAILED) | (self.state == AGAIN)
        self.state[failed], self.stamps[failed] = WAITING, self.stamp
        self.failures.clear()

    def _take_tiles(self, message: Message) -> None:
        table = message.table
        if not len(table):
            return
        at = table["row"], table["column"]
        sizes = self._samples_of(*at)
        self.state[at] = DONE
        self.seconds[at] = table["seconds"]
        self.mean[at] = table["iterations"] / sizes
        self.minimum[at], self.maximum[at] = table["minimum"], table["maximum"]
        self.stamps[at] = self.stamp
        known = table["worker"] >= 0
        index = np.array([self._worker_index(name) for name in message.workers] or [-1], np.int32)
        self.worker[at[0][known], at[1][known]] = index[table["worker"][known]]
        for tile in zip(*(i.tolist() for i in at), strict=True) if self.failures else ():
            self.failures.pop(tile, None)
        for where, part in message.parts_of_preview():
            self.preview[where] = np.minimum(part, self.job.max_iter)
        if not message.thumbnails:  # done by an earlier run: in its mean, until there is more
            for tile in zip(*(i.tolist() for i in at), strict=True):
                part = self.preview[self.grid.cells(tile)]
                part[part == 0] = np.clip(round(float(self.mean[tile])), 1, self.job.max_iter)

    def _samples_of(self, rows: NDArray[np.int32], columns: NDArray[np.int32]) -> NDArray[np.int64]:
        heights, widths = (
            np.minimum(side, n - index.astype(np.int64) * side)
            for index, side, n in zip((rows, columns), self.grid.tile, self.grid.shape, strict=True)
        )
        return heights * widths

    def _worker_index(self, name: str) -> int:
        try:
            return self.workers.index(name)
        except ValueError:
            if len(self.workers) >= MAX_WORKERS:
                return -1
            self.workers.append(name)
            return len(self.workers) - 1

    def _take_failure(self, failure: Failure) -> None:
        tile = failure.tile
        if self.state[tile] == DONE:  # late: it was computed since
            return
        before = self.failures.get(tile)
        if before and before.attempt > failure.attempt and before.final:
            return
        self.state[tile] = FAILED if failure.final else AGAIN
        self.stamps[tile] = self.stamp
        if tile in self.failures or len(self.failures) < MAX_FAILURES:
            self.failures[tile] = failure

    def _take_pace(self, pace: Pace) -> None:
        if self.pace and pace.done < self.pace.done:  # late
            return
        self.pace = pace
        self.points.append((time.time() - self.job.started, pace.iterations_per_second))
        if len(self.points) > MAX_POINTS:
            del self.points[::2]

    def _lay_out_colours(self) -> None:
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
        """Seconds without a word from the driver of a job that has not ended; 0 while it is heard."""
        seconds = time.monotonic() - self.heard
        return 0.0 if self.ended or seconds < SILENT_SECONDS else seconds


class Board:
    """The jobs, the one whose latest run was heard of last at the end."""

    def __init__(self, warn: Callable[[str], Any]) -> None:
        self.jobs: dict[str, JobState] = {}
        self.warn = warn
        self.warned = False

    def take(self, message: Message) -> None:
        """Enter a checked message."""
        job = self.jobs.get(message.job.id)
        if job is None or (job.grid, job.job.max_iter) != (message.job.grid, message.job.max_iter):
            self._make_room(message.job)
            job = self.jobs[message.job.id] = JobState(message.job)
        run = job.job.run
        job.take(message)
        if job.job.run != run:
            self.jobs[job.job.id] = self.jobs.pop(job.job.id)

    def refuse(self, why: str) -> None:
        """Tell of a message that is not one, once."""
        if not self.warned:
            self.warned = True
            self.warn(f"a message that is not one of mandeldask's was dropped, and others will be: {why}")

    def _make_room(self, job: Job) -> None:
        rows, columns = job.grid.tiles
        self.jobs.pop(job.id, None)
        while self.jobs:
            tiles = sum(other.state.size for other in self.jobs.values()) + rows * columns
            if len(self.jobs) < MAX_JOBS and tiles <= MAX_TILES:
                return
            over = [key for key, other in self.jobs.items() if other.ended] or list(self.jobs)
            del self.jobs[over[0]]
