"""How the time follows the workers, the size and the block; and who computed what, when."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from distributed import Client, get_worker, wait

from mandeldask.cluster import workers_of
from mandeldask.lab.timing import Call, Run, Spread, Tell, in_turns, ratio
from mandeldask.lab.workload import BLOCKS_A_WORKER, Part, Workload, compute_part, cut, lesson_view, seahorse_view

LESSON_WORKERS = 4  # that the lesson runs with


@dataclass(frozen=True)
class Sizes:
    """Samples a side of the field that each kernel scales with, and max_iter: about half a second alone for both."""

    numpy: tuple[int, int] = (1000, 100)
    numba: tuple[int, int] = (2048, 5000)
    turns: int = 3
    parts: tuple[int, ...] = (16, 8, 4, 2, 1)  # that a side is cut in, for the sizes of a block

    def work(self, kernel: str, rows: float = 1.0) -> Workload:
        """The kernel's workload with `rows` times as many rows: that much more work."""
        side, max_iter = self.numpy if kernel == "numpy" else self.numba
        view = lesson_view if kernel == "numpy" else seahorse_view
        return Workload(view(max(1, round(side * rows)), side), max_iter, kernel)


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

    rows: tuple[int, int]
    columns: tuple[int, int]
    worker: int
    start: float
    end: float
    iterations: int


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
    return sorted({n for n in (*(2**k for k in range(most.bit_length())), cores, most) if n <= most})


def strong(client: Client, kernels: Sequence[str], counts: Sequence[int], sizes: Sizes, tell: Tell) -> list[Curve]:
    """The same field with more and more workers: time over workers, against the ideal 1/n."""
    return _curves("strong scaling", client, kernels, counts, sizes, tell, lambda n: 1.0)  # noqa: ARG005


def weak(client: Client, kernels: Sequence[str], counts: Sequence[int], sizes: Sizes, tell: Tell) -> list[Curve]:
    """More rows for more workers, as many for each: the ideal is a time that stays."""
    return _curves("weak scaling", client, kernels, counts, sizes, tell, lambda n: n / 4)


def _curves(
    title: str,
    client: Client,
    kernels: Sequence[str],
    counts: Sequence[int],
    sizes: Sizes,
    tell: Tell,
    rows: Callable[[int], float],
) -> list[Curve]:
    workers = list(workers_of(client))
    curves = []
    for kernel in kernels:
        calls: dict[str, Call] = {}
        with ExitStack() as stack:
            for n in counts:
                work = sizes.work(kernel, rows(n))
                pool = stack.enter_context(ThreadPoolExecutor(n))
                calls[f"threads {n}"] = partial(work.in_pool, pool, BLOCKS_A_WORKER * n)
                some = workers[:n]  # the rest of the cluster stands idle
                calls[f"Dask workers {n}"] = partial(
                    work.through_dask, work.block_side(n), scheduler=client, workers=some
                )
            runs = in_turns(calls, sizes.turns, at_least=0, tell=_under(f"{title}, {kernel}", tell))
        for how in ("threads", "Dask workers"):
            first = runs[f"{how} {counts[0]}"]
            points = [_point(n, first, runs[f"{how} {n}"], rows(n) / rows(counts[0]) / n) for n in counts]
            curves.append(Curve(f"{kernel}, {how}", sizes.work(kernel, rows(counts[0])).title(), tuple(points)))
    return curves


def _under(title: str, tell: Tell) -> Tell:
    return lambda text: tell(f"{title}, {text}")


def _point(x: int, first: Sequence[Run], runs: Sequence[Run], work_a_worker: float) -> Point:
    speedup = ratio(first, runs)
    return Point(x, Spread.of([r.wall for r in runs]), speedup, speedup.median * work_a_worker)


def block_sizes(client: Client, kernels: Sequence[str], workers: int, sizes: Sizes, tell: Tell) -> list[Curve]:
    """The same field in ever larger Dask blocks: small ones cost the scheduler, large ones leave workers idle."""
    using = list(workers_of(client))[:workers]
    curves = []
    for kernel in kernels:
        work = sizes.work(kernel)
        side = work.view.shape[0]
        blocks = sorted({max(1, -(-side // parts)) for parts in sizes.parts})
        calls: dict[str, Call] = {"alone": work.alone}
        for block in blocks:
            calls[str(block)] = partial(work.through_dask, block, scheduler=client, workers=using)
        runs = in_turns(calls, sizes.turns, at_least=0, tell=_under(f"block sizes, {kernel}", tell))
        points = [_point(block, runs["alone"], runs[str(block)], 1 / workers) for block in blocks]
        curves.append(Curve(f"{kernel}, {workers} Dask workers", work.title(), tuple(points)))
    return curves


def balance(client: Client, workers: int, sizes: Sizes, tell: Tell) -> list[Balance]:
    """The lesson's field cut in three ways: who computed which block, when."""
    using = list(workers_of(client))[:workers]
    work = sizes.work("numpy")
    rows, columns = work.view.shape
    every_row, every_column = [(0, rows)], [(0, columns)]
    ways = {
        "one strip of rows a worker": [(r, c) for r in cut(rows, workers) for c in every_column],
        "one strip of columns a worker": [(r, c) for r in every_row for c in cut(columns, workers)],
        "8 x 8 blocks": [(r, c) for r in cut(rows, 8) for c in cut(columns, 8)],
    }
    found = []
    for name, parts in ways.items():
        tell(f"load balance, {name}")
        futures = client.map(_traced, [work] * len(parts), parts, workers=using, pure=False)
        wait(futures)
        found.append(_balance(name, workers, client.gather(futures)))
    return found


def _traced(work: Workload, part: Part) -> dict[str, Any]:
    """Compute a part, and tell who did, from when to when."""
    start = time.time()
    iterations = int(compute_part(work, part).sum(dtype="int64"))
    return {"part": part, "who": get_worker().address, "start": start, "end": time.time(), "iterations": iterations}


def _balance(name: str, workers: int, records: list[dict[str, Any]]) -> Balance:
    begin = min(r["start"] for r in records)
    names = {who: i for i, who in enumerate(sorted({r["who"] for r in records}))}
    busy = [0.0] * max(workers, len(names))
    pieces = []
    for r in sorted(records, key=lambda r: r["start"]):
        who = names[r["who"]]
        busy[who] += r["end"] - r["start"]
        rows, columns = r["part"]
        pieces.append(Piece(rows, columns, who, r["start"] - begin, r["end"] - begin, r["iterations"]))
    end = max(p.end for p in pieces)
    return Balance(name, workers, sum(busy) / len(busy) / max(busy), end, tuple(pieces))
