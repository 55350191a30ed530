"""What each tile is expected to cost: a coarse look at the view, with the kernel that will compute it.

A few samples of each tile are computed. Counts alone would be a bad measure: a kernel that proves a sample to be
interior spends nothing on what counts most. So the kernel is timed twice, on samples that escape and on samples that
do not: what an iteration costs of the former, and what a sample costs of the latter.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels import BlockFunction
from mandeldask.store import Description

SHARE = 0.01  # of the job's wall time goes into looking ahead, at most
MIN_TILES = 64  # with no more, all are handed out at once
SIDES = (8, 4, 2)  # samples a side of a tile that are looked at: as many as SHARE allows
TIMED = 2**14  # samples, at most, of each kind that the kernel is timed on

Costs = NDArray[np.float64]  # seconds of kernel a tile, shape (rows, columns) of tiles
Clock = Callable[[], float]


def expect(
    d: Description,
    pending: NDArray[np.bool_],
    block_function: BlockFunction,
    threads: int,
    clock: Clock = time.perf_counter,
) -> Costs | None:
    """Seconds of kernel that each tile is expected to take; None where the job is too small to look ahead.

    Looking at s x s samples of tiles with n samples each takes s * s * threads / n of the job's wall time on so many
    threads, for all of them wait.
    """
    affordable = SHARE * d.tile[0] * d.tile[1] / threads
    side = next((s for s in SIDES if s * s <= affordable), None)
    if pending.sum() <= MIN_TILES or side is None:
        return None
    samples = list(_looks(d, side))
    counts = [_counts(block_function(c)) for c in samples]
    seconds = _price(np.concatenate(samples, None), np.concatenate(counts, None), d.max_iter, block_function, clock)
    a_sample = np.mean([_whole(seconds(n), d.tiles) for n in counts], axis=0)
    rows, columns = (
        np.minimum(tile, length - tile * np.arange(n)) for tile, length, n in zip(d.tile, d.shape, d.tiles, strict=True)
    )
    return np.asarray(a_sample * np.outer(rows, columns))


def makespan(costs: Iterable[float], threads: int) -> float:
    """Seconds until all are done, when each free thread takes the next one."""
    free = [0.0] * threads
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return float(max(free))


def _looks(d: Description, side: int) -> Iterator[NDArray[np.complex128]]:
    """One sample of each tile, at side * side places: arrays of the shape of the grid of tiles.

    A tile at the edge may not have it: then the last rows or columns are missing.
    """
    rows, columns = (
        [min((2 * k + 1) * n // (2 * side), length - 1) for k in range(side)]
        for n, length in zip(d.tile, d.shape, strict=True)
    )
    for row, column in product(rows, columns):
        yield d.view.block((row, d.shape[0]), (column, d.shape[1]), stride=d.tile)


def _counts(block: NDArray[Any]) -> NDArray[np.int32]:
    return np.asarray(block["escape_time"] if block.dtype.names else block)


def _price(
    c: NDArray[np.complex128],
    counts: NDArray[np.int32],
    max_iter: int,
    block_function: BlockFunction,
    clock: Clock,
) -> Callable[[NDArray[np.int32]], Costs]:
    """A function of escape times: the seconds that each sample takes."""
    escapes = counts < max_iter

    def timed(kind: NDArray[np.bool_]) -> tuple[float, int]:
        """Seconds and iterations of some samples, 0 where there are none; every k-th of them, spread over the view."""
        chosen = np.flatnonzero(kind)[:: 1 + int(kind.sum()) // TIMED]
        if not chosen.size:
            return 0.0, 1
        begin = clock()
        block_function(c[chosen])
        return clock() - begin, int(counts[chosen].sum(dtype=np.int64))

    (out_seconds, iterations), (in_seconds, capped) = timed(escapes), timed(~escapes)
    an_iteration, an_interior_sample = out_seconds / iterations, in_seconds / capped * max_iter

    return lambda n: np.where(n < max_iter, n * an_iteration, an_interior_sample)


def _whole(part: Costs, shape: tuple[int, int]) -> Costs:
    """An array filled up to the shape of the grid of tiles, by its last row and column."""
    return np.pad(part, [(0, n - m) for n, m in zip(shape, part.shape, strict=True)], mode="edge")
