"""How far a run is, and how much longer it takes: pure, with the clock given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mandeldask.job.events import Progress
from mandeldask.store import Tile
from mandeldask.tile import Record


class Estimate:
    """Time left, from what the remaining tiles are expected to cost and what the finished ones took.

    Without expected costs every tile counts the same.
    """

    def __init__(self, pending: NDArray[np.bool_], costs: NDArray[np.float64] | None, samples: int) -> None:
        """`samples`: of a whole tile."""
        self.costs = np.where(pending, 1.0 if costs is None else costs, 0.0)
        self.samples = samples
        self.left = float(self.costs.sum())
        self.pending = int(pending.sum())
        self.done = self.failed = self.iterations = 0
        self.expected = 0.0  # of the finished ones, in the unit of the costs
        self.kernel = 0.0  # seconds that they took instead
        self.busy = 0.0  # seconds of a thread, with the writing
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
        """The state at a Unix time; `levels` of their tiles are still to be made."""
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
        """Kernel as expected times how wrong that was so far, what else a tile takes, by the threads at work."""
        if not self.done or not self.busy:
            return None
        kernel = self.left * self.kernel / self.expected if self.expected else 0.0
        beside = (self.busy - self.kernel) / self.done * (self.pending - self.done - self.failed)
        # tiles that are being computed have cost time, too, and half a tile is a guess at how much
        at_work = min(threads, (self.busy + threads * self.busy / self.done / 2) / elapsed)
        return (kernel + beside) / max(at_work, 1e-6)
