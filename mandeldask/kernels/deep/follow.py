"""Along an orbit: how large its error can be, how fast its neighbours part from it, and when to stop."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels.deep.arithmetic import exponent, inlined, pow2

# What is carried along: dZ/dc = (DX + i DY) 2^DE; the error is at most E 2^EE; its log2 relative to |Z|, the greatest
# so far; the number of bits p.
DX, DY, DE, E, EE, WORST, BITS = range(7)


def bounds(bits: int) -> NDArray[np.float64]:
    """At Z_1: dZ/dc = 1, and an error of 4 units."""
    return np.array([1.0, 0.0, 0.0, 4.0, -bits, -np.inf, bits])


@inlined
def advance_slope(b, x, y, e):
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


def make_follow(sources: str) -> Callable[..., int]:
    """The function to compile; `sources` as in the vector kernel."""

    def follow(z, tiny, first, room, exact, b):
        """Carry the bounds b from Z_first = z[0] past the end of z; how many of z are worth keeping.

        The rest lies past log2 |dZ/dc| = room.
        """
        _ = sources
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
            advance_slope(b, x, y, e)
            _advance_error(b, r, e)
        return z.size

    return follow
