"""From counts of samples to an area with its errors; pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OCTAVES = 6  # max_iter / 64, ..., max_iter / 2, max_iter
LEAST_MAX_ITER = 2**OCTAVES * 4
LEMNISCATE = 4  # |z_4| <= 2
LEMNISCATE_AREA = 3.279185833386682
FOERSTEMANN = 1.5065918849, 2.8e-9  # T. Foerstemann, Numerical estimation of the area of the Mandelbrot set (2012)


@dataclass(frozen=True)
class Area:
    """The area of the set within a window, and what is known of its error.

    Areas are in units of c. `errors` are standard errors of `areas`, over the grids.
    """

    area: float  # extrapolated to infinite max_iter
    error: float  # of both kinds together
    standard_error: float  # over the grids, of `area`
    extrapolation: float  # what was added to the last of `areas`
    extrapolation_error: float  # by how much it changes where the largest max_iter is left out
    max_iter: tuple[int, ...]
    areas: tuple[float, ...]  # not escaped within each max_iter
    errors: tuple[float, ...]
    not_proved: float  # of `areas[-1]`: bounds what a larger max_iter could take away
    lemniscate: tuple[float, float] | None  # of |z_4| <= 2, with its standard error; None in a window of the set
    x: tuple[float, float]
    y: tuple[float, float]
    n: int  # samples a side of a grid
    grids: int
    seed: int
    kernel: str
    samples: int
    seconds: float  # in which this call counted
    samples_per_second: float

    @property
    def interval(self) -> tuple[float, float]:
        """Two errors to either side."""
        return self.area - 2 * self.error, self.area + 2 * self.error


@dataclass(frozen=True)
class Estimate:
    """What counts of several grids say."""

    area: float
    standard_error: float
    extrapolation: float
    extrapolation_error: float
    areas: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        return math.hypot(self.standard_error, self.extrapolation_error)

    @classmethod
    def of(cls, areas: NDArray[np.float64], not_proved: float = 0.0) -> Estimate:
        """From areas of shape (grids, values of max_iter), each max_iter twice the one before.

        Where they follow no law, the extrapolation may err by the area that is not proved to be of the set.
        """
        area = _extrapolated(areas)
        left_out = [_extrapolated(np.delete(areas, k, 0)) for k in range(len(areas))]
        spread = float(np.std(left_out)) * math.sqrt(len(areas) - 1)  # the jackknife: it needs no formula
        mean = areas.mean(0)
        errors = areas.std(0, ddof=1) / math.sqrt(len(areas))
        shorter = abs(area - _extrapolated(areas[:, :-1]))
        if (np.diff(mean) >= 0).any():
            shorter = max(shorter, not_proved)
        return cls(area, spread, area - float(mean[-1]), shorter, tuple(mean.tolist()), tuple(errors.tolist()))


def max_iters(last: int) -> tuple[int, ...]:
    return tuple(last >> k for k in range(OCTAVES, -1, -1))


def _extrapolated(areas: NDArray[np.float64]) -> float:
    """The area at infinite max_iter, if what a doubling takes away falls by a power law.

    The power is fitted to all doublings, each weighted by its count; it is 1 within some percent.
    """
    mean = areas.mean(0)
    drops = mean[:-1] - mean[1:]
    if (drops <= 0).any():  # too few samples for a law, or none of them escapes late
        return float(mean[-1] - max(0.0, drops[-1]))
    doublings = np.arange(len(drops)) - (len(drops) - 1)
    slope, last = np.polyfit(doublings, np.log2(drops), 1, w=np.sqrt(drops))
    return float(mean[-1] - 2.0**last / (2.0**-slope - 1)) if slope < 0 else float(mean[-1] - drops[-1])


def grids_needed(estimate: Estimate, grids: int, until: float) -> int:
    """How many grids bring the error below `until`, at most twice those there are; 0 where none would."""
    rest = until**2 - estimate.extrapolation_error**2
    if rest <= 0:
        return 0
    return min(2 * grids, max(grids + 1, math.ceil(grids * estimate.standard_error**2 / rest)))


def compared(area: Area) -> Sequence[tuple[str, str]]:
    """Lines that compare the area of the whole set with what is known."""
    known, error = FOERSTEMANN
    off = (area.area - known) / math.hypot(area.error, error)
    cardioid, disc, side = 3 * math.pi / 8, math.pi / 16, "below" if off > 0 else "above"
    lines = [
        ("known", f"{known} +- {error:.2g} (Foerstemann), {abs(off):.1f} errors {side} this"),
        ("exact", f"cardioid 3 pi/8 = {cardioid:.6f}, disc pi/16 = {disc:.6f}: {(cardioid + disc) / known:.1%}"),
    ]
    if area.lemniscate:
        value, spread = area.lemniscate
        lines.append(("check", f"|z_4| <= 2: {value:.9f} +- {spread:.1g}; exact {LEMNISCATE_AREA:.9f}"))
    return lines
