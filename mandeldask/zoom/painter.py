"""From the samples to a frame: each pixel is interpolated between four texels of each of two mip levels.

The textures are the mip-maps of L. Williams (1983). Mip level m has a texel for 2^m x 2^m samples. Colours are
averaged in linear light, never counts. Mip levels 0 to 2 average all samples, each further one the sixteen that the
level m - 2 of the store holds of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from mandeldask.image import THREADS, Picture, PictureOptions, averaged, srgb_curve
from mandeldask.image.files import Pixels
from mandeldask.image.samples import Samples, samples_of
from mandeldask.store import Store
from mandeldask.view import Deep
from mandeldask.view.exact import DECIMALS, decimal, logarithm
from mandeldask.zoom.film import COLUMNS, CORE, Film

Light = NDArray[np.uint16]  # red, green and blue, linear, up to 65535
Block = Callable[[int], Light]

# Iterations, about a minute of one core: up to here a film is smooth. Its samples are worked out once, like a picture's
AFFORDABLE = 2**35
KEPT_BYTES = 2**29  # of blocks in colour, that the first three mip levels look at one after the other
BLOCK = 512  # rows of a level read at a time: the most that a chunk has
CORE_OCTAVES = 5  # of the strip, that the core counts for where colours are laid out
MARGIN = 2  # rows of texels beside those that a frame looks at


class Painter:
    """Paints the frames of a film from its strip and its core."""

    def __init__(self, film: Film, strip: Store, core: Store, options: PictureOptions) -> None:
        self.film, picture = film, _coloured(strip, film.colours(options), core)
        self.core = _atlas(picture.like(samples_of(core, None)))
        width, height = film.size
        u = np.arange(width) + 0.5 - width / 2
        v = np.arange(height) + 0.5 - height / 2
        radius = np.hypot(u, v[:, np.newaxis])
        turn = np.arctan2(v[:, np.newaxis], u) / (2 * math.pi) % 1.0
        inner, outer = film.strip.y  # logarithms
        unit = film.strip.frame.unit * math.log(2) if isinstance(film.strip.frame, Deep) else 0.0
        self.log_inner = inner + unit
        self.step = (outer - inner) / (film.strip.shape[0] - 1)
        self.row = np.log(radius) / self.step  # of the strip, but for what the span adds
        self.column = turn * film.columns
        # How many samples of the strip a pixel covers each way, as a power of 2; the same in every frame.
        self.mip = np.maximum(0.0, np.log2(film.columns / (2 * math.pi) / radius)).astype(np.float32)
        most = min(math.ceil(self.mip.max()), COLUMNS.bit_length() - 1)
        self.textures = _textures(picture, most + 1)
        self.rows = [self._rows(m) for m in range(most + 1)]

    def _rows(self, m: int) -> tuple[float, float]:
        """Between which rows of the strip the pixels of mip level m lie, but for what the span adds."""
        last = m == len(self.textures) - 1
        used = self.row[(self.mip > m - 1) & ((self.mip < m + 1) | last)]
        slack = MARGIN * 2**m
        return (used.min() - slack, used.max() + slack) if used.size else (0.0, 0.0)

    def paint(self, span: Decimal) -> Pixels:
        """The frame of a span: RGB, shape (height, width, 3), the top row first."""
        shift = (logarithm(span) - math.log(self.film.size[0]) - self.log_inner) / self.step
        moved = [t.move(low + shift, high + shift) for t, (low, high) in zip(self.textures, self.rows, strict=True)]
        if any(moved):  # at the first frame all
            self.strip = _joined(self.textures)
        out = np.empty((*self.row.shape, 3), np.uint8)
        wider = DECIMALS.divide(span, decimal("to", self.film.last))
        scale = CORE * min(1e9, float(wider))  # samples of the core a pixel
        _paint(out, self.row, self.column, self.mip, shift, *self.strip, scale, *self.core, srgb_curve())
        return out[::-1]


def _coloured(strip: Store, options: PictureOptions, core: Store | None = None) -> Picture:
    """The strip in the colours of the film, the same for all frames: laid out for the whole strip.

    Of a deep film they are laid out for the core too, whose counts are nearly all beyond the strip's.
    """
    samples = samples_of(strip, None)
    if "smooth" not in samples.levels[0] or core is None:
        shade = options.shade or ("smooth" if samples.cost < AFFORDABLE else "counts")
        return Picture(samples, replace(options, shade=shade), in_plane=True)
    options = replace(options, shade=options.shade or "smooth")
    scale = Picture(_joint(samples.overview, samples_of(core, None).overview), options)
    return Picture(samples, options, scale, in_plane=True)


def _joint(strip: Samples, core: Samples) -> Samples:
    """Samples of both, those of the core as many as are in a few octaves of the strip."""
    columns = strip.shape[1]
    more = max(1, round(CORE_OCTAVES * math.log(2) * columns / 2 / math.pi))
    chosen = np.linspace(0, math.prod(core.shape) - 1, more * columns).astype(int).reshape(more, columns)

    def all_of(samples: Samples, name: str) -> NDArray[Any]:
        return samples.read(name, slice(0, samples.shape[0]), slice(0, samples.shape[1]))

    parts = {n: np.concatenate([all_of(core, n).ravel()[chosen], all_of(strip, n)]) for n in strip.levels[0]}
    return Samples({0: parts}, strip.max_iter)


def _textures(picture: Picture, n: int) -> list[_Texture]:
    """The first mip levels of a picture; those of one level of its store share what they read."""
    samples = picture.samples
    numbers = [min(max(0, mip - 2), max(samples.levels)) for mip in range(n)]
    levels = {k: picture.like(replace(samples, stride=1 << k)) for k in numbers}
    blocks = {k: _blocks(level) for k, level in levels.items()}
    return [_Texture(blocks[k], levels[k].samples.shape, mip, k) for mip, k in enumerate(numbers)]


def _blocks(picture: Picture) -> Block:
    """Blocks of `BLOCK` rows of a picture by their number, shape (rows, columns, 3); the last ones are kept."""
    rows, columns = picture.samples.shape

    @lru_cache(max(1, KEPT_BYTES // (BLOCK * columns * 6)))
    def block(number: int) -> Light:
        first, last = number * BLOCK, min((number + 1) * BLOCK, rows)
        out = np.empty((last - first, columns, 3), np.uint16)

        def fill(start: int) -> None:
            part = slice(start, min(start + BLOCK // THREADS, last))
            light = picture.light(part, slice(0, columns))
            out[part.start - first : part.stop - first] = np.moveaxis(
                light * np.float32(65535) + np.float32(0.5), 0, -1
            )

        with ThreadPoolExecutor(THREADS, "mandeldask-film") as threads:
            list(threads.map(fill, range(first, last, BLOCK // THREADS)))
        return out

    return block


@dataclass
class _Texture:
    """The rows of one mip level that a frame needs; as the film goes on, they move.

    `texels` begins with the row `first`; the centre of texel t lies at the sample stride * (t * side + (side - 1) / 2).
    """

    read: Block  # of the level of the store
    shape: tuple[int, int]  # of the level
    mip: int
    level: int
    blocks: dict[int, Light] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stride, self.side = 1 << self.level, 1 << (self.mip - self.level)
        rows, columns = self.shape
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
        height = self.block * self.side  # BLOCK, or several of them
        rows = min(height, self.rows * self.side - block * height)
        read = [self.read(k) for k in range(block * height // BLOCK, -(-(block * height + rows) // BLOCK))]
        pixels = np.concatenate(read)[:rows, : self.columns * self.side]
        if self.side == 1:
            return pixels
        means = averaged(np.moveaxis(pixels, -1, 0), self.side)
        return np.moveaxis((means + 0.5).astype(np.uint16), 0, -1)


def _atlas(picture: Picture) -> tuple[Light, NDArray[np.int64]]:
    """All of a picture in textures, halved until one side is down to a texel: as `_paint` takes them."""
    rows, columns = picture.samples.shape
    textures = _textures(picture, min(rows, columns).bit_length())
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
