"""Tiles as the page takes them: addresses, the samples they stand for, and their bytes. Workers import this module.

A live tile (level, column, row) is the square [column, column + 1] x [row, row + 1] in units of 2^-level, cut into
256 x 256 cells with a sample at each centre. So every bound, and every sample that binary64 resolves, is a binary64
number: nothing is rounded, and the tile's numbers are those of any other view whose cells are the same.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.kernels import KERNELS, BlockFunction
from mandeldask.store import Store
from mandeldask.telemetry import sample_type
from mandeldask.view import View

Content = Literal["counts", "fraction"]

SIDE = 256
MAX_ITER = 1_000_000  # of live tiles: 6.6e10 iterations, which is a minute of one core where no shortcut helps
MIN_LEVEL, MAX_LEVEL = -8, 1000
FARTHEST = 1024  # |Re c|, |Im c|: every escape time is 1 out there
# `smooth` minus the count lies in (-1.7, 0.3] for |c| < 10: hundredths from -2 up, and 0 for no value
FRACTION_STEP, FRACTION_START = 0.01, -2.0


@dataclass(frozen=True)
class Address:
    """Which live tile."""

    level: int
    column: int
    row: int

    def __post_init__(self) -> None:
        if not MIN_LEVEL <= self.level <= MAX_LEVEL:
            raise ConfigError(f"levels of live tiles go from {MIN_LEVEL} to {MAX_LEVEL}; got {self.level}")
        most = Fraction(FARTHEST) * Fraction(2) ** self.level
        if not all(-most <= n < most for n in (self.column, self.row)):
            raise ConfigError(f"live tiles lie within {-FARTHEST} and {FARTHEST} in both directions")

    @property
    def view(self) -> View:
        """The samples; ConfigError where binary64 cannot resolve them."""
        x, y = ((dyadic(n, self.level), dyadic(n + 1, self.level)) for n in (self.column, self.row))
        view = View(x, y, (SIDE, SIDE), "pixel")  # type: ignore[arg-type]
        view.check_resolved()
        return view


def dyadic(n: int, level: int) -> str:
    """N / 2^level in all its decimal digits."""
    if level <= 0:
        return str(n << -level)
    digits = str(abs(n) * 5**level).zfill(level + 1)
    return f"{'-' if n < 0 else ''}{digits[:-level]}.{digits[-level:]}"


@dataclass(frozen=True)
class PackedTile:
    """Samples as bytes, rows from the lowest y up, and how to read them."""

    data: bytes
    deflated: bool
    kind: str  # uint8, uint16, uint32; little-endian
    shape: tuple[int, int]


def compute_tile(address: Address, max_iter: int, kernel: str, content: Content = "counts") -> PackedTile:
    """Compute a live tile; this runs on a worker."""
    fields = ("escape_time",) if content == "counts" else ("escape_time", "smooth")
    block = _block_function(kernel, max_iter, fields)(address.view.block((0, SIDE), (0, SIDE)))
    if content == "counts":
        return pack(block.astype(sample_type(max_iter)))
    return pack(fraction(block["escape_time"], block["smooth"]))


@lru_cache(maxsize=16)
def _block_function(kernel: str, max_iter: int, fields: tuple[str, ...]) -> BlockFunction:
    return KERNELS[kernel](max_iter, fields)


def stored_tile(store: Store, level: int, row: int, column: int, content: Content = "counts") -> PackedTile:
    """A window of 256 x 256 samples of a store's level, less at its edge; 0 where nothing is computed yet.

    Raises
    ------
    ConfigError
        No such window.
    DamagedError, OSError
        It cannot be read.
    """
    d = store.description
    if not 0 <= level < len(d.levels):
        raise ConfigError(f"the store has the levels 0 to {len(d.levels) - 1}; got {level}")
    rows, columns = (-(-n // SIDE) for n in d.levels[level].shape)
    if not (0 <= row < rows and 0 <= column < columns):
        raise ConfigError(f"level {level} has {rows} x {columns} windows of {SIDE}; got row {row}, column {column}")
    if content == "fraction" and "smooth" not in d.fields:
        raise ConfigError(f"the store has no field smooth; it has {', '.join(d.fields)}")
    window = slice(row * SIDE, (row + 1) * SIDE), slice(column * SIDE, (column + 1) * SIDE)
    counts = store.window(*window, level)
    if content == "counts":
        return pack(counts.astype(sample_type(d.max_iter)))
    return pack(fraction(counts, store.window(*window, level, "smooth")))


def fraction(counts: NDArray[np.int32], smooth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What the continuous escape time is beyond the count, in hundredths from -2 up; 0 where it has no value."""
    with np.errstate(invalid="ignore"):
        steps = np.rint((smooth - counts - FRACTION_START) / FRACTION_STEP)
    return np.where(np.isfinite(steps), np.clip(steps, 1, 255), 0).astype(np.uint8)


def pack(samples: NDArray[Any]) -> PackedTile:
    """Deflated where that saves a tenth."""
    raw = np.ascontiguousarray(samples).tobytes()
    deflated = zlib.compress(raw, 1)
    worth = len(deflated) < 0.9 * len(raw)
    return PackedTile(deflated if worth else raw, worth, samples.dtype.name, samples.shape)
