"""The third pass: a sample's own orbit in fixed point, with twice the bits until every comparison with 2 is decided."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

from mandeldask.kernels.deep.reference import CHUNK, DE, EE, WORST, E, FixedOrbit, follow, start
from mandeldask.kernels.fields import BAILOUT

MOST_BITS = 1 << 17
Point = tuple[Fraction, Fraction]
ON_THE_SET = {(Fraction(x), Fraction(y)) for x, y in [(0, 0), (-1, 0), (-2, 0), (0, 1), (0, -1)]}
"""The Gaussian integers in the set: their orbits are exact, and that of -2 reaches |z| = 2, which no bound decides."""


class Count(NamedTuple):
    """The escape time n; and z with its slope dz/dc = (dx + i dy) 2^exponent where |z| first passed the bailout."""

    n: int
    proven: bool
    x: float = math.nan
    y: float = math.nan
    dx: float = math.nan
    dy: float = math.nan
    exponent: int = 0
    end: int = 0


def count_at(origin: Point, unit: int, offset: complex, max_iter: int, to_bailout: bool = False) -> Count:
    """The escape time of the sample `offset` 2^unit from the origin."""
    (x, y), one = origin, Fraction(2) ** unit
    c = x + Fraction(offset.real) * one, y + Fraction(offset.imag) * one
    return count(c, max_iter, max(0, -unit - math.frexp(abs(offset))[1]) + 200, to_bailout)


def count(c: Point, max_iter: int, bits: int, to_bailout: bool = False) -> Count:
    """The escape time of the exact point c, beginning with so many fractional bits."""
    if c in ON_THE_SET:
        return Count(max_iter, True)
    beyond = first_two(c)
    if any(beyond) and not to_bailout:
        return Count(min(max_iter, 1 + beyond.index(True)), True)
    while True:
        found = counted(c, max_iter, bits, to_bailout, beyond)
        if found.proven or 2 * bits > MOST_BITS:
            return found
        bits *= 2


def first_two(c: Point) -> list[bool]:
    """Whether |z_1| > 2, and |z_2|, in exact arithmetic: no bound decides where one is 2, as for c = 1 and c = 2i."""
    x, y = c
    return [u * u + v * v > 4 for u, v in (c, (x * x - y * y + x, 2 * x * y + y))]


def counted(c: Point, max_iter: int, bits: int, to_bailout: bool, beyond: list[bool]) -> Count:
    """As `count`, with so many bits; `beyond` as `first_two` has it."""
    orbit, bounds, proven, n = FixedOrbit(c, bits), start(bits), True, 0
    while not orbit.ended if n else orbit.steps < max_iter:
        first = orbit.steps + 1
        orbit.near.clear()
        steps = CHUNK if n else min(CHUNK, max_iter - orbit.steps)
        z, _, tiny = orbit.take(steps, BAILOUT if to_bailout else 2.0)
        done = 0
        for m, sign, size in orbit.near:
            if n:
                break
            # | |Z|^2 - 4 | >= 2^(size - 1) must be more than (2 |Z| + E) E
            follow(z[done : m - first], tiny, first + done, math.inf, True, bounds)
            done = m - first
            escaped, decided = sign > 0, size - 1 > math.log2(bounds[E]) + bounds[EE] + 4
            if m <= len(beyond):
                escaped, decided = escaped and beyond[m - 1], escaped or not beyond[m - 1]
            proven = proven and bool(decided and bounds[WORST] < -40)  # those before as below
            n = m if escaped else 0
        follow(z[done:-1], tiny, first + done, math.inf, True, bounds)
        # elsewhere | |Z|^2 - 4 | > 2^-20, and |Z| < 8
        proven = proven and bool(n or bounds[WORST] < -40)
        last = complex(z[-1])
        end = last.real, last.imag, float(bounds[0]), float(bounds[1]), int(bounds[DE]), orbit.steps
        follow(z[-1:], tiny, orbit.steps, math.inf, True, bounds)
    if not (n and to_bailout):
        return Count(n or max_iter, proven)
    return Count(n, proven, *end)
