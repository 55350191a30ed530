"""Values -> colours in linear light, for pictures of more than 256 colours: three planes, red, green and blue."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.image.colour import GREY, Colour

STEPS = 4096  # of a colour map
SLOPE = math.radians(50)  # of the hill, wherever one sample differs little from the next
AMBIENT = 0.12  # share of the light that comes from everywhere
BRIGHTEST = 1.8  # at most, of a slope that faces the light; level ground is 1

Floats = NDArray[np.float32]


def linear(srgb: Any) -> Floats:
    """Colours, shape (n, 3), from 0 to 255 in sRGB, as planes of light from 0 to 1. Source: IEC 61966-2-1."""
    v = np.asarray(srgb, np.float64).T / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(light: Floats) -> NDArray[np.uint8]:
    """Planes of light from 0 to 1 as pixels of sRGB, shape (rows, columns, 3)."""
    return np.moveaxis(_curve().take((light * np.float32(65535) + np.float32(0.5)).astype(np.uint16)), 0, -1)


@cache
def _curve() -> NDArray[np.uint8]:
    v = np.linspace(0, 1, 65536)
    return np.round(255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)).astype(np.uint8)


def lit(field: NDArray[Any], light: tuple[float, float]) -> Floats:
    """How much light falls on each sample but those at the border, 1 on level ground: shape (rows - 2, columns - 2).

    `field` rises towards the set; NaN where there is none. Lambert's law on slopes of one steepness that follow the
    gradient; level where neighbours differ by far more than a step, for that is noise.
    """
    up, right = _differences(field[:, 1:-1]), _differences(field[1:-1].T).T
    size = np.hypot(up, right)
    azimuth, height = (math.radians(v) for v in light)
    steep = np.where(size > 0, 1 / (np.maximum(size, 1e-30) * np.sqrt(1 + size * size)), 0)
    facing = -steep * (up * math.cos(azimuth) + right * math.sin(azimuth)) * math.sin(SLOPE) * math.cos(height)
    level = math.sin(height)
    upright = np.sqrt(1 - (steep * size * math.sin(SLOPE)) ** 2)
    lambert = np.maximum(facing + upright * level, 0) / level
    return np.minimum(AMBIENT + (1 - AMBIENT) * lambert, BRIGHTEST).astype(np.float32)


def _differences(field: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of the steps to both neighbouring rows, of all but the first and last; of one where the other is NaN."""
    steps = np.diff(field.astype(np.float64), axis=0)
    below, above = steps[:-1], steps[1:]
    mean = (np.where(np.isnan(below), above, below) + np.where(np.isnan(above), below, above)) / 2
    return np.nan_to_num(mean, nan=0.0, posinf=0.0, neginf=0.0)


def toned(
    counts: NDArray[np.integer], max_iter: int, tones: NDArray[np.float64], colours: Floats, interior: Colour
) -> Floats:
    """The light of a block, shape (3, rows, columns); `tones` from 0 to 1 choose among `STEPS` colours, NaN the first.

    Where the escape time is 0 it is grey, where it is `max_iter` the `interior`.
    """
    steps = np.nan_to_num(tones * (STEPS - 1) + 0.5, nan=0.0)
    light = colours.take(steps.astype(np.intp), axis=1, mode="clip")
    light[:, counts >= max_iter] = linear([interior])
    light[:, counts <= 0] = linear([GREY])
    return light


def averaged(planes: NDArray[Any], box: int) -> Floats:
    """The mean of `box` by `box` samples of each plane, of fewer at the last row and column: the shape rounded up.

    A mean over axes of so few takes twenty times as long as this sum of planes.
    """
    rows, columns = (-(-n // box) for n in planes.shape[1:])
    total = np.zeros((len(planes), rows, columns), np.float32)
    for i in range(box):
        for j in range(box):
            part = planes[:, i::box, j::box]
            total[:, : part.shape[1], : part.shape[2]] += part
    high, wide = (np.minimum(box, n - np.arange(0, n, box)) for n in planes.shape[1:])
    total /= np.outer(high, wide).astype(np.float32)
    return total
