"""The field as it forms, in block characters: two samples a character, one above the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from rich.text import Text

from mandeldask.image import palette, palette_index
from mandeldask.telemetry import Preview
from mandeldask.tile import Record

WAITING, FAILED = "·", "×"
SHADES = "░▒▓█"  # from the first escape times to what does not escape, where there are no colours
UPPER = "▀"


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

    def lines(self, colours: bool) -> list[Text]:
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
        return [_coloured(*pair) if colours else _shaded(*pair) for pair in pairs]


def _fit(shape: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
    """The largest (rows, columns) of the shape's proportions within bounds; rows are even, for two share a line."""
    scale = min(rows / shape[0], columns / shape[1], 1.0)
    return 2 * max(1, round(shape[0] * scale / 2)), max(1, round(shape[1] * scale))


def _coloured(upper: NDArray[np.uint8], lower: NDArray[np.uint8], failed: NDArray[np.bool_]) -> Text:
    line = Text()
    for a, b, wrong in zip(upper.tolist(), lower.tolist(), failed.tolist(), strict=True):
        if wrong:
            line.append(FAILED, "bold red")
        elif a and b:
            line.append(UPPER, _style(a, b))
        elif a or b:
            line.append(UPPER if a else "▄", _style(a or b))
        else:
            line.append(WAITING, "dim")
    return line


def _shaded(upper: NDArray[np.uint8], lower: NDArray[np.uint8], failed: NDArray[np.bool_]) -> Text:
    dark = np.maximum(upper, lower).astype(int) * (len(SHADES) - 1) // 255
    signs = np.where(upper | lower, np.array(list(SHADES))[dark], WAITING)
    return Text("".join(np.where(failed, FAILED, signs).tolist()))


def _style(*index: int) -> Style:
    shown: list[Any] = ["#{:02x}{:02x}{:02x}".format(*_PALETTE[i]) for i in index]
    return Style(color=shown[0], bgcolor=shown[1] if len(shown) > 1 else None)


_PALETTE = palette()
