"""What the tiles are expected to cost: the order in which they are handed out, and the time left, follow from it.

A few samples of each tile are computed, with the kernel that will compute it. Counts alone would be a bad measure: a
kernel that proves a sample to be interior spends nothing on what counts most. So the kernel is timed on samples that
escape and on samples that do not: what an iteration costs of the former, and what a sample costs of the latter.

Each kind is timed twice, as it is and in many copies: a step of a NumPy kernel takes microseconds however few samples
are left, and a tile pays for those once, for its slowest sample. (Charged to each sample, they made the whole set 35
times as costly as it is for numpy-compact at max_iter 20,000.) The clock is the thread's CPU time, for workers are
starting meanwhile.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels import Kernel
from mandeldask.store import Description, Tile
from mandeldask.telemetry import Progress
from mandeldask.tile import Record

SHARE = 0.01  # of the job's wall time goes into looking ahead, at most
MIN_TILES = 64  # with no more, all are handed out at once
SIDES = (8, 4, 2)  # samples a side of a tile that are looked at: as many as SHARE allows
TIMED = 2**17  # samples, with their copies, that the kernel is timed on
COPIES = 8  # of each, at least, where there are enough of them
BATCH = 64  # tiles that are asked for at once: one small graph
# Simulated on 2,025 unequal tiles: with 8 classes 64 workers are busy for 0.999 of the time and 256 for 0.97; with
# tiles in the order of the Morton curve alone 0.91 and 0.69.
CLASSES = 8

Costs = NDArray[np.float64]  # seconds of kernel a tile, shape (rows, columns) of tiles
Clock = Callable[[], float]
Price = Callable[[NDArray[np.int32]], Costs]  # of escape times, in seconds


def expect(
    d: Description,
    pending: NDArray[np.bool_],
    block_function: Kernel,
    threads: int,
    clock: Clock = time.thread_time,
) -> Costs | None:
    """Seconds of kernel that each tile is expected to take; None where the job is too small to look ahead.

    Looking at s x s samples of tiles with n samples each takes s * s * threads / n of the job's wall time on so many
    threads, for all of them wait.
    """
    affordable = SHARE * d.tile[0] * d.tile[1] / threads
    side = next((s for s in SIDES if s * s <= affordable), None)
    if pending.sum() <= MIN_TILES or side is None:
        return None
    looks = list(_looks(d, side))
    samples = np.concatenate(looks, None)
    block = block_function(samples)
    counts = block["escape_time"] if block.dtype.names else block
    timed = slice(None, None, 1 + samples.size * COPIES // TIMED)
    copies = int(max(2, min(TIMED, affordable * pending.size) // samples[timed].size))
    price, overhead = _prices(samples[timed], counts[timed], copies, d.max_iter, block_function, clock)
    ends = np.cumsum([look.size for look in looks])[:-1]
    split = zip(np.split(counts, ends), looks, strict=True)
    found = np.stack([_whole(n.reshape(look.shape), d.tiles) for n, look in split])
    rows, columns = (
        np.minimum(tile, length - tile * np.arange(n)) for tile, length, n in zip(d.tile, d.shape, d.tiles, strict=True)
    )
    return np.asarray(price(found).mean(axis=0) * np.outer(rows, columns) + overhead(found).max(axis=0))


def makespan(costs: Iterable[float], threads: int) -> float:
    """Seconds until all are done, when each free thread takes the next one."""
    free = [0.0] * threads
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return float(max(free))


def order(pending: NDArray[np.bool_], costs: Costs | None = None) -> Iterator[list[Tile]]:
    """Batches of pending tiles, costly tiles first.

    A few costly tiles at the end would leave most workers idle. Tiles are sorted by their class of cost; tiles of one
    class, and all where no costs are known, follow a Morton curve, so that a picture forms part by part. Costs may be
    in any unit.
    """
    rows, columns = np.nonzero(pending)
    along_curve = _spread(rows) << np.uint64(1) | _spread(columns)
    classes = np.zeros(rows.size, np.int64) if costs is None else -_class_of(costs[rows, columns])
    at = np.lexsort((along_curve, classes))
    tiles = zip(rows[at].tolist(), columns[at].tolist(), strict=True)
    while batch := list(islice(tiles, BATCH)):
        yield batch


def _class_of(costs: Costs) -> NDArray[np.int64]:
    """The class of each cost, 0 to CLASSES - 1: as many tiles in each, but equal costs are never parted."""
    if not costs.size:
        return np.zeros(0, np.int64)
    bounds = np.quantile(costs, np.arange(1, CLASSES) / CLASSES)
    return np.searchsorted(bounds, costs, side="left")


def _spread(n: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Put a zero before each of the low 32 bits: two such numbers interleave to a Morton code."""
    v = n.astype(np.uint64)
    for shift in (16, 8, 4, 2, 1):
        mask = (2**64 - 1) // (2**shift + 1)  # so many zeros and so many ones in turn
        v = (v | v << np.uint64(shift)) & np.uint64(mask)
    return v


