"""What each tile is expected to cost: a coarse look at the view with the kernel that will compute it, timed.

Iterations would be a bad measure: a kernel that proves a sample to be interior spends nothing on what counts most.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels import BlockFunction
from mandeldask.store import Description

SHARE = 0.007  # of the job's wall time goes into looking ahead; never more than 0.01, an expectation being what it is
MIN_TILES = 64  # with no more, all are handed out at once
MIN_CELLS = 4
MAX_CELLS = 4096
SIDES = (32, 64, 128)  # of the samples that are timed at once
GROWTH = 3.0  # four times the samples take at least so much longer where samples, not the call, are what is timed

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

    The grid of tiles is cut into square cells; in each that has something pending, a square of evenly spread samples is
    computed and timed. That takes about `SHARE` of the time that the job is expected to take on `threads` threads; a
    cell that no time remains for counts as the mean of the others.
    """
    tiles = int(pending.sum())
    if tiles <= MIN_TILES:
        return None
    began = clock()
    samples, seconds, rate = _look_at_all(d, block_function, clock)
    deadline = began + SHARE * rate * tiles * d.tile[0] * d.tile[1] / threads
    affordable = min(MAX_CELLS, int((deadline - clock()) / seconds))
    side = next((n for n in _powers_of_2(pending.shape) if _cells(pending.shape, n) <= affordable), None)
    if side is None or _cells(pending.shape, side) < MIN_CELLS:
        return None
    firsts = [np.arange(0, n, side) for n in pending.shape]
    wanted = np.argwhere(np.add.reduceat(np.add.reduceat(pending.astype(int), firsts[0], 0), firsts[1], 1))
    np.random.default_rng(0).shuffle(wanted)  # what time remains for is spread over the view
    rates = np.full((firsts[0].size, firsts[1].size), np.nan)  # seconds a sample
    for i, j in wanted.tolist():
        c = _samples(d, (i * side, j * side), side, samples)
        rates[i, j] = _seconds(block_function, c, clock) / c.size
        if clock() > deadline:
            break
    rates[np.isnan(rates)] = np.nanmean(rates)
    rows, columns = (
        np.minimum(tile, length - tile * np.arange(n))
        for tile, length, n in zip(d.tile, d.shape, pending.shape, strict=True)
    )
    of_tiles = rates.repeat(side, 0)[: rows.size].repeat(side, 1)[:, : columns.size]
    return np.asarray(of_tiles * np.outer(rows, columns))


def makespan(costs: Iterable[float], threads: int) -> float:
    """Seconds until all are done, when each free thread takes the next one."""
    free = [0.0] * threads
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return float(max(free))


def _look_at_all(d: Description, block_function: BlockFunction, clock: Clock) -> tuple[int, float, float]:
    """How many samples a side to time at once, the seconds that takes, and seconds a sample: for the whole view."""
    before = 0.0
    for side in SIDES:
        c = _samples(d, (0, 0), max(d.tiles), side)
        seconds = _seconds(block_function, c, clock)
        if before and seconds >= GROWTH * before:
            return side // 2, before, seconds / c.size
        before = seconds
    return side, seconds, seconds / c.size


def _powers_of_2(shape: tuple[int, ...]) -> Iterable[int]:
    return (1 << n for n in range(max(shape).bit_length() + 1))


def _cells(shape: tuple[int, ...], side: int) -> int:
    return -(-shape[0] // side) * -(-shape[1] // side)


def _samples(d: Description, first: tuple[int, int], side: int, sample_side: int) -> NDArray[np.complex128]:
    """Samples evenly spread over a cell of side x side tiles, at most sample_side each way."""
    end = min(first[0] + side, d.tiles[0]), min(first[1] + side, d.tiles[1])
    rows, columns = d.window(first, end)
    strides = [-(-(high - low) // sample_side) for low, high in (rows, columns)]
    low = [low + (stride - 1) // 2 for (low, _), stride in zip((rows, columns), strides, strict=True)]
    return d.view.block((low[0], rows[1]), (low[1], columns[1]), stride=(strides[0], strides[1]))


def _seconds(block_function: BlockFunction, c: NDArray[np.complex128], clock: Clock) -> float:
    begin = clock()
    block_function(c)
    return clock() - begin
