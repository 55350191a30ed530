"""The area of the set, or of a window of it, with an error bar.

Randomly shifted grids of samples are counted on a cluster: complex grid -> escape-time field -> counts, none stored.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import dask.array as da
import numpy as np
from distributed import Client
from numpy.typing import NDArray

from mandeldask import config as configs
from mandeldask.cluster import Session, results
from mandeldask.errors import ConfigError, StoreError
from mandeldask.field import escape_time
from mandeldask.grid import complex_grid
from mandeldask.kernels import AUTO, MAX_ITER_LIMIT, choose
from mandeldask.kernels.fields import NOT_ESCAPED
from mandeldask.measure.estimate import LEAST_MAX_ITER, LEMNISCATE, Area, Estimate, grids_needed, max_iters
from mandeldask.view import View

__all__ = ["Area", "Counted", "area"]

X, Y = (-2.0, 0.5625), (-1.28125, 1.28125)  # hold the set, and all |z_4| <= 2
BLOCK = 1024, 2048  # samples: 32 MiB of complex128
BAND = 2**16  # samples
MAX_N = 2**22
LEAST_GRIDS = 8  # whose spread is believed
Row = tuple[int, int]  # grid, row of blocks


@dataclass(frozen=True)
class Counted:
    """How far the count is."""

    done: int  # rows of blocks
    rows: int
    samples: int  # counted by this call
    seconds: float
    seconds_left: float | None


def area(
    *,
    x: tuple[float, float] = X,
    y: tuple[float, float] = Y,
    n: int = 16384,
    grids: int = 8,
    max_iter: int = 2**18,
    until: float | None = None,
    seed: int = 1,
    out: str | os.PathLike[str] | None = None,
    kernel: str = AUTO,
    cluster: configs.AnyCluster | None = None,
    client: Client | None = None,
    upload: bool = False,
    tell: Callable[[Counted | str], None] = lambda _: None,
) -> Area:
    """The area of the Mandelbrot set, or of what a window holds of it, in units of c, with its error.

    Each grid is shifted at random by less than a sample in both directions, so that its count is right in the mean;
    their spread tells the error. Nothing is stored but counts.

    Parameters
    ----------
    x, y : (low, high)
        The window; by default one that holds the whole set.
    n : int
        Samples a side of a grid.
    grids : int
        How many grids, at least 2; with `until` at least 8, for a few may agree by chance, and more if it takes them.
    max_iter : int
        The largest; the area is extrapolated from it, its half, quarter and so on to a 64th.
    until : float, optional
        Add grids until `Area.error` is no larger.
    seed : int
        Of the shifts. Each grid's depends on the seed and its number alone.
    out : path, optional
        A small file of counts: the same call goes on with it, to the same digits as if it had never ended.
    kernel, cluster, client, upload
        As for `run`.
    tell : callable, optional
        Is given a `Counted` whenever a row of blocks is done, and lines for a person.

    Raises
    ------
    ConfigError
        A parameter out of range; a file of other parameters; an `until` that more grids alone do not reach.
    StoreError, ClusterError
        A file that cannot be written; as for `run`.
    """
    _check(n, grids, max_iter, until, seed)
    view = View(x, y, (n, n), "pixel")
    view.check_resolved()
    name, _ = choose(kernel)
    grids = grids if until is None else max(grids, LEAST_GRIDS)
    parameters = {"x": list(view.x), "y": list(view.y), "n": n, "max_iter": max_iter, "seed": seed, "rows": BLOCK[0]}
    with (
        _kept(out, parameters) as (file, counts),
        Session(cluster, kernel=name, client=client, upload=upload, say=tell) as session,
    ):
        counter = _Counter(view, max_iter, seed, name, file, counts, session, tell)
        estimate = counter.count(grids)
        while until is not None and estimate.error > until:
            more = grids_needed(estimate, grids, until)
            if not more:
                raise ConfigError(
                    f"--until {until:g} is out of reach of max_iter {max_iter}: the extrapolation alone may err by "
                    f"{estimate.extrapolation_error:.2g}. Take a larger --max-iter, and another --out"
                )
            grids = more
            tell(f"error {estimate.error:.2g}: going on with {grids} grids")
            estimate = counter.count(grids)
        return counter.result(grids, estimate)


def _check(n: int, grids: int, max_iter: int, until: float | None, seed: int) -> None:
    least = {"n": (n, 2, MAX_N), "grids": (grids, 2, 2**20), "max_iter": (max_iter, LEAST_MAX_ITER, MAX_ITER_LIMIT)}
    for name, (value, low, high) in (least | {"seed": (seed, 0, 2**63)}).items():
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"{name} must be an integer from {low} to {high}; got {value!r}")
    if until is not None and not until > 0:
        raise ConfigError(f"until must be an error above 0, such as 1e-6; got {until!r}")


def _shifted(view: View, seed: int, grid: int) -> View:
    """The view, moved by up to half a sample in either direction."""
    down, right = np.random.default_rng([seed, grid]).random(2) - 0.5
    (left, end), (low, high) = view.x, view.y
    dx, dy = right * (end - left) / view.shape[1], down * (high - low) / view.shape[0]
    return View((left + dx, end + dx), (low + dy, high + dy), view.shape, "pixel")


def _tally(block: NDArray[Any], limits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Samples whose escape time is at least each limit, and those not proved to stay, as a column."""
    found = []
    for band in np.array_split(block, -(-block.size // BAND)):  # which stays in the CPU's cache
        times = np.ascontiguousarray(band["escape_time"])
        counted = [np.count_nonzero(times >= limit) for limit in limits]
        found.append([*counted, np.count_nonzero(band["interior"] == NOT_ESCAPED)])
    total: NDArray[np.int64] = np.array(found, np.int64).sum(axis=0)
    return total[:, np.newaxis]


@contextmanager
def _kept(
    path: str | os.PathLike[str] | None, parameters: dict[str, Any]
) -> Iterator[tuple[BinaryIO, dict[Row, list[int]]]]:
    """The file of counts, in memory where none is named, and what it holds; StoreError while another process has it.

    It is a line of parameters, then a line for each row of blocks that was counted; JSON each.
    """
    with io.BytesIO() if path is None else open(path, "a+b") as file:
        if path is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"another process counts into {os.fspath(path)}: wait for it, or name another --out"
                ) from None
        file.seek(0)
        yield file, _begun(file, parameters, path)


def _begun(file: BinaryIO, parameters: dict[str, Any], path: str | os.PathLike[str] | None) -> dict[Row, list[int]]:
    """What a file holds; a new one gets its first line.

    ConfigError where it is of other parameters, or no such file; it stays as it is.
    """
    lines = file.read().split(b"\n")
    try:
        if not lines[:-1] and not json.dumps(parameters).encode().startswith(lines[-1]):
            raise ValueError("no line of ours")  # noqa: TRY301
        first, *rows = [json.loads(line) for line in lines[:-1]] or [parameters]
        other = {key: first.get(key) for key in parameters if first.get(key) != parameters[key]}
        counts = {(int(line["grid"]), int(line["row"])): [int(n) for n in line["counts"]] for line in rows}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(f"{path} holds no counts of `mandeldask area`: name another file with --out") from None
    if other:
        name, value = next(iter(other.items()))
        raise ConfigError(
            f"{path} holds counts of {name} {value}, not {parameters[name]}: "
            f"give the same parameters to go on with it, or another --out"
        )
    file.truncate(file.tell() - len(lines[-1]))  # a line that was cut off
    file.seek(0, os.SEEK_END)
    if not file.tell():
        _write(file, parameters)
    return counts


def _write(file: BinaryIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line).encode() + b"\n")
    file.flush()


