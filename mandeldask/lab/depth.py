"""How much the lab measures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mandeldask.lab.machine import usable_cores
from mandeldask.lab.workload import Workload, lesson_view, seahorse_view


@dataclass(frozen=True)
class Depth:
    """Turns, and the sizes of arrays and fields."""

    # of the claims
    turns: int = 7
    seconds: float = 0.03  # at least, of one measurement
    matrix: int = 768  # rows of a square matrix: 5 MB
    vector: int = 1_000_000  # elements: 8 MB
    small: int = 2_000  # elements: 16 KB, in the first-level cache, so that SIMD shows
    loop: tuple[int, int] = (400, 100)  # samples a side of the lesson's view, and max_iter
    # of the strategies
    side: int = 1000
    max_iter: int = 100
    workers: int = 2
    strategy_turns: int = 5
    # of the scaling: samples a side for each kernel, and max_iter, about half a second alone for both
    numpy: tuple[int, int] = (1000, 100)
    numba: tuple[int, int] = (2048, 5000)
    scaling_turns: int = 3
    parts: tuple[int, ...] = (16, 8, 4, 2, 1)  # that a side is cut in, for the sizes of a block

    def work(self, kernel: str) -> Workload:
        """The lesson's field, for the strategies."""
        return Workload(lesson_view(self.side), self.max_iter, kernel)

    def scaled(self, kernel: str, rows: float = 1.0) -> Workload:
        """The field that a kernel scales with, with `rows` times as many rows: that much more work."""
        side, max_iter = self.numpy if kernel == "numpy" else self.numba
        view = lesson_view if kernel == "numpy" else seahorse_view
        return Workload(view(max(1, round(side * rows)), side), max_iter, kernel)


QUICK = Depth(
    turns=3,
    seconds=0.005,
    matrix=256,
    vector=200_000,
    loop=(80, 40),
    side=120,
    max_iter=50,
    strategy_turns=1,
    numpy=(120, 50),
    numba=(128, 500),
    scaling_turns=1,
    parts=(8, 4, 2, 1),
)


def depth_of(
    quick: bool = False, workers: int | None = None, size: int | None = None, max_iter: int | None = None
) -> Depth:
    """The full depth, or the quick one, with one worker a usable core; the strategies' field may be another."""
    given: dict[str, Any] = {"side": size, "max_iter": max_iter, "workers": workers or usable_cores()}
    return replace(QUICK if quick else Depth(), **{k: v for k, v in given.items() if v is not None})
