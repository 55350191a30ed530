"""One colour for each escape time, the same in every frame of a film."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mandeldask.image import Scale, palette, palette_index
from mandeldask.store import Store

Counts = NDArray[np.integer]
Pixels = NDArray[np.uint8]  # (..., 3)
MOST = 2**20  # samples that the scale is laid out for

ToColour = Callable[[Counts], Pixels]


def check(colormap: str, scale: str, interior: str) -> None:
    """ConfigError for a colour map, a scale or a colour that there is not."""
    palette(colormap, interior)
    Scale(scale)


def to_colour(strip: Store, colormap: str, scale: str, interior: str) -> ToColour:
    """The function from escape times to colours, laid out for the whole strip, each octave alike."""
    d = strip.description
    level = next((level for level in d.levels if level.shape[0] * level.shape[1] <= MOST), d.levels[-1])
    sample = strip.window(slice(None), slice(None), level.number)
    index = palette_index(sample, d.max_iter, Scale(scale))
    colours = np.array(palette(colormap, interior), np.uint8)
    return lambda counts: colours[index(counts)]
