"""What an explorer shows, a store or the view of a run description, in tiles as the page takes them.

A live tile (level, column, row) is the square [column, column + 1] x [row, row + 1] in units of 2^-level, cut into
256 x 256 cells with a sample at each centre. So every bound, and every sample that binary64 resolves, is a binary64
number: nothing is rounded, and the tile's numbers are those of any other view whose cells are the same.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mandeldask.config import Config, load, locate
from mandeldask.errors import ConfigError, StoreError
from mandeldask.image import palette
from mandeldask.kernels import AUTO, KERNELS, BlockFunction, beyond, choose
from mandeldask.store import Description, Store, open_store
from mandeldask.telemetry import sample_type
from mandeldask.text import command, short_path
from mandeldask.view import Deep, View
from mandeldask.view.exact import spelled

Counts = NDArray[np.int32]

SIDE = 256
LIVE_FIELDS = ("escape_time", "smooth")
MAX_ITER = 1_000_000  # of live tiles: 6.6e10 iterations, which is a minute of one core where no shortcut helps
MAX_STEPS = 2**29  # iterations: most of a second
MIN_LEVEL, MAX_LEVEL = -8, 1000
FARTHEST = 1024  # |Re c|, |Im c|: every escape time is 1 out there
# What `smooth` may be beyond the count: (-1.7, 0.3] for |c| < 10, but more near c = -2, where orbits take long to leave
LEAST, STEPS = -2.0, 4096  # the lowest value, and steps to a whole: up to 14
COLORMAPS = ("classic", "viridis", "magma", "inferno", "plasma", "cividis", "turbo")


class _OtherFieldError(StoreError):
    """The store that a run description names holds another field."""


@dataclass(frozen=True)
class Scene:
    """The home view, and the store that has its samples, if there is one."""

    name: str
    view: View
    max_iter: int
    kernel: str
    store: Store | None = None
    config: Config | None = None
    note: str = ""  # why the store that the description names is not shown

    def __post_init__(self) -> None:
        frame = self.view.frame
        if frame is not None and not (isinstance(frame, Deep) and frame.rotation == "0" and not frame.strip):
            raise ConfigError(
                f"the explorer shows upright rectangles, and this is {self.view}; "
                f"draw it with `{command('image', 'STORE', 'OUT.png')}`"
            )

    def tiles(self) -> tuple[int, int]:
        """How many tiles of the store are done, and how many there are, of all its levels."""
        done = [self.store.done(level.number) for level in self.store.description.levels] if self.store else []
        return sum(int(level.sum()) for level in done), sum(level.size for level in done)

    def to_json(self) -> dict[str, Any]:
        """What the page needs to know of it; bounds with all their digits."""
        d = self.store.description if self.store else None
        levels = d.levels if d else ()
        return {
            "name": self.name,
            "x": _bounds(self.view, "x"),
            "y": _bounds(self.view, "y"),
            "unit": self.view.frame.unit if isinstance(self.view.frame, Deep) else 0,
            "rows": self.view.shape[0],
            "columns": self.view.shape[1],
            "registration": self.view.registration,
            "max_iter": self.max_iter,
            "max_iter_limit": MAX_ITER,
            "stored": d is not None,
            "levels": [{"rows": v.shape[0], "columns": v.shape[1], "stride": v.stride} for v in levels],
            "fractions": [LEAST, STEPS],
            "colormaps": {name: [list(colour) for colour in palette(name)[1:255]] for name in COLORMAPS},
        }


def open_scene(path: str) -> Scene:
    """The scene of a store, or of a run description (a file, or the name of one that comes with mandeldask) with its
    store, if that exists and holds the same field; the scene's `note` tells of one that holds another.

    ConfigError where there is neither, the description has a fault, or the view is a turned one or a log-polar strip;
    StoreError where the store is not one of mandeldask's, or damaged.
    """
    path = locate(path)
    if os.path.isfile(path):
        config = load(path)
        try:
            store, note = same_field(config), ""
        except _OtherFieldError as error:
            store, note = None, str(error)
        name, kernel = Path(store.path if store else path).name, choose(config.kernel, config.view)[0]
        shallow = kernel if kernel in KERNELS else choose(AUTO)[0]
        return Scene(name, config.view, config.max_iter, shallow, store, config, note)
    if not os.path.lexists(path) and Path(path).suffix.lower() in (".yaml", ".yml"):
        raise ConfigError(f"{path}: no such file")
    store = open_store(path)
    d = store.description
    return Scene(Path(store.path).name, d.view, d.max_iter, choose(AUTO)[0], store)


def _bounds(view: View, name: Literal["x", "y"]) -> list[str]:
    """The bounds of an axis, in all their decimals."""
    origin, unit = Fraction(0), Fraction(1)
    if isinstance(view.frame, Deep):
        origin, unit = view.frame.exact_origin["xy".index(name)], Fraction(2) ** view.frame.unit
    return [spelled(origin + Fraction(bound) * unit) for bound in getattr(view, name)]


def same_field(config: Config) -> Store | None:
    """The store that the description names, if it exists, in tiles of any size; StoreError for another field."""
    if not config.store or not os.path.lexists(config.store):
        return None
    store = open_store(config.store)
    d = store.description
    if different := d.differences(Description.of(config.view, config.max_iter, d.fields, d.tile, config.proof)):
        path = short_path(store.path)
        raise _OtherFieldError(
            f"all is computed live, as {path} holds another field: {'; '.join(different)}. "
            f"`{command('explore', path)}` shows that one"
        )
    return store


def live_view(level: int, column: int, row: int) -> View:
    """The samples of a live tile; ConfigError where it is out of range, or binary64 cannot resolve them."""
    check_address(level, column, row, MAX_LEVEL)
    x, y = ([spelled(k / Fraction(2) ** level) for k in (n, n + 1)] for n in (column, row))
    view = View(x, y, (SIDE, SIDE), "pixel")  # type: ignore[arg-type]
    view.check_resolved()
    return view


def check_address(level: int, column: int, row: int, deepest: int) -> None:
    """ConfigError where a live tile is out of range."""
    if not MIN_LEVEL <= level <= deepest:
        raise ConfigError(f"levels of live tiles go from {MIN_LEVEL} to {deepest}; got {level}")
    most = Fraction(FARTHEST) * Fraction(2) ** level
    if not all(-most <= n < most for n in (column, row)):
        raise ConfigError(f"live tiles lie within {-FARTHEST} and {FARTHEST} in both directions")


@dataclass(frozen=True)
class PackedTile:
    """Counts as bytes, rows from the lowest y up, then what `fraction` gives of each; and how to read them."""

    data: bytes
    deflated: bool
    kind: str  # of the counts: uint8, uint16, uint32; little-endian
    shape: tuple[int, ...]
    smooth: bool  # whether the fractions are there
    unproven: int = 0  # counts, where these are of kernel deep


def compute_tile(view: View, max_iter: int, kernel: str) -> PackedTile:
    """Compute a live tile; this runs on a worker."""
    block = _block_function(kernel, max_iter)(view.block((0, SIDE), (0, SIDE)))
    return packed(block["escape_time"], block["smooth"], max_iter)


@lru_cache(maxsize=16)
def _block_function(kernel: str, max_iter: int) -> BlockFunction:
    return KERNELS[kernel](max_iter, LIVE_FIELDS)


def stored_tile(store: Store, level: int, row: int, column: int) -> PackedTile:
    """A window of 256 x 256 samples of a store's level, less at its edge; 0 where nothing is computed yet.

    ConfigError where there is no such window; DamagedError or OSError where it cannot be read.
    """
    d = store.description
    if not 0 <= level < len(d.levels):
        raise ConfigError(f"the store has the levels 0 to {len(d.levels) - 1}; got {level}")
    rows, columns = (-(-n // SIDE) for n in d.levels[level].shape)
    if not (0 <= row < rows and 0 <= column < columns):
        raise ConfigError(f"level {level} has {rows} x {columns} windows of {SIDE}; got row {row}, column {column}")
    window = slice(row * SIDE, (row + 1) * SIDE), slice(column * SIDE, (column + 1) * SIDE)
    counts = store.window(*window, level)
    if "smooth" in d.fields:
        return packed(counts, store.window(*window, level, "smooth"), d.max_iter)
    return packed(counts, _smooth(d, d.levels[level].stride, (row, column), counts), d.max_iter)


def _smooth(d: Description, stride: int, at: tuple[int, int], counts: Counts) -> NDArray[np.float64] | None:
    """The field smooth of a store without it; None where it takes seconds to work out."""
    if d.exact or counts.sum(where=counts < d.max_iter, dtype=np.int64) > MAX_STEPS:
        return None
    y, x = ((n * SIDE * stride, (n * SIDE + side - 1) * stride + 1) for n, side in zip(at, counts.shape, strict=True))
    return beyond("smooth", d.view.block(y, x, stride=(stride, stride)), counts, d.max_iter)


def fraction(counts: NDArray[np.integer], smooth: NDArray[np.floating]) -> NDArray[np.uint16]:
    """What the continuous escape time is beyond the count, in `STEPS` from `LEAST`, from 1; 0 where it has no value."""
    beyond = smooth - counts
    steps = np.clip(np.rint((beyond - LEAST) * STEPS), 1, 2**16 - 1)
    return np.where(np.isfinite(beyond), steps, 0).astype("<u2")


def packed(
    counts: NDArray[np.integer], smooth: NDArray[np.floating] | None, max_iter: int, unproven: int = 0
) -> PackedTile:
    """Deflated where that saves a tenth."""
    kind = sample_type(max_iter)
    raw = counts.astype(kind).tobytes() + (b"" if smooth is None else fraction(counts, smooth).tobytes())
    deflated = zlib.compress(raw, 1)
    worth = len(deflated) < 0.9 * len(raw)
    return PackedTile(
        deflated if worth else raw, worth, np.dtype(kind).name, counts.shape, smooth is not None, unproven
    )
