"""Places to look at: the periods of the nuclei in a disc, a nucleus to as many digits as it takes, its size.

A nucleus of period p is a c with Z_p(c) = 0, the centre of a disc or of a small copy of the set. Near c, Newton's step
-Z_p / (dZ_p/dc) points to it.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.deep.arithmetic import exponent, inlined, pow2
from mandeldask.kernels.deep.compiled import SOURCES
from mandeldask.kernels.deep.follow import DE, DX, DY, advance_slope
from mandeldask.kernels.deep.reference import CHUNK, FAR, FixedOrbit, Tell

Point = tuple[Fraction, Fraction]

# What is carried along, beside the slope: l = product of 2 Z_m = (LX + i LY) 2^LE; b = 1 + sum of 1 / l =
# (BX + i BY) 2^BE; log2 of the shortest of Newton's steps so far.
LX, LY, LE, BX, BY, BE, BEST = range(3, 10)
MOST = 64  # candidates that are listed
SPARE = 120  # bits beyond the size that a nucleus is calculated with
NEWTON_STEPS = 60


@dataclass(frozen=True)
class Nucleus:
    """The nucleus c of a period, exact to about 2^-60 of its size; `size` is log2 of that of its disc or copy."""

    c: Point
    period: int
    size: float


@inlined
def _product(ax, ay, ae, bx, by, be):
    """(x, y, exponent) of a product, the larger part in [1/2, 1)."""
    x, y = ax * bx - ay * by, ax * by + ay * bx
    k = exponent(max(abs(x), abs(y), 2.0**-1000))
    return x * pow2(-k), y * pow2(-k), ae + be + k


def make_survey(sources: str) -> Callable[..., int]:
    """The function to compile; `sources` as in the vector kernel."""

    def survey(z, tiny, first, b, found):
        """Carry b along from Z_first = z[0]; indices of ever shorter steps of Newton's, and their log2, into `found`.

        How many rows are filled.
        """
        _ = sources
        k = 0
        rows = 0
        for i in range(z.size):
            x, y, e = z[i].real, z[i].imag, 0
            while k < tiny.shape[0] and tiny[k, 0] < first + i:
                k += 1
            if k < tiny.shape[0] and tiny[k, 0] == first + i:
                x, y, e = tiny[k, 1], tiny[k, 2], int(tiny[k, 5])
            step = 0.5 * math.log2((x * x + y * y) / (b[DX] * b[DX] + b[DY] * b[DY])) + e - b[DE]
            if step < b[BEST]:
                b[BEST] = step
                if rows < found.shape[0]:
                    found[rows, 0], found[rows, 1] = first + i, step
                    rows += 1
            advance_slope(b, x, y, e)
            b[LX], b[LY], b[LE] = _product(b[LX], b[LY], int(b[LE]), 2.0 * x, 2.0 * y, e)
            n = b[LX] * b[LX] + b[LY] * b[LY]
            ie, be = -int(b[LE]), int(b[BE])
            top = max(ie, be)
            bx = b[BX] * pow2(be - top) + b[LX] / n * pow2(ie - top)
            by = b[BY] * pow2(be - top) - b[LY] / n * pow2(ie - top)
            b[BX], b[BY], b[BE] = _product(bx, by, top, 1.0, 0.0, 0)
        return rows

    return survey


_numbers, _matrix = types.float64[::1], types.float64[:, ::1]
_survey = compiled(
    make_survey, SOURCES, types.complex128[::1], _matrix, types.int64, _numbers, _matrix, gives=types.int64
)


def _look(c: Point, bits: int, steps: int, tell: Tell | None = None) -> tuple[FixedOrbit, NDArray[Any], list[Any]]:
    """The orbit of c up to Z_steps, or to where it is gone; what is carried to there; candidates."""
    orbit = FixedOrbit(c, bits)
    b = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, math.inf])
    found, room = [], np.empty((MOST, 2))
    while not orbit.ended and orbit.steps < steps - 1:
        first = orbit.steps + 1
        z, _, tiny = orbit.take(min(CHUNK, steps - 1 - orbit.steps), FAR)
        rows = _survey(z, tiny, first, b, room)
        found += [(int(m), float(step)) for m, step in room[:rows]]
        if tell is not None:
            tell(orbit.steps, steps)
    return orbit, b, found


def periods(centre: Point, radius: int, max_iter: int, tell: Tell | None = None) -> list[int]:
    """The periods of nuclei that may lie within 2^radius of `centre`, lowest first.

    They are those n at which Newton's step from the centre is shorter than the radius and than at any n before:
    the lowest is nearly always right, `nucleus` tells.
    """
    _, _, found = _look(centre, max(0, -radius) + 64, max_iter + 1, tell)
    return [m for m, step in found if step < radius]


def nucleus(centre: Point, period: int, radius: int, tell: Tell | None = None) -> Nucleus:
    """The nucleus of `period`, or of a divisor of it, near `centre`, by Newton's method.

    Raises
    ------
    ConfigError
        There is none within about 2^radius of the centre.
    """
    bits, c = max(0, -radius) + SPARE, centre
    for _ in range(NEWTON_STEPS):
        orbit, b, _ = _look(c, bits, period, tell)
        if orbit.ended:
            break
        size = min(0.0, _size(b))  # a divisor's nucleus gives too much
        step, length = _newton_step(orbit, b)
        c = c[0] + step[0], c[1] + step[1]
        bits = max(bits, int(-size) + SPARE)
        c = tuple(Fraction(int(part * 2**bits), 2**bits) for part in c)  # type: ignore[assignment]
        if max(abs(part - start) for part, start in zip(c, centre, strict=True)) > Fraction(2) ** (radius + 2):
            break
        if length < size - 60:
            _, _, found = _look(c, bits, period)
            lowest = next((m for m, at in found if at < size - 60 and period % m == 0), period)
            return Nucleus(c, lowest, _size(_look(c, bits, lowest)[1]))
    raise ConfigError(f"no nucleus of period {period} was found within 2^{radius} of the centre; try another period")


def _size(b: NDArray[np.float64]) -> float:
    """Log2 of 1 / |b l^2|, the size of the disc or copy in c. R. Munafo's and C. Heiland-Allen's estimate."""
    beta, product = math.hypot(b[BX], b[BY]), math.hypot(b[LX], b[LY])
    return float(-(math.log2(beta) + b[BE] + 2 * (math.log2(product) + b[LE])))


def _newton_step(orbit: FixedOrbit, b: NDArray[np.float64]) -> tuple[Point, float]:
    """-Z / (dZ/dc) at the next Z of the orbit, and log2 of its length."""
    orbit.take(1, math.inf)
    x, y = (int(part) for part in orbit.z)
    down = max(0, max(abs(x), abs(y)).bit_length() - 60)
    z = complex(x >> down, y >> down)
    if z == 0:
        return (Fraction(0), Fraction(0)), -math.inf
    step = -z / complex(b[DX], b[DY])
    power = down - orbit.bits - int(b[DE])
    scale = Fraction(2) ** power
    return (Fraction(step.real) * scale, Fraction(step.imag) * scale), math.log2(abs(step)) + power
