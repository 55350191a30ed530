"""A picture at half, a quarter, ... of its size, in strips of so many rows: what tiled formats are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mandeldask.image.drawing import Picture


def pyramid(picture: Picture, side: int) -> list[Picture]:
    """The picture and its halves, each half of the last, rounded up, until no side is more than `side`."""
    levels = [picture]
    while max(levels[-1].shape) > side:
        levels.append(levels[-1].half())
    return levels


def strips(picture: Picture, rows: int) -> Iterator[NDArray[np.uint8]]:
    """The picture's bands cut anew: so many rows each, from the top down, the last with what is left."""
    kept: list[NDArray[np.uint8]] = []
    height = 0
    for band in picture.bands():
        start = 0
        while start < len(band):
            part = band[start : start + rows - height]
            kept.append(part)
            height += len(part)
            start += len(part)
            if height == rows:
                yield np.concatenate(kept)
                kept, height = [], 0
    if kept:
        yield np.concatenate(kept)
