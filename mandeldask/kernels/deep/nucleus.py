"""Nuclei: the points whose orbits come back to 0, each in the middle of a copy of the set or of a disc at one.

Orbits are taken in fixed point, their derivatives as a double and an exponent. How: C. Heiland-Allen, "Deep zoom theory
and practice", https://mathr.co.uk/blog/2021-05-14_deep_zoom_theory_and_practice.html (ball period, Newton, size).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

from mandeldask.kernels.deep.reference import fixed_point

Point = tuple[Fraction, Fraction]
Scaled = tuple[complex, int]  # times two to this power
ONE: Scaled = (1 + 0j, 0)
TWO: Scaled = (1 + 0j, 1)
HALFWAY = 0.5  # between a cardioid's shape and a disc's
SPARE = 64  # bits of an orbit beyond those of the disc that it is the middle of
DIGITS = 48  # bits of a nucleus beyond its size
MOST_STEPS = 1000  # of Newton's method, each of which gains some 50 bits
BEYOND = 3.0  # |z| from which an orbit is given up


def period(c: Point, radius: int, most: int) -> int | None:
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


def nucleus(c: Point, period: int, radius: int) -> tuple[Point, float] | None:
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


def is_disc(period: int, c: Point, size: float) -> bool:
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
