"""How the time follows the workers, the size and the block; and who computed what, when."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from distributed import Client, get_worker

from mandeldask.cluster import workers_of
from mandeldask.lab.timing import Call, Run, Spread, Tell, in_turns, ratio
from mandeldask.lab.workload import Depth, Part, Workload, cut
from mandeldask.view import Range

LESSON_WORKERS = 4  # that the lesson runs with


@dataclass(frozen=True)
class Point:
    """One place on a curve: at x workers, or at blocks of x samples a side."""

    x: int
    seconds: Spread
    speedup: Spread  # against the first point of the curve, or against the kernel alone for block sizes
    efficiency: float  # 1 is ideal


@dataclass(frozen=True)
class Curve:
    name: str
    workload: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Piece:
    """A block: where it lies, which worker computed it, from when to when (seconds after the first began)."""

    rows: Range
    columns: Range
    worker: int
    start: float
    end: float


@dataclass(frozen=True)
class Balance:
    """A field cut in one way, and who computed which block when. `evenness`: mean busy time over the busiest's."""

    name: str
    workers: int
    evenness: float
    seconds: float
    pieces: tuple[Piece, ...]


def worker_counts(cores: int) -> list[int]:
    """1, 2, 4, ... up to the cores, and at least to the lesson's four, so that a small machine shows too many."""
    most = max(cores, LESSON_WORKERS)
    return sorted({n for n in (*(2**k for k in range(most.bit_length())), cores) if n <= most})


@dataclass(frozen=True)
class Scaling:
    """The measurements on a cluster; where fewer workers are asked for, the others stand idle."""

    client: Client
    kernels: Sequence[str]
    depth: Depth
    tell: Tell = lambda _: None

    def strong(self, counts: Sequence[int]) -> list[Curve]:
        """The same field with more and more workers: the ideal time is 1/n."""
        return [c for kernel in self.kernels for c in self._over_workers(kernel, counts, weak=False)]

    def weak(self, counts: Sequence[int]) -> list[Curve]:
        """As many rows for each worker: the ideal time stays the same."""
        return [c for kernel in self.kernels for c in self._over_workers(kernel, counts, weak=True)]

    def _over_workers(self, kernel: str, counts: Sequence[int], weak: bool) -> list[Curve]:
        works = {n: self.depth.scaled(kernel, n / 4 if weak else 1.0) for n in counts}
        calls: dict[str, Call] = {}
        with ExitStack() as stack:
            for n, work in works.items():
                calls[f"threads {n}"] = partial(work.in_pool, stack.enter_context(ThreadPoolExecutor(n)), n)
                calls[f"Dask workers {n}"] = self._through_dask(work, work.block_side(n), n)
            runs = self._timed(f"{'weak' if weak else 'strong'} scaling, {kernel}", calls)
        curves = []
        for means in ("threads", "Dask workers"):
            first = runs[f"{means} {counts[0]}"]
            points = tuple(_point(n, first, runs[f"{means} {n}"], 1 if weak else n) for n in counts)
            curves.append(Curve(f"{kernel}, {means}", works[counts[0]].title, points))
        return curves

    def block_sizes(self, workers: int) -> list[Curve]:
        """The same field in ever larger Dask blocks: small ones cost the scheduler, large ones leave workers idle."""
        return [self._over_blocks(kernel, workers) for kernel in self.kernels]

    def _over_blocks(self, kernel: str, workers: int) -> Curve:
        work = self.depth.scaled(kernel)
        sides = sorted({max(1, -(-work.view.shape[0] // parts)) for parts in self.depth.parts})
        through_dask = {str(side): self._through_dask(work, side, workers) for side in sides}
        runs = self._timed(f"block sizes, {kernel}", {"alone": work.alone} | through_dask)
        points = tuple(_point(side, runs["alone"], runs[str(side)], workers) for side in sides)
        return Curve(f"{kernel}, {workers} Dask workers", work.title, points)

    def balance(self, workers: int) -> list[Balance]:
        """The lesson's field cut in three ways: who computed which block, when."""
        ways = {
            "one strip of rows a worker": (workers, 1),
            "one strip of columns a worker": (1, workers),
            "8 x 8 blocks": (8, 8),
        }
        return [self._balance(name, cuts, workers) for name, cuts in ways.items()]

    def _balance(self, name: str, cuts: tuple[int, int], workers: int) -> Balance:
        self.tell(f"load balance, {name}")
        work, addresses = self.depth.scaled("numpy"), self._first(workers)
        rows, columns = map(cut, work.view.shape, cuts)
        parts = [(r, c) for r in rows for c in columns]
        traced = self.client.gather(self.client.map(partial(_traced, work), parts, workers=addresses, pure=False))
        begin = min(start for _, start, _ in traced)
        pieces = tuple(
            Piece(*part, addresses.index(address), start - begin, end - begin)
            for part, (address, start, end) in zip(parts, traced, strict=True)
        )
        busy = [sum(p.end - p.start for p in pieces if p.worker == worker) for worker in range(workers)]
        return Balance(name, workers, sum(busy) / workers / max(busy), max(p.end for p in pieces), pieces)

    def _first(self, n: int) -> list[str]:
        return list(workers_of(self.client))[:n]

    def _through_dask(self, work: Workload, block: int, workers: int) -> Call:
        return partial(work.through_dask, block, scheduler=self.client, workers=self._first(workers))

    def _timed(self, title: str, calls: dict[str, Call]) -> dict[str, list[Run]]:
        for call in calls.values():  # imports and compilation come but once
            call()
        return in_turns(calls, self.depth.scaling_turns, tell=lambda text: self.tell(f"{title}, {text}"))


def _point(x: int, first: Sequence[Run], runs: Sequence[Run], ideal: int) -> Point:
    speedup = ratio(first, runs)
    return Point(x, Spread.of([r.wall for r in runs]), speedup, speedup.median / ideal)


def _traced(work: Workload, part: Part) -> tuple[str, float, float]:
    """Compute a part: the worker's address, and from when to when on its own clock."""
    start = time.time()
    work.part(*part)
    return get_worker().address, start, time.time()
