"""Values -> colours in linear light, for pictures of more than 256 colours. Pure functions."""

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
    """Colours from 0 to 255 in sRGB as amounts of light from 0 to 1. Source: IEC 61966-2-1."""
    v = np.asarray(srgb, np.float64) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def srgb(light: Floats) -> NDArray[np.uint8]:
    """Amounts of light as sRGB; inverse of `linear`, by a table."""
    steps = np.multiply(light, 65535, dtype=np.float32)
    np.clip(steps, 0, 65535, out=steps)
    return _curve().take((steps + 0.5).astype(np.uint16))


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
    """The colours of a block in linear light, shape (rows, columns, 3).

    Of the escape times `counts`, 0 is drawn grey and `max_iter` in `interior`. `tones` lie from 0 to 1; NaN takes the
    first of the `colours`, shape (STEPS, 3).
    """
    steps = np.nan_to_num(tones * (STEPS - 1) + 0.5, nan=0.0)
    light = colours.take(steps.astype(np.intp), axis=0, mode="clip")
    light[counts >= max_iter] = linear(interior)
    light[counts <= 0] = linear(GREY)
    return light


def averaged(light: Floats, box: int) -> NDArray[np.uint8]:
    """The mean of `box` by `box` samples, less at the last row and column, in sRGB: uint8, the shape rounded up."""
    light = np.minimum(light, 1)
    if box > 1:
        rows, columns = (-(-n // box) for n in light.shape[:2])
        lacking = [(0, n * box - m) for n, m in zip((rows, columns), light.shape[:2], strict=True)]
        whole = not any(n for _, n in lacking)
        boxes = light if whole else np.pad(light, (*lacking, (0, 0)), constant_values=np.nan)
        boxes = boxes.reshape(rows, box, columns, box, 3)
        light = (np.mean if whole else np.nanmean)(boxes, axis=(1, 3), dtype=np.float32)
    return srgb(light)
