"""From the textures to a frame: each pixel is interpolated between four texels of each of two mip levels."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from mandeldask.store import Store
from mandeldask.view import LogPolar
from mandeldask.zoom.film import COLUMNS, CORE, Film
from mandeldask.zoom.texture import Pixels, Texture, ToColour, atlas_of, atlas_of_whole

MARGIN = 2  # rows of texels beside those that a frame looks at


class Painter:
    """Paints the frames of a film from its strip and its core."""

    def __init__(self, film: Film, strip: Store, core: Store, to_colour: ToColour) -> None:
        self.film = film
        self.core = atlas_of_whole(to_colour(core.window(slice(None), slice(None))))
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
        self.textures = [Texture(strip, to_colour, m) for m in range(most + 1)]
        self.rows = [self._rows(m) for m in range(most + 1)]
        self._held: Any = None

    def _rows(self, m: int) -> tuple[float, float]:
        """Between which rows of the strip the pixels of mip level m lie, but for what the span adds."""
        last = m == len(self.textures) - 1
        used = self.row[(self.mip > m - 1) & ((self.mip < m + 1) | last)]
        slack = MARGIN * 2**m
        return (used.min() - slack, used.max() + slack) if used.size else (0.0, 0.0)

    def paint(self, span: float) -> Pixels:
        """The frame of a span: RGB, shape (height, width, 3), the top row first."""
        shift = (math.log(span / self.film.size[0]) - self.log_inner) / self.step
        for texture, (low, high) in zip(self.textures, self.rows, strict=True):
            texture.move(low + shift, high + shift)
        held = [texture.texels for texture in self.textures]
        if self._held is None or any(a is not b for a, b in zip(held, self._held, strict=True)):
            self.atlas, self._held = atlas_of(self.textures), held
        out = np.empty((*self.row.shape, 3), np.uint8)
        scale = CORE * span / float(self.film.last)  # samples of the core a pixel
        _paint(
            out, self.row, self.column, self.mip, shift, self.atlas.texels, self.atlas.table, scale,
            self.core.texels, self.core.table,
        )  # fmt: skip
        return out[::-1]


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
    scale: float, core: Any, core_table: Any,
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
                out[i, j, k] = int(colour[k])
