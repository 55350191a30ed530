"""Frames: how the two axes of a view that is not an upright rectangle make samples of the complex plane.

The values of one axis are correctly rounded (`mandeldask.view.exact`). Samples are plain products and sums of them in
binary64, each rounded: no fused operation, and no function whose bits depend on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.view.exact import Number, Reals, cos_sin, decimal, exact, finite_pair, logarithm

LOG_POLAR = "log-polar"
FULL_TURN = 2 * math.pi
MAX_DECIMALS = 20  # of an angle in degrees: the sine of the smallest is 2e-22
Samples = NDArray[np.complex128]


@dataclass(frozen=True)
class Turned:
    """A rectangle turned anticlockwise about its centre: c = centre + (u + iv) e^(i rotation).

    Parameters
    ----------
    centre : (re, im)
        Rounded once to binary64.
    rotation : decimal string
        Degrees from -360 to 360, with at most 20 decimals; kept exactly, from 0 up to but not including 360.
    """

    centre: tuple[float, float]
    rotation: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "centre", finite_pair("centre", self.centre, "[re, im]"))
        object.__setattr__(self, "rotation", degrees(self.rotation))

    @property
    def cos_sin(self) -> tuple[float, float]:
        """Of the rotation, correctly rounded."""
        return cos_sin(Fraction(self.rotation) / 360)

    def place(self, c: Samples, u: Reals, v: Reals) -> None:
        """Samples at the offsets u (columns) and v (rows), into c."""
        (cos, sin), (re, im) = self.cos_sin, self.centre
        np.subtract(u * cos, (v * sin)[:, np.newaxis], out=c.real)
        np.add(c.real, re, out=c.real)
        np.add(u * sin, (v * cos)[:, np.newaxis], out=c.imag)
        np.add(c.imag, im, out=c.imag)

    def to_json(self) -> dict[str, Any]:
        return {"centre": list(self.centre), "rotation": self.rotation}


@dataclass(frozen=True)
class LogPolar:
    """A strip about a centre: c = centre + r e^(i phi), columns a full turn of phi, rows from the inner radius out.

    Parameters
    ----------
    centre : (re, im)
    radius : (inner, outer)
        0 < inner < outer, of the first and the last row. All are rounded once to binary64.
    """

    centre: tuple[float, float]
    radius: tuple[float, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "centre", finite_pair("centre", self.centre, "[re, im]"))
        inner, outer = finite_pair("radius", self.radius, "[inner, outer]")
        if not 0 < inner < outer:
            raise ConfigError(f"radius must ascend from above 0, [inner, outer]; got {list(self.radius)}")
        if not math.isfinite(max(map(abs, self.centre)) + outer):
            raise ConfigError(f"a strip of radius {outer} around {list(self.centre)} reaches beyond binary64")
        object.__setattr__(self, "radius", (inner, outer))

    @property
    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Of the coordinates: the angle in radians, and the natural logarithm of the distance from the centre."""
        return (0.0, FULL_TURN), (logarithm(self.radius[0]), logarithm(self.radius[1]))

    def rows(self, columns: int) -> int:
        """The rows whose steps outwards are as long as those around, to the nearest."""
        inner, outer = self.bounds[1]
        return 1 + round((outer - inner) * columns / FULL_TURN)

    def place(self, c: Samples, cos_phi: Reals, sin_phi: Reals, r: Reals) -> None:
        """Samples at the angles (columns) and the radii (rows), into c."""
        np.multiply(cos_phi, r[:, np.newaxis], out=c.real)
        np.add(c.real, self.centre[0], out=c.real)
        np.multiply(sin_phi, r[:, np.newaxis], out=c.imag)
        np.add(c.imag, self.centre[1], out=c.imag)

    def to_json(self) -> dict[str, Any]:
        return {"projection": LOG_POLAR, "centre": list(self.centre), "radius": list(self.radius)}


Frame = Turned | LogPolar


def frame_from_json(value: Mapping[str, Any]) -> Frame:
    """The frame that `to_json` gave; KeyError or ConfigError for anything else."""
    if "projection" in value:
        return LogPolar(value["centre"], value["radius"])
    return Turned(value["centre"], value["rotation"])


def degrees(rotation: Number) -> str:
    """An angle in degrees in its canonical spelling, from 0 up to but not including 360."""
    value = decimal("rotation", rotation)
    if abs(value) > 360:
        raise ConfigError(f"rotation must be from -360 to 360 degrees; got {rotation}")
    if exact("rotation", value) * 10**MAX_DECIMALS % 1:
        raise ConfigError(f"rotation must have at most {MAX_DECIMALS} decimals; got {str(rotation)[:60]}")
    context = Context(prec=MAX_DECIMALS + 5)
    turned = context.remainder(context.add(value, Decimal(360)), Decimal(360))
    return f"{context.normalize(turned):f}"