@dataclass
class _Counter:
    """Counts what is missing of a number of grids, a bounded number of blocks at a time."""

    view: View
    max_iter: int
    seed: int
    kernel: str
    file: BinaryIO
    counts: dict[Row, list[int]]
    session: Session
    tell: Callable[[Counted | str], None]
    samples: int = 0
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Of blocks, in a grid."""
        return -(-self.view.shape[0] // BLOCK[0])

    def count(self, grids: int) -> Estimate:
        """The estimate from so many grids; what the counts lack of them is computed."""
        missing = [(g, r) for g in range(grids) for r in range(self.rows) if (g, r) not in self.counts]
        begun, before = time.monotonic(), self.seconds
        client = self.session.ready() if missing else None
        for done, (row, values) in enumerate(self._computed(missing, client) if client else (), 1):
            self.counts[row] = values
            _write(self.file, {"grid": row[0], "row": row[1], "counts": values})
            first, end = self._window(row[1])
            self.samples += (end - first) * self.view.shape[1]
            elapsed = time.monotonic() - begun
            self.seconds = before + elapsed
            left = elapsed / done * (len(missing) - done)
            at = grids * self.rows - len(missing) + done
            self.tell(Counted(at, grids * self.rows, self.samples, self.seconds, left if done > 1 else None))
        areas = self._areas(grids)
        return Estimate.of(areas[:, 1:-1], not_proved=float(areas[:, -1].mean()))

    def _areas(self, grids: int) -> NDArray[np.float64]:
        """For each grid the areas within z_4 and each max_iter, and that not proved."""
        rows = [[self.counts[g, r] for r in range(self.rows)] for g in range(grids)]
        totals: NDArray[np.float64] = np.array(rows, np.float64).sum(axis=1)  # whole numbers, exact to 2^53
        return totals * self.view.cell_area

    def _window(self, row: int) -> tuple[int, int]:
        return row * BLOCK[0], min((row + 1) * BLOCK[0], self.view.shape[0])

    def _computed(self, rows: list[Row], client: Client) -> Iterator[tuple[Row, list[int]]]:
        """The counts of rows of blocks, as they come."""
        blocks = -(-self.view.shape[1] // BLOCK[1])
        futures = ((client.compute(self._lazy(row)), row) for row in rows)
        for values, row in results(futures, client, "counted these samples", blocks):
            yield row, [int(value) for value in values]

    def _lazy(self, row: Row) -> da.Array:
        """How many samples of a row of blocks have not escaped within z_4 and each max_iter, nor are proved to stay."""
        limits = np.array([LEMNISCATE + 1, *max_iters(self.max_iter)])
        view = _shifted(self.view, self.seed, row[0])
        grid = complex_grid(view, BLOCK, (self._window(row[1]), (0, view.shape[1])))
        field = escape_time(grid, self.max_iter, self.kernel, ("escape_time", "interior"))
        chunks = ((limits.size + 1,), (1,) * field.numblocks[1])
        meta = np.empty((0, 0), np.int64)
        return field.map_blocks(_tally, limits, chunks=chunks, dtype=np.int64, meta=meta).sum(axis=1)

    def result(self, grids: int, estimate: Estimate) -> Area:
        view, whole = self.view, (self.view.x, self.view.y) == (X, Y)
        inner, *_, open_ = self._areas(grids).T
        spread = float(inner.std(ddof=1)) / grids**0.5
        return Area(
            **asdict(estimate),
            error=estimate.error,
            max_iter=max_iters(self.max_iter),
            not_proved=float(open_.mean()),
            lemniscate=(float(inner.mean()), spread) if whole else None,
            x=view.x,
            y=view.y,
            n=view.shape[0],
            grids=grids,
            seed=self.seed,
            kernel=self.kernel,
            samples=grids * view.size,
            seconds=self.seconds,
            samples_per_second=self.samples / self.seconds if self.seconds else 0.0,
        )
