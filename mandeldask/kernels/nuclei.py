"""Finding places: the nuclei in a view, whatever its depth.

A nucleus is a point whose orbit comes back to 0: the middle of a copy of the set, or of a disc at one. Orbits are taken
in fixed point, their derivatives as a double and an exponent. How: C. Heiland-Allen, "Deep zoom theory and practice",
https://mathr.co.uk/blog/2021-05-14_deep_zoom_theory_and_practice.html (ball period, Newton, size).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from itertools import islice, product
from typing import Literal

from mandeldask.errors import ConfigError, check_type
from mandeldask.view import Deep, View

MAX_PARTS = 100
SAME = Fraction(1, 1000)  # of the view's side: nuclei of a period that are nearer are one
HALFWAY = 0.5  # between a cardioid's shape and a disc's
SPARE = 64  # bits of an orbit beyond those of the disc that it is the middle of
DIGITS = 48  # bits of a nucleus beyond its size
MOST_STEPS = 1000  # of Newton's method, each of which gains some 50 bits
BEYOND = 3.0  # |z| from which an orbit is given up

Kind = Literal["copy", "disc"]
Point = tuple[Fraction, Fraction]
Scaled = tuple[complex, int]  # times two to this power
ONE: Scaled = (1 + 0j, 0)
TWO: Scaled = (1 + 0j, 1)


@dataclass(frozen=True)
class Nucleus:
    """A point whose orbit comes back to 0 after `period` steps, to as many digits as its size asks for."""

    period: int
    centre: tuple[str, str]
    size: Decimal
    """Of the copy of the set around it, over that of the whole; of a disc at a copy it is smaller than the disc."""
    kind: Kind
    """copy: in the cardioid of a copy of the set; disc: in a disc on the rim of a larger copy."""


def find(
    view: View, max_period: int, parts: int = 3, tell: Callable[[int, int], object] | None = None
) -> list[Nucleus]:
    """The nuclei in a view, those of copies first, of low periods first: of each part that of the lowest period in it.

    Parameters
    ----------
    view : View
        A rectangle, of any depth.
    max_period : int
        The highest period that is looked for.
    parts : int
        The view is looked at in parts x parts discs, 1 to 100.
    tell : callable, optional
        Is given how many of the discs are done, and how many there are.

    Raises
    ------
    ConfigError
        A log-polar strip; parts or max_period out of range.
    """
    check_type("view", view, View, "a mandeldask.View")
    for name, number in {"max_period": max_period, "parts": parts}.items():
        check_type(name, number, int, "a whole number")
    if not 1 <= parts <= MAX_PARTS or max_period < 1:
        raise ConfigError(f"parts must be from 1 to {MAX_PARTS}, max_period at least 1; got {parts} and {max_period}")
    if view.strip:
        raise ConfigError("nuclei are looked for in a rectangle, and this view is a log-polar strip: give another")
    discs = _Discs(view.in_exact_arithmetic(), parts)
    found: list[tuple[int, Point, float]] = []
    for done, c in enumerate(discs.middles()):
        if tell:
            tell(done, parts * parts)
        n = _period(c, discs.radius, max_period)
        settled = _nucleus(c, n, discs.radius + 2) if n else None
        if n and settled and discs.holds(settled[0]) and not any(discs.same((n, *settled), other) for other in found):
            found.append((n, *settled))
    made = (
        Nucleus(n, _digits(c, size), _power(size), "disc" if _is_disc(n, c, size) else "copy") for n, c, size in found
    )
    return sorted(made, key=lambda n: (n.kind, n.period, n.centre))


class _Discs:
    """The discs that cover a deep view."""

    def __init__(self, view: View, parts: int) -> None:
        assert isinstance(view.frame, Deep)
        self.frame, self.parts = view.frame, parts
        self.unit = Fraction(2) ** view.frame.unit
        self.low = Fraction(view.x[0]), Fraction(view.y[0])
        self.sides = Fraction(view.x[1]) - self.low[0], Fraction(view.y[1]) - self.low[1]
        diagonal = (self.sides[0] ** 2 + self.sides[1] ** 2) * (self.unit / parts) ** 2
        log2 = math.log2(diagonal.numerator) - math.log2(diagonal.denominator)  # which may be less than any double
        self.radius = math.ceil(log2 / 2) - 1
        """The log2 of it, at least half the diagonal of a part."""

    def middles(self) -> Iterator[Point]:
        for j, i in product(range(self.parts), repeat=2):
            u, v = (
                low + side * Fraction(2 * k + 1, 2 * self.parts)
                for low, side, k in zip(self.low, self.sides, (i, j), strict=True)
            )
            (cos, sin), (re, im) = map(Fraction, self.frame.cos_sin), self.frame.exact_origin
            yield re + (u * cos - v * sin) * self.unit, im + (u * sin + v * cos) * self.unit

    def holds(self, c: Point) -> bool:
        """Whether a point lies in the view."""
        cos, sin = map(Fraction, self.frame.cos_sin)
        x, y = ((a - b) / self.unit for a, b in zip(c, self.frame.exact_origin, strict=True))
        u, v = x * cos + y * sin, y * cos - x * sin
        return all(0 <= at - low <= side for at, low, side in zip((u, v), self.low, self.sides, strict=True))

    def same(self, a: tuple[int, Point, float], b: tuple[int, Point, float]) -> bool:
        near = SAME * self.unit * max(self.sides)
        return a[0] == b[0] and max(abs(p - q) for p, q in zip(a[1], b[1], strict=True)) < near


def _power(exponent: float) -> Decimal:
    """2^exponent, to six digits."""
    return Context(prec=6, Emin=-(10**6)).power(Decimal(2), Decimal(exponent))


def _digits(point: Point, size: float) -> tuple[str, str]:
    """Decimal digits, down to a millionth of the size."""
    places = max(0, math.ceil(-size * math.log10(2)) + 6)
    re, im = (f"{Decimal(round(part * 10**places)).scaleb(-places, Context(prec=10**6)):f}" for part in point)
    return re, im


def _period(c: Point, radius: int, most: int) -> int | None:
    """The least period, at most so large, of a nucleus within about 2^radius of c; None where the disc has none.

    The first n for which the image of the disc, as its derivative has it, holds 0.
    """
    d = ONE
    for n, z in enumerate(_orbit(c, SPARE - radius, most), 1):
        if _log2(z) < _log2(d) + radius:
            return n
        if z[1] > -64 and abs(z[0]) * 2.0 ** z[1] > BEYOND:
            return None
        d = _slope(z, d)
    return None


def _nucleus(c: Point, period: int, radius: int) -> tuple[Point, float] | None:
    """The nucleus of a period that Newton's method finds from c, and the log2 of the size of what is around it.

    It has as many digits as the size asks for. None where the method leaves the disc of radius 2^radius, or finds a
    nucleus of a lower period, whose size would have no bound.
    """
    start, bits, settled = c, SPARE - radius, False
    for _ in range(MOST_STEPS):
        z, d, size = _last(c, bits, period)
        wanted = math.ceil(DIGITS - min(size, radius))
        if settled and bits >= wanted:
            return (c, size) if size < 1 else None
        bits = max(bits, wanted)
        step, e = _normal(-z[0] / d[0], z[1] - d[1])
        x, y = (
            part + Fraction(moved) * Fraction(2) ** e for part, moved in zip(c, (step.real, step.imag), strict=True)
        )
        c = _kept(x, bits), _kept(y, bits)
        if max(abs(a - b) for a, b in zip(c, start, strict=True)) > Fraction(2) ** radius:
            return None
        settled = _log2((step, e)) < min(size, radius) - DIGITS
    return None


def _is_disc(period: int, c: Point, size: float) -> bool:
    """Whether a nucleus is in a disc, not in the cardioid of a copy of the set.

    By a number that is near 0 for a cardioid, near 1 for a disc: -(z_cc / 2 z_c + z_cz / z_z) / (z_c z_z), the
    derivatives of the orbit's end by c and by z_1. V. Dolotin and A. Morozov, "On the shapes of elementary domains",
    https://arxiv.org/abs/hep-th/0501235.
    """
    by_c, by_z, by_cc, by_cz = ONE, ONE, (0j, 0), (0j, 0)
    for z in islice(_orbit(c, math.ceil(DIGITS - size), period), period - 1):
        by_cc = _sum(_product(TWO, z, by_cc), _product(TWO, by_c, by_c))
        by_cz = _sum(_product(TWO, z, by_cz), _product(TWO, by_c, by_z))
        by_c, by_z = _slope(z, by_c), _product(TWO, z, by_z)
    bent = _sum(_product(by_cc, _inverse(_product(TWO, by_c))), _product(by_cz, _inverse(by_z)))
    shape, e = _product(bent, _inverse(_product(by_c, by_z)))
    return -shape.real * 2.0**e > HALFWAY


def _last(c: Point, bits: int, period: int) -> tuple[Scaled, Scaled, float]:
    """Z of that period, dz/dc there, and the log2 of the size.

    The size is 1 / |b l^2|, l = 2 z_1 ... 2 z_(p-1) and b = 1 + 1 / (2 z_1) + ... + 1 / l.
    """
    d = multiplier = b = ONE
    for n, z in enumerate(_orbit(c, bits, period), 1):
        if n == period:
            return z, d, -(_log2(b) + 2 * _log2(multiplier))
        d = _slope(z, d)
        multiplier = _normal(2 * multiplier[0] * z[0], multiplier[1] + z[1])
        b = _sum(b, (1 / multiplier[0], -multiplier[1])) if multiplier[0] else b
    raise AssertionError


def _orbit(c: Point, bits: int, steps: int) -> Iterator[Scaled]:
    """z_1, z_2, ... in fixed point of so many fractional bits."""
    from mandeldask.kernels.deep.reference import fixed_point  # takes Numba

    cx, cy = fixed_point(c, bits)
    x, y = 0 * cx, 0 * cy
    for _ in range(steps):
        x, y = (x * x - y * y >> bits) + cx, (x * y >> bits - 1) + cy
        down = max(x.bit_length(), y.bit_length()) - 60
        yield (complex(x >> down, y >> down), down - bits) if down > 0 else (complex(x, y), -bits)


def _slope(z: Scaled, d: Scaled) -> Scaled:
    """dz/dc of the next z."""
    return _sum((2 * z[0] * d[0], z[1] + d[1]), ONE)


def _product(*factors: Scaled) -> Scaled:
    value, e = ONE
    for factor, power in factors:
        value, e = value * factor, e + power
    return _normal(value, e)


def _inverse(a: Scaled) -> Scaled:
    return 1 / a[0], -a[1]


def _sum(a: Scaled, b: Scaled) -> Scaled:
    if b[1] > a[1]:
        a, b = b, a
    return _normal(a[0] + b[0] * 2.0 ** max(b[1] - a[1], -1000), a[1]) if a[0] else b


def _normal(value: complex, e: int) -> Scaled:
    k = math.frexp(max(abs(value.real), abs(value.imag)))[1]
    return complex(math.ldexp(value.real, -k), math.ldexp(value.imag, -k)), e + k


def _log2(value: Scaled) -> float:
    size = abs(value[0])
    return math.log2(size) + value[1] if size else -math.inf


def _kept(value: Fraction, bits: int) -> Fraction:
    return Fraction(math.floor(value * 2**bits), 2**bits)
