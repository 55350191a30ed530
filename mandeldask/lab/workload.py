"""The field that the lab computes again and again, how large it is, and how: alone, in threads, through Dask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
from dask.system import cpu_count
from distributed import Client

from mandeldask.cluster import Session
from mandeldask.field import escape_time
from mandeldask.grid import complex_grid
from mandeldask.kernels import KERNELS, choose
from mandeldask.lab.lesson import Escapes, cut
from mandeldask.view import Range, View

Compute = Callable[[], Escapes]
BLOCKS_A_WORKER = 4  # at least, so that none waits long for the last
SEAHORSE = (-0.743643887037151, 0.131825904205330)


@dataclass(frozen=True)
class Workload:
    """A view, max_iter and kernel; ConfigError where the kernel cannot be used here."""

    view: View
    max_iter: int
    kernel: str

    def __post_init__(self) -> None:
        choose(self.kernel)

    def __str__(self) -> str:
        rows, columns = self.view.shape
        return f"{rows} x {columns}, max_iter {self.max_iter}, kernel {self.kernel}"

    def part(self, rows: Range, columns: Range) -> Escapes:
        """A window of it, as one block."""
        counts: Escapes = KERNELS[self.kernel](self.max_iter)(self.view.block(rows, columns))
        return counts

    def alone(self) -> Escapes:
        """All of it in the calling thread, as one block."""
        rows, columns = self.view.shape
        return self.part((0, rows), (0, columns))

    def in_threads(self, n: int, stack: ExitStack) -> Compute:
        """Bands of rows, in `n` threads that stay until the stack is closed."""
        (rows, columns), pool = self.view.shape, stack.enter_context(ThreadPoolExecutor(n))
        bands = cut(rows, BLOCKS_A_WORKER * n)
        return lambda: np.vstack(list(pool.map(self.part, bands, [(0, columns)] * len(bands))))

    def block_side(self, workers: int) -> int:
        """The side of Dask's blocks: a quarter of the columns, less where that leaves a worker fewer than four."""
        rows, columns = self.view.shape
        return max(1, min(-(-columns // 4), isqrt(rows * columns // (BLOCKS_A_WORKER * workers))))

    def through_dask(self, block: int, **scheduler: object) -> Escapes:
        """As a Dask array of blocks of `block` x `block`, on the scheduler given as `compute` takes it."""
        grid = complex_grid(self.view, (block, block))
        field: Escapes = escape_time(grid, self.max_iter, self.kernel).compute(**scheduler)
        return field


def lesson_view(rows: int, columns: int | None = None) -> View:
    """The lesson's view: the whole set."""
    return View(x=(-2, 1), y=(-1.5, 1.5), shape=(rows, columns or rows))


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

    def scaled(self, kernel: str, share: float = 1.0) -> Workload:
        """The field that a kernel scales with, with `share` times its rows: that much more work.

        For Numba it lies deep in seahorse valley, where no shortcut helps.
        """
        side, max_iter = self.numpy if kernel == "numpy" else self.numba
        view = lesson_view(max(1, round(side * share)), side)
        if kernel == "numba":
            (x, y), half = SEAHORSE, 5e-6
            view = View((x - half, x + half), (y - half, y + half), view.shape)
        return Workload(view, max_iter, kernel)


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
    base = QUICK if quick else Depth()
    return replace(base, workers=workers or cpu_count(), side=size or base.side, max_iter=max_iter or base.max_iter)


@contextmanager
def local_workers(n: int) -> Iterator[Client]:
    """A client of `n` one-thread workers on this machine, all of them up."""
    with Session({"workers": n}) as there:
        client = there.ready()
        client.wait_for_workers(n, timeout=60)
        yield client
