"""From the samples to a frame: each pixel is interpolated between four texels of each of two mip levels.

The textures are the mip-maps of L. Williams (1983). Mip level m has a texel for 2^m x 2^m samples. Colours are
averaged in linear light, never counts. Mip levels 0 to 2 average all samples, each further one the sixteen that the
level m - 2 of the store holds of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from mandeldask.image import PictureOptions, Pixels, averaged, linear, palette, palette_index, srgb_curve
from mandeldask.store import Store
from mandeldask.view import LogPolar
from mandeldask.zoom.film import COLUMNS, CORE, Film

Light = NDArray[np.uint16]  # red, green and blue, linear, up to 65535
ToColour = Callable[[NDArray[np.integer]], Light]

SCALE_SAMPLES = 2**20  # at most, that the scale is laid out for
BLOCK = 512  # rows of a level read at a time: the most that a chunk has
MARGIN = 2  # rows of texels beside those that a frame looks at


class Painter:
    """Paints the frames of a film from its strip and its core."""

    def __init__(self, film: Film, strip: Store, core: Store, options: PictureOptions) -> None:
        self.film, colour = film, to_colour(strip, options)
        self.core = atlas(core, colour)
        width, height = film.size
        u = np.arange(width) + 0.5 - width / 2
        v = np.arange(height) + 0.5 - height / 2
        radius = np.hypot(u, v[:, np.newaxis])
        turn = np.arctan2(v[:, np.newaxis], u) / (2 * math.pi) % 1.0
        frame = film.strip.frame
        assert isinstance(frame, LogPolar)
        self.log_inner = math.log(frame.radius[0])
        self.step = math.log(frame.radius[1] / frame.radius[0]) / (film.strip.shape[0] - 1)
        self.row = np.log(radius) / self.step  # of the strip, but for what the span adds
        self.column = turn * film.columns
        # How many samples of the strip a pixel covers each way, as a power of 2; the same in every frame.
        self.mip = np.maximum(0.0, np.log2(film.columns / (2 * math.pi) / radius)).astype(np.float32)
        most = min(math.ceil(self.mip.max()), COLUMNS.bit_length() - 1)
        self.textures = [_Texture(strip, colour, m) for m in range(most + 1)]
        self.rows = [self._rows(m) for m in range(most + 1)]

    def _rows(self, m: int) -> tuple[float, float]:
        """Between which rows of the strip the pixels of mip level m lie, but for what the span adds."""
        last = m == len(self.textures) - 1
        used = self.row[(self.mip > m - 1) & ((self.mip < m + 1) | last)]
        slack = MARGIN * 2**m
        return (used.min() - slack, used.max() + slack) if used.size else (0.0, 0.0)

    def paint(self, span: float) -> Pixels:
        """The frame of a span: RGB, shape (height, width, 3), the top row first."""
        shift = (math.log(span / self.film.size[0]) - self.log_inner) / self.step
        moved = [t.move(low + shift, high + shift) for t, (low, high) in zip(self.textures, self.rows, strict=True)]
        if any(moved):  # at the first frame all
            self.strip = _joined(self.textures)
        out = np.empty((*self.row.shape, 3), np.uint8)
        scale = CORE * span / float(self.film.last)  # samples of the core a pixel
        _paint(out, self.row, self.column, self.mip, shift, *self.strip, scale, *self.core, srgb_curve())
        return out[::-1]


def to_colour(strip: Store, options: PictureOptions) -> ToColour:
    """The function from escape times to light, the same for all frames: laid out for the whole strip."""
    d = strip.description
    level = next((level for level in d.levels if level.shape[0] * level.shape[1] <= SCALE_SAMPLES), d.levels[-1])
    sample = strip.window(slice(None), slice(None), level.number)
    index = palette_index(sample, d.max_iter, options)
    colours = (linear(palette(options.colormap, options.interior)).T * 65535 + 0.5).astype(np.uint16)
    return lambda counts: colours[index(counts)]


@dataclass
class _Texture:
    """The rows of one mip level that a frame needs; as the film goes on, they move.

    `texels` begins with the row `first`; the centre of texel t lies at the sample stride * (t * side + (side - 1) / 2).
    """

    store: Store
    to_colour: ToColour
    mip: int
    blocks: dict[int, Light] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.level = min(max(0, self.mip - 2), len(self.store.description.levels) - 1)
        self.stride, self.side = 1 << self.level, 1 << (self.mip - self.level)
        rows, columns = self.store.description.levels[self.level].shape
        self.rows, self.columns = max(1, rows // self.side), max(1, columns // self.side)
        self.block = max(1, BLOCK // self.side)  # rows of texels

    def move(self, low: float, high: float) -> bool:
        """Hold the texels for the samples' rows from `low` to `high`, as far as there are any; whether they changed."""
        low, high = ((row / self.stride - (self.side - 1) / 2) / self.side for row in (low, high))
        rows = np.clip([np.floor(low), np.ceil(high)], 0, self.rows - 1).astype(int)
        first, last = (rows // self.block).tolist()
        wanted = range(first, last + 1)
        if list(self.blocks) == list(wanted):
            return False
        self.blocks = {k: self.blocks[k] if k in self.blocks else self._read(k) for k in wanted}
        self.first = first * self.block
        self.texels = np.concatenate(list(self.blocks.values()))
        return True

    def _read(self, block: int) -> Light:
        first, last = block * self.block, min((block + 1) * self.block, self.rows)
        window = slice(first * self.side, last * self.side), slice(0, self.columns * self.side)
        pixels = self.to_colour(self.store.window(*window, level=self.level))
        if self.side == 1:
            return pixels
        means = averaged(np.moveaxis(pixels, -1, 0), self.side)
        return np.moveaxis((means + 0.5).astype(np.uint16), 0, -1)


def atlas(store: Store, to_colour: ToColour) -> tuple[Light, NDArray[np.int64]]:
    """All of a store in textures, halved until one side is down to a texel: as `_paint` takes them."""
    rows, columns = store.description.shape
    textures = [_Texture(store, to_colour, m) for m in range(min(rows, columns).bit_length())]
    for texture in textures:
        texture.move(0, rows)
    return _joined(textures)


def _joined(textures: list[_Texture]) -> tuple[Light, NDArray[np.int64]]:
    """Textures in one array, and a table with a row for each, as compiled code reads them.

    Its columns: where it begins, its first row, rows, columns, all in texels; stride and side.
    """
    table, start = [], 0
    for t in textures:
        rows, columns = t.texels.shape[:2]
        table.append((start, t.first, rows, columns, t.stride, t.side))
        start += rows * columns
    return np.concatenate([t.texels.reshape(-1, 3) for t in textures]), np.array(table, np.int64)


def _compiled(function: Any) -> Any:
    dispatcher = numba.njit(nogil=True)(function)
    with suppress(RuntimeError):  # neither the package's folder nor the user's cache can be written
        dispatcher.enable_caching()
    return dispatcher


@_compiled
def _texel(
    texels: Any, entry: Any, y: float, x: float, wrap: bool, weight: float, colour: Any
) -> None:  # pragma: no cover
    """Add the colour at sample (y, x), between four texels, to `colour`."""
    start, first, rows, columns, stride, side = entry
    y = (y / stride - (side - 1) / 2) / side - first
    x = (x / stride - (side - 1) / 2) / side
    i, j = math.floor(y), math.floor(x)
    dy, dx = y - i, x - j
    for di in range(2):
        row = min(max(i + di, 0), rows - 1)
        for dj in range(2):
            column = (j + dj) % columns if wrap else min(max(j + dj, 0), columns - 1)
            share = weight * (dy if di else 1 - dy) * (dx if dj else 1 - dx)
            at = start + row * columns + column
            for k in range(3):
                colour[k] += share * texels[at, k]


@_compiled
def _paint(
    out: NDArray[np.uint8], row: Any, column: Any, mip: Any, shift: float, strip: Any, strip_table: Any,
    scale: float, core: Any, core_table: Any, curve: Any,
) -> None:  # pragma: no cover  # fmt: skip
    height, width = row.shape
    core_rows, core_columns = core_table[0, 2], core_table[0, 3]
    core_mip = max(0.0, math.log2(scale))
    colour = np.empty(3)
    for i in range(height):
        y = (i + 0.5 - height / 2) * scale + core_rows / 2 - 0.5
        for j in range(width):
            x = (j + 0.5 - width / 2) * scale + core_columns / 2 - 0.5
            inside = -0.5 <= y <= core_rows - 0.5 and -0.5 <= x <= core_columns - 0.5
            texels, table = (core, core_table) if inside else (strip, strip_table)
            m = min(core_mip if inside else mip[i, j], table.shape[0] - 1.0)
            at_y, at_x = (y, x) if inside else (row[i, j] + shift, column[i, j])
            lower = int(m)
            part = m - lower
            colour[:] = 0.5  # rounds
            _texel(texels, table[lower], at_y, at_x, not inside, 1 - part, colour)
            if part > 0:
                _texel(texels, table[lower + 1], at_y, at_x, not inside, part, colour)
            for k in range(3):
                out[i, j, k] = curve[int(colour[k])]
