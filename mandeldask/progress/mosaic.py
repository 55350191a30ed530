"""The field as it forms, in block characters: two samples a character, one above the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from mandeldask.image import palette, palette_index
from mandeldask.telemetry import Preview
from mandeldask.tile import Record

WAITING, FAILED = "·", "×"
UPPER, LOWER = "▀", "▄"
COLOURS = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in palette()]


class Mosaic:
    """A small picture of a field of `shape`, at most `width` characters wide and `height` high."""

    def __init__(self, grid: Preview, width: int, height: int) -> None:
        self.grid = grid
        self.samples = np.zeros(grid.size, np.int32)
        self.failed = np.zeros(grid.tiles, np.bool_)
        self.rows, self.columns = (np.arange(n) for n in _fit(grid.shape, 2 * height, width))

    def done(self, tile: tuple[int, int], mean: float) -> None:
        """A tile that an earlier run has done: in its mean colour."""
        self.samples[self.grid.cells(tile)] = np.clip(round(mean), 1, self.grid.max_iter)

    def add(self, record: Record) -> None:
        """A tile that was computed."""
        self.failed[record.tile] = False
        cells = self.grid.cells(record.tile)
        self.samples[cells] = self.grid.decode(record.preview, cells)

    def fail(self, tile: tuple[int, int]) -> None:
        self.failed[tile] = True

    def lines(self) -> list[Text]:
        """The picture, y upwards, a text for each line."""
        rows, columns = (
            (2 * index + 1) * n // (2 * len(index))
            for index, n in zip((self.rows, self.columns), self.samples.shape, strict=True)
        )
        samples = self.samples[np.ix_(rows, columns)][::-1]
        tiles = [c * self.grid.stride // side for c, side in zip((rows, columns), self.grid.tile, strict=True)]
        failed = self.failed[np.ix_(*tiles)][::-1]
        index = palette_index(samples[samples > 0], self.grid.max_iter)(samples)
        pairs = zip(index[::2], index[1::2], failed[::2] | failed[1::2], strict=True)
        return [_line(*pair) for pair in pairs]


def _fit(shape: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
    """The largest (rows, columns) of the shape's proportions within bounds; rows are even, for two share a line."""
    scale = min(rows / shape[0], columns / shape[1], 1.0)
    return 2 * max(1, round(shape[0] * scale / 2)), max(1, round(shape[1] * scale))


def _line(upper: NDArray[np.uint8], lower: NDArray[np.uint8], failed: NDArray[np.bool_]) -> Text:
    line = Text()
    for a, b, wrong in zip(upper.tolist(), lower.tolist(), failed.tolist(), strict=True):
        if wrong:
            line.append(FAILED, "bold red")
        elif not (a or b):
            line.append(WAITING, "dim")
        else:
            line.append(UPPER if a else LOWER, f"{COLOURS[a or b]} on {COLOURS[b]}" if a and b else COLOURS[a or b])
    return line
