"""How far a run is, and how much longer it will take: pure functions of records and of the time given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mandeldask.job.events import Progress
from mandeldask.store import Tile
from mandeldask.tile import Record


class Estimate:
    """The time left, from the expected cost of the remaining tiles and the time that the finished ones took.

    Without expected costs every tile counts the same.
    """

    def __init__(self, pending: NDArray[np.bool_], costs: NDArray[np.float64] | None, samples: int) -> None:
        """Start with the tiles to compute; `samples` is the number of samples of a whole tile."""
        self.costs = np.where(pending, 1.0 if costs is None else costs, 0.0)
        self.samples = samples
        self.left = float(self.costs.sum())
        self.pending = int(pending.sum())
        self.done = self.failed = self.iterations = 0
        self.expected = 0.0  # cost of the finished tiles, in the unit of `costs`
        self.kernel = 0.0  # seconds of kernel that they took
        self.busy = 0.0  # seconds that threads spent on them, writing included
        self.first = np.inf  # when the first task began

    def add(self, record: Record) -> None:
        """Enter a finished tile."""
        self._leave(record.tile)
        self.done += 1
        self.expected += float(self.costs[record.tile])
        self.kernel += record.seconds
        self.busy += record.finished - record.started
        self.iterations += record.iterations
        self.first = min(self.first, record.started)

    def give_up(self, tile: Tile) -> None:
        """Enter a tile that failed for good."""
        self._leave(tile)
        self.failed += 1

    def progress(self, now: float, workers: int, threads: int, levels: int = 0) -> Progress:
        """The progress at a Unix time; `levels` tiles of the pyramid are still to be built."""
        elapsed = max(now - self.first, 1e-3)
        return Progress(
            self.done,
            self.pending,
            self.failed,
            self.done * self.samples / elapsed if self.done else 0.0,
            self.iterations / elapsed if self.done else 0.0,
            self._seconds_left(elapsed, threads),
            workers,
            levels,
        )

    def _leave(self, tile: Tile) -> None:
        self.left = max(0.0, self.left - float(self.costs[tile]))

    def _seconds_left(self, elapsed: float, threads: int) -> float | None:
        """The expected kernel time, corrected by the error so far, and what else tiles take, over the threads."""
        if not self.done or not self.busy:
            return None
        kernel = self.left * self.kernel / self.expected if self.expected else 0.0
        beside = (self.busy - self.kernel) / self.done * (self.pending - self.done - self.failed)
        # the tiles in work have cost time too: half a tile each, as a guess
        at_work = min(threads, (self.busy + threads * self.busy / self.done / 2) / elapsed)
        return (kernel + beside) / max(at_work, 1e-6)
