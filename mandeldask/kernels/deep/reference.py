"""The reference orbit: fixed point with Python's integers, kept as double-double, with a bound on its error.

Z_m = (X_m + i Y_m) 2^-p. The floors and the rounding of C move a part by less than 2 units a step, so the error E_m of
Z_m obeys E_1 <= 4 2^-p and E_(m+1) <= (2 |Z_m| + E_m) E_m + 6 2^-p. The orbit is taken with so many bits p that
E_m <= 2^-118 |Z_m| for every m. So a stored high part is within U (1 + 2^-20) |Z_m| of Z_m, high and low within
2^-105 |Z_m|.

Z_m = 0 with a bound that is not 0 says nothing, so more bits are taken, unless C is 0 or -1: there every Z is exact.
(If Z_m(C) = 0, then C is an algebraic integer, as Z_m is a monic polynomial of C with integer coefficients. A rational
one is a Gaussian integer, and of those only the orbits of 0 and -1 come back to 0.)
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.deep.arithmetic import exponent, inlined, pow2
from mandeldask.kernels.deep.table import TINY

try:
    from gmpy2 import mpz
except ImportError:  # the extra `deep`; the same bits without
    mpz = int

MPZ_FROM = 800  # bits: below, Python's own integers are as fast
KEEP = 160  # fractional bits of a part that are looked at: |Z| >= SMALL has its 106 and more
SMALL = 2.0**-50  # below, all that a double reaches to is looked at
REACH = 950
MANTISSA = 200  # bits of a part on the side list
FAR = 16.0  # the orbit ends once |Z| is about that, some steps after its escape: samples that escape later can follow
CHUNK = 4096  # steps between two looks at the bounds, and at whether to go on
SPARE = 60  # log2 of |dZ/dc| 2^unit where the orbit may end: whoever is a unit away has left it long before
WANTED = -118.0  # log2 of the relative error

Tell = Callable[[int, int], object]


@dataclass(frozen=True, eq=False)
class Reference:
    """The orbit Z_0 = 0, Z_1 = C, ... of `origin`, for samples at C + (x + iy) 2^unit.

    `z` and `low` are complex128 arrays of length + 1: high and low parts. `tiny` holds, for every |Z| < TINY, a row
    of index, x, y, low x, low y and exponent: Z = (x + iy) 2^exponent. `error` bounds the log2 of the greatest relative
    error before rounding, `bits` are the fractional bits that were calculated with.
    """

    origin: tuple[Fraction, Fraction] = field(repr=False)
    unit: int
    bits: int
    z: NDArray[np.complex128] = field(repr=False)
    low: NDArray[np.complex128] = field(repr=False)
    tiny: NDArray[np.float64] = field(repr=False)
    error: float = WANTED

    @property
    def length(self) -> int:
        return self.z.size - 1


def reference_orbit(origin: tuple[Fraction, Fraction], unit: int, max_iter: int, tell: Tell | None = None) -> Reference:
    """The reference for samples about 2^unit from `origin` (others are served too), of at most max_iter steps.

    `tell(done, of)` is called every few thousand steps; what it raises ends the work.

    Raises
    ------
    ConfigError
        The origin lies further than 2^60 from 0.
    """
    if max(map(abs, origin)) > 2**60:
        raise ConfigError(f"the centre must lie within 2^60 of 0; got {float(origin[0]):g}, {float(origin[1]):g}")
    bits = max(0, -unit) + 200
    while True:
        orbit = FixedOrbit(origin, bits)
        bounds = start(bits)
        z, low, tiny = _take(orbit, unit, max_iter, bounds, tell)
        missing = bounds[WORST] - WANTED
        if missing <= 0:
            return Reference(origin, unit, bits, z, low, tiny, float(bounds[WORST]))
        # At a nucleus Z all but vanishes: only more bits than the nucleus is given with tell it from its error.
        given = max(part.denominator.bit_length() for part in origin)
        bits = max(bits + int(min(missing, bits)) + 20, min(2 * bits, given + 200))


def _take(orbit: FixedOrbit, unit: int, max_iter: int, bounds: NDArray[np.float64], tell: Tell | None) -> Any:
    """z, low and tiny up to where the reference ends, or the bound is too great."""
    chunks: list[Any] = [(np.zeros(1, complex), np.zeros(1, complex), np.empty((0, 6)))]
    while not orbit.ended and orbit.steps < max_iter:
        first = orbit.steps + 1
        z, low, tiny = orbit.take(min(CHUNK, max_iter - orbit.steps), FAR)
        exact = orbit.exact_zeros
        kept = int(follow(z, tiny, first, SPARE - unit, exact, bounds))
        chunks.append((z[:kept], low[:kept], tiny[tiny[:, 0] < first + kept]))
        if tell is not None:
            tell(orbit.steps, max_iter)
        if kept < len(z) or bounds[WORST] > WANTED:
            break
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def fixed_point(c: tuple[Fraction, Fraction], bits: int) -> tuple[Any, Any]:
    """The parts of c in units of 2^-bits, floored: gmpy2's integers where these are faster."""
    integer: Any = mpz if bits > MPZ_FROM else int
    x, y = (integer((part.numerator << bits) // part.denominator) for part in c)
    return x, y


class FixedOrbit:
    """The orbit of a point in fixed point, from Z_1 on. `near` lists the steps at which |Z|^2 is about 4 or more."""

    def __init__(self, c: tuple[Fraction, Fraction], bits: int) -> None:
        self.bits = bits
        self.c = fixed_point(c, bits)
        self.exact_zeros = c in ((Fraction(0), Fraction(0)), (Fraction(-1), Fraction(0)))
        self.z = 0 * self.c[0], 0 * self.c[1]
        self.steps = 0
        self.ended = False
        self.near: list[tuple[int, int, int]] = []
        """(m, sign of |Z|^2 - 4, its exponent: |Z|^2 - 4 is at least 2^(exponent - 1) in size)"""

    def take(self, count: int, far: float) -> tuple[NDArray[np.complex128], ...]:
        """High and low parts of the next `count` Z, and the side list of the tiny ones.

        Ends with the first |Z| > 2 for far = 2, and with one about that size for a greater one.
        """
        p, (cx, cy), (x, y) = self.bits, self.c, self.z
        shift = max(0, p - KEEP)
        scale = 2.0 ** (shift - p)
        high: list[float] = []
        low: list[float] = []
        tiny = []
        for m in range(self.steps + 1, self.steps + count + 1):
            x, y = (x * x - y * y >> p) + cx, (x * y >> p - 1) + cy
            a, b = int(x >> shift), int(y >> shift)
            f, g = float(a), float(b)
            zx, zy = f * scale, g * scale
            if -SMALL < zx < SMALL and -SMALL < zy < SMALL:
                zx, zy, *lows = _closely(x, y, p)
                if -TINY < zx < TINY and -TINY < zy < TINY:
                    tiny.append((m, *_mantissa(int(x), int(y), p)))
            else:
                lows = [float(a - int(f)) * scale, float(b - int(g)) * scale]
            high += zx, zy
            low += lows
            square = zx * zx + zy * zy
            if square > 3.999999:
                excess = int(x * x + y * y) - (4 << 2 * p)
                self.near.append((m, (excess > 0) - (excess < 0), abs(excess).bit_length() - 2 * p))
                if excess > 0 and square > 0.999 * far * far:
                    self.ended = True
                    break
        self.z, self.steps = (x, y), self.steps + len(high) // 2
        return np.array(high).view(complex), np.array(low).view(complex), np.array(tiny, float).reshape(-1, 6)


def _closely(x: Any, y: Any, bits: int) -> tuple[float, float, float, float]:
    """(x, y, low x, low y) of a small (x + iy) 2^-bits; 0 for what no double holds."""
    shift = max(0, bits - REACH)
    a, b, scale = int(x >> shift), int(y >> shift), 2.0 ** (shift - bits)
    f, g = float(a), float(b)
    return f * scale, g * scale, float(a - int(f)) * scale, float(b - int(g)) * scale


def _mantissa(x: int, y: int, bits: int) -> tuple[float, ...]:
    """(x, y, low x, low y, exponent) of (x + iy) 2^-bits, parts below 1, to MANTISSA bits."""
    down = max(0, max(abs(x), abs(y)).bit_length() - MANTISSA)
    x, y = x >> down, y >> down
    size = max(abs(x), abs(y)).bit_length()
    parts = [float(x), float(y), float(x - int(float(x))), float(y - int(float(y)))]
    return *(math.ldexp(part, -size) for part in parts), down + size - bits


# What is carried along an orbit: dZ/dc = (DX + i DY) 2^DE; the error is at most E 2^EE; its log2 relative to |Z|, the
# greatest so far; the number of bits p.
DX, DY, DE, E, EE, WORST, BITS = range(7)


def start(bits: int) -> NDArray[np.float64]:
    """At Z_1: dZ/dc = 1, and an error of 4 units."""
    return np.array([1.0, 0.0, 0.0, 4.0, -bits, -np.inf, bits])


@inlined
def _advance_slope(b, x, y, e):
    """dZ/dc by 2 Z dZ/dc + 1, Z = (x + iy) 2^e."""
    f = pow2(-int(b[DE]) - e)
    dx, dy = 2.0 * (b[DX] * x - b[DY] * y), 2.0 * (b[DX] * y + b[DY] * x)
    if f == np.inf:
        dx, dy, f, b[DE] = 0.0, 0.0, 1.0, -e
    dx += f
    k = exponent(max(abs(dx), abs(dy), 2.0**-1000))
    b[DX], b[DY], b[DE] = dx * pow2(-k), dy * pow2(-k), b[DE] + e + k


@inlined
def _advance_error(b, r, e):
    """E by (2 |Z| + E) E + 6 units, |Z| = r 2^e, rounded up."""
    grown = b[E] * (2.0 * r + b[E] * pow2(int(b[EE]) - e))
    at = int(b[EE]) + e
    top = max(at, -int(b[BITS]))
    grown = (grown * pow2(at - top) + 6.0 * pow2(-int(b[BITS]) - top)) * (1.0 + 2.0**-40)
    k = exponent(grown)
    b[E], b[EE] = grown * pow2(-k), top + k


@compiled(
    types.complex128[::1],
    types.float64[:, ::1],
    types.int64,
    types.float64,
    types.boolean,
    types.float64[::1],
    gives=types.int64,
)
def follow(z, tiny, first, room, exact, b):
    """Carry the bounds b from Z_first = z[0] past the end of z; how many of z are worth keeping.

    The rest lies past log2 |dZ/dc| = room.
    """
    k = 0
    for i in range(z.size):
        x, y, e = z[i].real, z[i].imag, 0
        while k < tiny.shape[0] and tiny[k, 0] < first + i:
            k += 1
        if k < tiny.shape[0] and tiny[k, 0] == first + i:
            x, y, e = tiny[k, 1], tiny[k, 2], int(tiny[k, 5])
        r = math.sqrt(x * x + y * y)
        if r > 0.0:
            b[WORST] = max(b[WORST], math.log2(b[E] / r) + b[EE] - e)
        elif not exact:
            b[WORST] = np.inf
        if math.log2(max(abs(b[DX]), abs(b[DY]))) + b[DE] > room:
            return i + 1
        _advance_slope(b, x, y, e)
        _advance_error(b, r, e)
    return z.size
