"""Colours of a store's samples at falling resolution, for a frame to look up: the mip-maps of L. Williams (1983).

Mip level m has a texel for 2^m x 2^m samples. Colours are averaged, never counts. Mip levels 0 to 2 average all
samples, each further one the sixteen that the store's level m - 2 holds of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mandeldask.image import PictureOptions, palette, palette_index
from mandeldask.store import Store

Pixels = NDArray[np.uint8]  # (..., 3)
ToColour = Callable[[NDArray[np.integer]], Pixels]

SCALE_SAMPLES = 2**20  # at most, that the scale is laid out for
BLOCK = 512  # rows of a level read at a time: the most that a chunk has


def to_colour(strip: Store, options: PictureOptions) -> ToColour:
    """The function from escape times to colours, the same for all frames: laid out for the whole strip."""
    d = strip.description
    level = next((level for level in d.levels if level.shape[0] * level.shape[1] <= SCALE_SAMPLES), d.levels[-1])
    sample = strip.window(slice(None), slice(None), level.number)
    index = palette_index(sample, d.max_iter, options.value_scale)
    colours = np.array(palette(options.colormap, options.interior), np.uint8)
    return lambda counts: colours[index(counts)]


@dataclass
class Texture:
    """The rows of one mip level that a frame needs; as the film goes on, they move.

    `texels` begins with the row `first`; the centre of texel t lies at the sample stride * (t * side + (side - 1) / 2).
    """

    store: Store
    to_colour: ToColour
    mip: int
    blocks: dict[int, Pixels] = field(default_factory=dict)
    texels: Pixels = field(default_factory=lambda: np.zeros((1, 1, 3), np.uint8))
    first: int = 0

    def __post_init__(self) -> None:
        self.level = min(max(0, self.mip - 2), len(self.store.description.levels) - 1)
        self.stride, self.side = 1 << self.level, 1 << (self.mip - self.level)
        rows, columns = self.store.description.levels[self.level].shape
        self.rows, self.columns = max(1, rows // self.side), max(1, columns // self.side)
        self.block = max(1, BLOCK // self.side)  # rows of texels

    def move(self, low: float, high: float) -> None:
        """Hold the texels for the samples' rows from `low` to `high`, as far as there are any."""
        low, high = ((row / self.stride - (self.side - 1) / 2) / self.side for row in (low, high))
        rows = np.clip([np.floor(low), np.ceil(high)], 0, self.rows - 1).astype(int)
        first, last = (rows // self.block).tolist()
        wanted = range(first, last + 1)
        if list(self.blocks) == list(wanted):
            return
        self.blocks = {k: self.blocks[k] if k in self.blocks else self._read(k) for k in wanted}
        self.first = first * self.block
        self.texels = np.concatenate(list(self.blocks.values()))

    def _read(self, block: int) -> Pixels:
        first, last = block * self.block, min((block + 1) * self.block, self.rows)
        window = slice(first * self.side, last * self.side), slice(0, self.columns * self.side)
        return averaged(self.to_colour(self.store.window(*window, level=self.level)), self.side)


def averaged(pixels: Pixels, side: int) -> Pixels:
    """The mean colour of each square of side x side pixels."""
    if side == 1:
        return pixels
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    total = np.zeros((rows, columns, 3), np.uint32)
    for i in range(side):
        for j in range(side):
            total += pixels[i : rows * side : side, j : columns * side : side]
    return ((total + side * side // 2) // (side * side)).astype(np.uint8)


@dataclass(frozen=True)
class Atlas:
    """Textures side by side in one array, as compiled code reads them; `table` has a row for each.

    Its columns: where it begins, its first row, rows, columns, all in texels; stride and side.
    """

    texels: NDArray[np.uint8]
    table: NDArray[np.int64]


def atlas_of(textures: list[Texture]) -> Atlas:
    """An atlas of what the textures hold."""
    starts = np.cumsum([0, *(t.texels.shape[0] * t.texels.shape[1] for t in textures)])
    table = [
        (start, t.first, t.texels.shape[0], t.texels.shape[1], t.stride, t.side)
        for start, t in zip(starts.tolist(), textures, strict=False)
    ]
    return Atlas(np.concatenate([t.texels.reshape(-1, 3) for t in textures]), np.array(table, np.int64))


def atlas_of_whole(pixels: Pixels) -> Atlas:
    """An atlas of a picture held whole, halved until one side is down to a texel."""
    parts, table, start, side = [], [], 0, 1
    while True:
        rows, columns = pixels.shape[:2]
        parts.append(pixels.reshape(-1, 3))
        table.append((start, 0, rows, columns, 1, side))
        start, side = start + rows * columns, 2 * side
        if min(rows, columns) < 2:
            return Atlas(np.concatenate(parts), np.array(table, np.int64))
        pixels = averaged(pixels, 2)