class Estimate:
    """What a run has done so far, and the time left: from the expected cost of the remaining tiles.

    It is corrected by the time that the finished ones took. Without expected costs every tile counts the same.
    """

    def __init__(self, pending: NDArray[np.bool_], costs: Costs | None, samples: int) -> None:
        """Start with the tiles to compute; `samples` is the number of samples of a whole tile."""
        self.costs = np.where(pending, 1.0 if costs is None else costs, 0.0)
        self.samples = samples
        self.left = float(self.costs.sum())
        self.pending = int(pending.sum())
        self.done = self.failed = self.iterations = 0
        self.expected = 0.0  # cost of the finished tiles, in the unit of `costs`
        self.kernel = 0.0  # seconds of kernel that they took
        self.kernels: Counter[str] = Counter()  # tiles that each has computed
        self.busy = 0.0  # seconds that threads spent on them, writing included
        self.first, self.last = np.inf, -np.inf  # when the first task began and the last ended
        self.threads: dict[str, int] = {}  # of each worker
        self.seen: dict[str, tuple[float, float]] = {}  # each worker, first and last

    def count(self, threads: Mapping[str, int], now: float) -> None:
        """Note which workers are there at a Unix time, and the threads of each."""
        self.threads |= threads
        for worker in threads:
            self._see(worker, now, now)

    @property
    def thread_seconds(self) -> float:
        """What the workers' threads had, from the first task to the last: of a worker that came late, or left, less."""
        return sum(
            self.threads.get(worker, 1) * max(0.0, min(last, self.last) - max(first, self.first))
            for worker, (first, last) in self.seen.items()
        )

    def _see(self, worker: str, start: float, end: float) -> None:
        first, last = self.seen.get(worker, (start, end))
        self.seen[worker] = min(first, start), max(last, end)

    def add(self, record: Record) -> None:
        self._leave(record.tile)
        self.done += 1
        self.expected += float(self.costs[record.tile])
        self.kernel += record.seconds
        self.kernels[record.kernel] += 1
        self.busy += record.finished - record.started
        self.iterations += record.iterations - record.copied
        self.first, self.last = min(self.first, record.started), max(self.last, record.finished)
        self._see(record.worker, record.started, record.finished)

    def give_up(self, tile: Tile) -> None:
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
        # the tiles in progress have cost time too: half a tile each, as a guess
        at_work = min(threads, (self.busy + threads * self.busy / self.done / 2) / elapsed)
        return (kernel + beside) / max(at_work, 1e-6)


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


def _prices(
    c: NDArray[np.complex128],
    counts: NDArray[np.int32],
    copies: int,
    max_iter: int,
    block_function: Kernel,
    clock: Clock,
) -> tuple[Price, Price]:
    """Two functions of escape times: the seconds that each sample takes, and those of a call whose slowest it is."""

    def timed(c: NDArray[np.complex128]) -> float:
        begin = clock()
        block_function(c)
        return clock() - begin

    def parts(kind: NDArray[np.bool_]) -> tuple[float, float]:
        """Seconds of the samples of a kind, and of their call."""
        if not kind.any():
            return 0.0, 0.0
        once, often = timed(c[kind]), timed(np.tile(c[kind], copies))
        samples = min(once, max(0.0, often - once) / (copies - 1))
        return samples, once - samples

    escapes = counts < max_iter
    iterations, longest = counts[escapes].sum(dtype=np.int64), counts[escapes].max(initial=1)
    (outside, steps), (inside, all_steps) = parts(escapes), parts(~escapes)
    an_iteration, an_interior_sample = outside / max(1, iterations), inside / max(1, int((~escapes).sum()))
    return (
        lambda n: np.where(n < max_iter, n * an_iteration, an_interior_sample),
        lambda n: np.where(n < max_iter, n * (steps / longest), all_steps),
    )


def _whole(part: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    """An array filled up to the shape of the grid of tiles, by its last row and column."""
    return np.pad(part, [(0, n - m) for n, m in zip(shape, part.shape, strict=True)], mode="edge")
