"""The third pass: a sample's own orbit in fixed point, with twice the bits until every comparison with 2 is decided."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from mandeldask.kernels.deep import compiled
from mandeldask.kernels.deep.reference import CHUNK, FixedOrbit

MOST_BITS = 1 << 17
ON_THE_SET = {(Fraction(x), Fraction(y)) for x, y in [(0, 0), (-1, 0), (-2, 0), (0, 1), (0, -1)]}
"""The Gaussian integers in the set: their orbits are exact, and two of them reach |z| = 2, which no bound decides."""


def count(c: tuple[Fraction, Fraction], max_iter: int, bits: int) -> tuple[int, bool]:
    """(n, proven) for the exact point c, beginning with so many fractional bits."""
    if c in ON_THE_SET:
        return max_iter, True
    while True:
        n, proven = _try(c, max_iter, bits)
        if proven or 2 * bits > MOST_BITS:
            return n, proven
        bits *= 2


def _try(c: tuple[Fraction, Fraction], max_iter: int, bits: int) -> tuple[int, bool]:
    orbit, bounds, proven = FixedOrbit(c, bits), compiled.bounds(bits), True
    while not orbit.ended and orbit.steps < max_iter:
        first = orbit.steps + 1
        orbit.near.clear()
        z, _, tiny = orbit.take(min(CHUNK, max_iter - orbit.steps), 2.0)
        done = 0
        for m, _, size in orbit.near:
            compiled.follow(z[done : m - first], tiny, first + done, math.inf, True, bounds)
            done = m - first
            proven = proven and bool(size - 1 > math.log2(bounds[compiled.E]) + bounds[compiled.EE] + 4)
        compiled.follow(z[done:], tiny, first + done, math.inf, True, bounds)
        # elsewhere | |Z|^2 - 4 | > 2^-20, and |Z| < 8
        proven = proven and bool(bounds[compiled.WORST] < -40)
    return orbit.steps, proven


def counts(
    c: list[tuple[Fraction, Fraction]], max_iter: int, bits: int
) -> tuple[np.ndarray, np.ndarray]:  # to be replaced
    pairs = [count(point, max_iter, bits) for point in c]
    return np.array([n for n, _ in pairs], np.int64), np.array([not proven for _, proven in pairs], bool)
