"""The field that the lab computes again and again, and the ways to compute it: alone, in threads, through Dask."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from mandeldask.cluster import session
from mandeldask.field import escape_time
from mandeldask.grid import complex_grid
from mandeldask.kernels import KERNELS, choose
from mandeldask.view import Range, View

Escapes = NDArray[np.int32]
Part = tuple[Range, Range]  # rows and columns of a block, global indices
BLOCKS_A_WORKER = 4  # at least, so that none waits long for the last


@dataclass(frozen=True)
class Workload:
    """A view, max_iter and kernel; ConfigError where the kernel cannot be used here."""

    view: View
    max_iter: int
    kernel: str

    def __post_init__(self) -> None:
        choose(self.kernel)

    @property
    def title(self) -> str:
        rows, columns = self.view.shape
        return f"{rows} x {columns}, max_iter {self.max_iter}, kernel {self.kernel}"

    def alone(self) -> Escapes:
        """In the calling thread, as one block."""
        rows, columns = self.view.shape
        return self.part((0, rows), (0, columns))

    def part(self, rows: Range, columns: Range) -> Escapes:
        """A window of it, in the calling thread."""
        counts: Escapes = KERNELS[self.kernel](self.max_iter)(self.view.block(rows, columns))
        return counts

    def in_pool(self, pool: Executor, workers: int) -> Escapes:
        """Bands of rows, in as many threads of `pool`."""
        rows, columns = self.view.shape
        bands = cut(rows, BLOCKS_A_WORKER * workers)
        return np.vstack(list(pool.map(self.part, bands, [(0, columns)] * len(bands))))

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


def seahorse_view(rows: int, columns: int | None = None) -> View:
    """Deep in seahorse valley, where no shortcut helps and the Numba kernel has work to do."""
    x, y, half = -0.743643887037151, 0.131825904205330, 5e-6
    return View(x=(x - half, x + half), y=(y - half, y + half), shape=(rows, columns or rows))


def cut(n: int, parts: int) -> list[Range]:
    """[0, n) in ranges that differ by one at most, none of them empty."""
    edges = [n * i // parts for i in range(parts + 1)]
    return [(first, end) for first, end in pairwise(edges) if first < end]


@contextmanager
def local_workers(n: int) -> Iterator[Client]:
    """A client of `n` one-thread workers on this machine, all of them up."""
    with session({"workers": n}) as there:
        client = there.ready()
        client.wait_for_workers(n, timeout=60)
        yield client
