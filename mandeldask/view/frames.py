"""Frames: how the two axes of a view that is not a plain upright rectangle make samples of the complex plane.

The values of one axis are correctly rounded (`mandeldask.view.exact`). Samples are plain products and sums of them in
binary64, each rounded: no fused operation, and no function whose bits depend on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.view.exact import (
    DECIMALS,
    Number,
    Reals,
    cos_sin,
    decimal,
    exact,
    finite_pair,
    logarithm,
    pair,
    rounded,
    spelled,
)
from mandeldask.view.rules import TooDeepError, check_apart, check_digits, check_resolved, short

LOG_POLAR = "log-polar"
FULL_TURN = 2 * math.pi
MAX_UNIT = 40_000  # of a deep view: beyond 10^10000 either way
REACH = 900  # exponents of a deep strip's radius: its products with cosines, 2^-33 or more, are normal numbers
ORDERS = int((2 * REACH - 2) * math.log10(2))  # of magnitude, that any deep strip may go over
MAX_DECIMALS = 20  # of an angle in degrees: the sine of the smallest is 2e-22
Samples = NDArray[np.complex128]
Bounds = tuple[float, float]
Exact = tuple[Fraction, Fraction]


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
    strip = None

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

    def __str__(self) -> str:
        return f"around {list(self.centre)}, turned by {self.rotation} degrees"

    @property
    def described(self) -> dict[str, Any]:
        """As in a run description's `view`."""
        return vars(self)

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
        _check_radius(self.radius)
        inner, outer = finite_pair("radius", self.radius, "[inner, outer]")
        check_apart([(0.0, inner), (inner, outer)], [Fraction(1)] * 2, "the radius")
        if not math.isfinite(max(map(abs, self.centre)) + outer):
            raise ConfigError(f"a strip of radius {outer} around {list(self.centre)} reaches beyond binary64")
        object.__setattr__(self, "radius", (inner, outer))

    @property
    def strip(self) -> LogPolar:
        return self

    @property
    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Of the coordinates: the angle in radians, and the natural logarithm of the distance from the centre."""
        return (0.0, FULL_TURN), (logarithm(self.radius[0]), logarithm(self.radius[1]))

    def rows(self, columns: int) -> int:
        """The rows whose steps outwards are as long as those around, to the nearest."""
        inner, outer = self.bounds[1]
        return 1 + round((outer - inner) * columns / FULL_TURN)

    def check(self, shape: tuple[int, int], registration: str, bounds: object) -> None:
        """Refuse what a view of this strip cannot have."""
        rows, columns = shape
        if registration != "gridline":
            raise ConfigError("a log-polar view has registration gridline: its rows lie on the radii, its columns turn")
        wanted = self.rows(columns)
        if wanted < 2:
            inner, outer = self.bounds[1]
            least = math.ceil(FULL_TURN / 2 / (outer - inner)) + 1
            raise ConfigError(f"shape of a log-polar view of this radius must have at least {least} columns for 2 rows")
        if rows != wanted:
            raise ConfigError(
                f"shape of a log-polar view of this radius must have {wanted} rows, for steps as long outwards as "
                f"around; got [{rows}, {columns}]"
            )
        if bounds != self.bounds:
            raise ConfigError("x and y of a log-polar view follow from its radius: make it with View.log_polar")

    def spacings(self, columns: int) -> Iterator[tuple[str, float, float]]:
        """As `View.check_resolved` takes them, where binary64 resolves samples worst."""
        inner, outer = self.radius
        far = max(map(abs, self.centre))
        # Outwards samples part as fast as coordinates grow, or faster; but where they pass a power of two, the unit in
        # the last place doubles at once. It suffices to look at the first of these.
        doubled = 2.0 ** min(1023, math.ceil(math.log2(far + inner)))
        for r in (inner, min(outer, max(inner, doubled - far))):
            yield "the strip", r * FULL_TURN / columns, far + r

    def place(self, c: Samples, cos_phi: Reals, sin_phi: Reals, r: Reals) -> None:
        """Samples at the angles (columns) and the radii (rows), into c."""
        np.multiply(cos_phi, r[:, np.newaxis], out=c.real)
        np.add(c.real, self.centre[0], out=c.real)
        np.multiply(sin_phi, r[:, np.newaxis], out=c.imag)
        np.add(c.imag, self.centre[1], out=c.imag)

    def __str__(self) -> str:
        return f"around {list(self.centre)}, radius {self.radius[0]!r} to {self.radius[1]!r}"

    @property
    def described(self) -> dict[str, Any]:
        return vars(self)

    def to_json(self) -> dict[str, Any]:
        return {"projection": LOG_POLAR, "centre": list(self.centre), "radius": list(self.radius)}


@dataclass(frozen=True)
class Deep:
    """A rectangle or a strip of any depth: c = origin + (x + iy) 2^unit, with the stored x and y taken exactly.

    Parameters
    ----------
    origin : (re, im)
        Decimal digits, all of which count: kept in their shortest spelling, never rounded.
    unit : int
        The offsets x and y are in units of 2^unit.
    rotation : decimal string
        As for `Turned`: x + iy = (u + iv) e^(i rotation), rounded to binary64 part by part.
    radius : (inner, outer), optional
        Of a log-polar strip, in units of 2^unit and from 2^-900 to 2^900: x + iy = r e^(i phi), rounded likewise.
    """

    origin: tuple[str, str]
    unit: int
    rotation: str = "0"
    radius: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if type(self.unit) is not int or not abs(self.unit) <= MAX_UNIT:
            raise ConfigError(f"unit must be an integer from {-MAX_UNIT} to {MAX_UNIT}; got {self.unit!r}")
        re, im = map(spelled, pair("origin", self.origin, "[re, im]"))
        object.__setattr__(self, "origin", (re, im))
        object.__setattr__(self, "rotation", degrees(self.rotation))
        if self.strip:
            inner, outer = self.strip.radius
            if self.rotation != "0" or not 2.0**-REACH <= inner < outer <= 2.0**REACH:
                raise ConfigError(
                    f"a deep strip has no rotation, and a radius from 2^-{REACH} to 2^{REACH} units; got a rotation of "
                    f"{self.rotation} degrees, radius {[inner, outer]}"
                )
            object.__setattr__(self, "radius", (inner, outer))

    @property
    def cos_sin(self) -> tuple[float, float]:
        """Of the rotation, correctly rounded."""
        return cos_sin(Fraction(self.rotation) / 360)

    @property
    def strip(self) -> LogPolar | None:
        """That of the offsets; None for a rectangle."""
        return LogPolar((0.0, 0.0), self.radius) if self.radius else None

    @property
    def finest(self) -> int:
        """2^finest is about the width of a rectangle, or the inner radius of a strip."""
        return self.unit + math.frexp(self.radius[0])[1] if self.radius else self.unit

    @property
    def exact_origin(self) -> tuple[Fraction, Fraction]:
        return pair("origin", self.origin, "[re, im]")

    def place(self, offsets: Samples, u: Reals, v: Reals) -> None:
        """Offsets of the samples from the origin, in units of 2^unit, into `offsets`."""
        if self.rotation != "0":
            Turned((0.0, 0.0), self.rotation).place(offsets, u, v)
            return
        offsets.real = u
        offsets.imag = v[:, np.newaxis]

    @property
    def described(self) -> dict[str, Any]:
        if self.radius:
            unit = Fraction(2) ** self.unit
            return {"centre": self.origin, "radius": [spelled(Fraction(r) * unit) for r in self.radius]}
        return {"centre": self.origin, "unit": self.unit, "rotation": self.rotation}

    def __str__(self) -> str:
        turned = f", turned by {self.rotation} degrees" if self.rotation != "0" else ""
        around = f"around [{', '.join(map(short, self.origin))}]"
        if self.radius:
            inner, outer = (DECIMALS.multiply(Decimal(r), DECIMALS.power(Decimal(2), self.unit)) for r in self.radius)
            return f"{around}, radius {inner:.6g} to {outer:.6g}"
        return f"in units of 2^{self.unit} {around}{turned}"

    def to_json(self) -> dict[str, Any]:
        strip = {"projection": LOG_POLAR, "radius": list(self.radius)} if self.radius else {}
        return {"origin": list(self.origin), "unit": self.unit, "rotation": self.rotation} | strip


def strip_around(
    centre: Sequence[Number], radius: Sequence[Number], columns: int, arithmetic: str | None
) -> LogPolar | Deep:
    """The frame of a log-polar strip: as `arithmetic` says, or deep where binary64 cannot resolve it."""
    if arithmetic != "exact":
        try:
            frame = LogPolar(centre, radius)  # type: ignore[arg-type]
            if not arithmetic:
                check_resolved(frame.spacings(columns))
        except TooDeepError:
            if arithmetic:
                raise
            check_digits(centre, "a radius", radius[0])
        else:
            return frame
    return _deep_strip(centre, radius)


def _deep_strip(centre: Sequence[Number], radius: Sequence[Number]) -> Deep:
    """Around exact digits; its radius, rounded once, in units of a power of two in the middle of its range."""
    inner, outer = _check_radius(radius)
    low, high = exponent(inner), exponent(outer)
    if high - low > 2 * REACH - 2:
        raise ConfigError(
            f"a strip goes over at most {ORDERS} orders of magnitude, for its offsets are binary64 numbers of one "
            f"unit; this one goes over {math.log10(outer // inner):.1f}: make two that meet"
        )
    unit = (low + high) // 2
    scale = Fraction(2) ** -unit
    re, im = map(spelled, pair("centre", centre, "[re, im]"))
    return Deep((re, im), unit, radius=(rounded(inner * scale), rounded(outer * scale)))


def _check_radius(radius: Sequence[Number]) -> Exact:
    inner, outer = pair("radius", radius, "[inner, outer]")
    if not 0 < inner < outer:
        raise ConfigError(f"radius must ascend from above 0, [inner, outer]; got {list(radius)}")
    return inner, outer


def exponent(value: Fraction) -> int:
    """Of the greatest power of two that is not above a positive value."""
    found = value.numerator.bit_length() - value.denominator.bit_length()
    return found - (Fraction(2) ** found > value)


def offsets(x: Exact, y: Exact, origin: Exact, rotation: str) -> tuple[Bounds, Bounds, Deep]:
    """The bounds x and y of exact offsets from an origin, in units of the power of two below the width; and the frame.

    The bounds are rounded once; of a view without a width the height serves.
    """
    width = (x[1] - x[0]) or (y[1] - y[0]) or Fraction(1)
    unit = exponent(width)
    scale = Fraction(2) ** -unit
    frame = Deep((spelled(origin[0]), spelled(origin[1])), unit, rotation)
    return (rounded(x[0] * scale), rounded(x[1] * scale)), (rounded(y[0] * scale), rounded(y[1] * scale)), frame


Frame = Turned | LogPolar | Deep


def frame_from_json(value: Mapping[str, Any]) -> Frame:
    """The frame that `to_json` gave; KeyError or ConfigError for anything else."""
    if "origin" in value:
        return Deep(value["origin"], value["unit"], value["rotation"], value.get("radius"))
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
