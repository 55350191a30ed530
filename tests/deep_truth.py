"""Deep places at random, and the escape times there by MPFR: an arithmetic and a bound of its own."""

from __future__ import annotations

from fractions import Fraction

import gmpy2
import numpy as np

from mandeldask.kernels.deep import DeepFunction, Held, last_counts, reference_orbit


def truth(c, max_iter, bits):
    """(n, proven) for c = (x, y): z by z^2 + c with `bits` bits, its error by e' <= (2 |z| + e) e + 16 units.

    A rounding errs by half a unit of 2^(4 - bits) at most, as long as |z| is below 8.
    """
    with gmpy2.context(precision=bits):
        c = gmpy2.mpc(gmpy2.mpfr(gmpy2.mpq(c[0])), gmpy2.mpfr(gmpy2.mpq(c[1])))
        z, n, unit, e, proven = c, 1, gmpy2.mpfr(2) ** (4 - bits), gmpy2.mpfr(2) ** (5 - bits), True
        while True:
            excess = gmpy2.norm(z) - 4
            proven = proven and abs(excess) > 6 * e + 16 * unit
            if excess > 0 or n >= max_iter:
                return n, bool(proven)
            e = (2 * abs(complex(z)) * (1 + 1e-9) + e) * e + 16 * unit
            z = z * z + c
            n += 1


class Place:
    """A view of the boundary, found by a random walk inwards: each step towards where samples take longest."""

    def __init__(self, seed, depth, max_iter):
        self.rng, self.max_iter = np.random.default_rng(seed), max_iter
        self.unit, self.origin = 0, (Fraction(-1, 2), Fraction(0))
        while self.unit > -depth:
            self._refer()
            offsets, counts = self.samples(64)
            order = np.argsort(np.where(counts < max_iter, counts, 0))
            best = offsets[order[-1 - int(self.rng.integers(4))]]
            one = Fraction(2) ** self.unit
            self.origin = self.origin[0] + Fraction(best.real) * one, self.origin[1] + Fraction(best.imag) * one
            self.unit -= int(self.rng.integers(4, 13))
        self._refer()

    def _refer(self):
        self.reference = Held(reference_orbit(self.origin, self.unit, self.max_iter))

    def samples(self, size, proof="full"):
        """Offsets at random, and their counts by the kernel."""
        offsets = self.rng.uniform(-1, 1, size) + 1j * self.rng.uniform(-1, 1, size)
        return offsets, DeepFunction(self.max_iter, ("escape_time",), self.reference, proof)(offsets)

    def check(self, size):
        """Samples, how many the second and third pass took, unproven, wrong though proven, and left open by truth.

        They are the hardest of many: those that take longest, yet escape.
        """
        offsets, counts = self.samples(50 * size)
        hardest = np.argsort(np.where(counts < self.max_iter, counts, 0))[-size:]
        offsets = offsets[hardest]
        counts = DeepFunction(self.max_iter, ("escape_time",), self.reference)(offsets)
        passes, failures, wrong = last_counts(), 0, 0
        for offset, n in zip(offsets.tolist(), counts.tolist(), strict=True):
            one = Fraction(2) ** self.unit
            c = self.origin[0] + Fraction(offset.real) * one, self.origin[1] + Fraction(offset.imag) * one
            bits = 150 - 2 * self.unit
            while not (found := truth(c, self.max_iter, bits))[1] and bits < 20_000:
                bits *= 2
            failures += not found[1]
            wrong += found[1] and found[0] != n
        return np.array([size, passes.second, passes.third, passes.unproven, wrong, failures])
