"""The table of jumps: many steps of the offset z from the reference as one polynomial of second order in z and c.

From m on, over l steps, with A, B, Q, R, S of the entry (m, l):

    z' = A z (1 + Q z + R c) + (B + S c) c + v

With a >= |A|, b >= |B| and the sums h = sum a_k / |2 Z_k|, g = sum b_k / |2 Z_k| over the steps of the jump,
|v| <= 1.02 eta^2 (a |z| + b |c|) for eta = h |z| + g |c| <= 2^-6: README, *Jumps*. An entry knows nothing of a view.

A binary tree: level k has an entry for every 2^k steps from m = 1 + i 2^k on, k = LOWEST, LOWEST + 1, ...
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import from_dtype, types
from numpy.typing import NDArray

from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.deep.arithmetic import (
    UP,
    add_complex,
    exponent,
    inlined,
    larger,
    multiply_complex,
    pow2,
    scaled,
    squared,
)

TINY = 2.0**-450  # below, a Z is on the side list too: its square is no normal double
LOWEST = 3  # level of the shortest jumps: 8 steps
HIGHEST = 24

# An entry in plain doubles, for a unit of c; `na` and `nb` are the norms a and b.
_NUMBERS = [*((name, float) for name in ("h", "g", "na", "nb")), *((name, complex) for name in "abqrs")]
FLAT = np.dtype(_NUMBERS, align=True)
# An entry, for any. A and B are double-double: their errors do not shrink with eta.
TERMS = np.dtype([*_NUMBERS, ("a_low", complex), ("b_low", complex)], align=True)
# Its exponents: of A and a; of B, and b; of Q and h; of R and g. S has those of B and R together.
POWERS = np.dtype([(name, np.int32) for name in "abhg"], align=True)


class Table(NamedTuple):
    """A reference and its jumps, as the compiled passes take them."""

    z: NDArray[np.complex128]
    low: NDArray[np.complex128]
    tiny_at: NDArray[np.int64]
    tiny: NDArray[np.float64]
    """x, y, low x, low y, exponent"""
    terms: NDArray[Any]
    """h = inf where there is no jump"""
    powers: NDArray[Any]
    first: NDArray[np.int64]
    """first[k] is the row of the first entry of level LOWEST + k; the last element is the number of rows"""


_orbit, _terms, _powers, FLATS = types.complex128[::1], *(from_dtype(d)[::1] for d in (TERMS, POWERS, FLAT))
TABLE = types.NamedTuple(
    (_orbit, _orbit, types.int64[::1], types.float64[:, ::1], _terms, _powers, types.int64[::1]), Table
)


@inlined
def _find_tiny(tiny_at, m):
    """Row of Z_m on the side list, or -1."""
    low, high = 0, tiny_at.size
    while low < high:
        middle = (low + high) // 2
        if tiny_at[middle] < m:
            low = middle + 1
        else:
            high = middle
    return low if low < tiny_at.size and tiny_at[low] == m else -1


@inlined
def parts(table, m):
    """Z_m as (high part, low part, exponent)."""
    z, low = table.z[m], table.low[m]
    if larger(z) < TINY:
        k = _find_tiny(table.tiny_at, m)
        if k >= 0:
            t = table.tiny
            return complex(t[k, 0], t[k, 1]), complex(t[k, 2], t[k, 3]), int(t[k, 4])
    return z, low, 0


@inlined
def _one_step(t, e, table, m):
    """The entry of one step, z' = 2 Z z (1 + z / 2Z) + c; False where Z is 0 or its neighbours may have escaped."""
    z, low, at = parts(table, m)
    size = 2.0 * math.sqrt(squared(z))
    if size == 0.0:
        return False
    k = exponent(size)
    f = pow2(1 - k)
    t.a, t.a_low, t.na = scaled(z, f), scaled(low, f), size * pow2(-k) * UP
    t.b, t.b_low, t.nb = 0.5 + 0j, 0j, 0.5
    square = squared(t.a)
    t.q, t.h = complex(t.a.real / square, -t.a.imag / square), UP / (size * pow2(-k))
    t.r, t.s, t.g = 0j, 0j, 0.0
    e.a, e.b, e.h, e.g = at + k, 1, -(at + k), 0
    return at < 0 or size < 4.0 / (1.0 + 2.0**-9)


@inlined
def _merge_first_order(t, e, u, ue, v, ve):
    """A = Av Au, B = Av Bu + Bv, and their norms alike."""
    t.a, t.a_low = multiply_complex(v.a, v.a_low, u.a, u.a_low)
    t.na = v.na * u.na * UP
    e.a = ve.a + ue.a
    b, low = multiply_complex(v.a, v.a_low, u.b, u.b_low)
    e.b = max(ve.a + ue.b, ve.b)
    f, g = pow2(ve.a + ue.b - e.b), pow2(ve.b - e.b)
    t.b, t.b_low = add_complex(scaled(b, f), scaled(low, f), scaled(v.b, g), scaled(v.b_low, g))
    t.nb = (v.na * u.nb * f + v.nb * g) * UP


@inlined
def _merge_second_order(t, e, u, ue, v, ve):
    """Q = Qu + Qv Au, R = Ru + Rv + 2 Qv Bu, S = Av (Su + (Qv Bu + Rv) Bu) + Sv; h as Q, g = gu + gv + hv bu."""
    e.h = max(ue.h, ve.h + ue.a)
    f, g = pow2(ue.h - e.h), pow2(ve.h + ue.a - e.h)
    t.q = scaled(u.q, f) + scaled(v.q * u.a, g)
    t.h = (u.h * f + v.h * u.na * g) * UP

    qb = ve.h + ue.b
    e.g = max(ue.g, ve.g, qb)
    f, g, h = pow2(ue.g - e.g), pow2(ve.g - e.g), pow2(qb - e.g)
    b = v.q * u.b
    t.r = scaled(u.r, f) + scaled(v.r, g) + scaled(b, 2.0 * h)
    t.g = (u.g * f + v.g * g + v.h * u.nb * h) * UP

    sum_at = max(ve.g, qb)
    f, g = pow2(ve.g - sum_at), pow2(qb - sum_at)
    sum_ = (scaled(v.r, f) + scaled(b, g)) * u.b
    s = e.b + e.g
    f, g = pow2(ve.a + ue.b + sum_at - s), pow2(ve.a + ue.b + ue.g - s)
    t.s = v.a * (scaled(sum_, f) + scaled(u.s, g)) + scaled(v.s, pow2(ve.b + ve.g - s))


@inlined
def _normalise(t, e):
    """The norms in [1/2, 1); g may be 0."""
    a, b, h, g = exponent(t.na), exponent(t.nb), exponent(t.h), exponent(t.g) if t.g > 0.0 else 0
    e.a, e.b, e.h, e.g = e.a + a, e.b + b, e.h + h, e.g + g
    f = pow2(-a)
    t.na, t.a, t.a_low = t.na * f, scaled(t.a, f), scaled(t.a_low, f)
    f = pow2(-b)
    t.nb, t.b, t.b_low = t.nb * f, scaled(t.b, f), scaled(t.b_low, f)
    f = pow2(-h)
    t.h, t.q = t.h * f, scaled(t.q, f)
    f = pow2(-g)
    t.g, t.r = t.g * f, scaled(t.r, f)
    t.s = scaled(t.s, pow2(-b - g))


@inlined
def _merge(t, e, u, ue, v, ve):
    """Into (t, e): the jump v after the jump u."""
    _merge_first_order(t, e, u, ue, v, ve)
    _merge_second_order(t, e, u, ue, v, ve)
    _normalise(t, e)


@inlined
def _lowest(table, i, work, powers):
    """Entry i of the lowest level, from three rows of scratch; False if there is none."""
    m, row = 1 + (i << LOWEST), 0
    good = _one_step(work[row], powers[row], table, m)
    for k in range(m + 1, m + (1 << LOWEST)):
        if not (good and _one_step(work[1], powers[1], table, k)):
            return False
        _merge(work[2 - row], powers[2 - row], work[row], powers[row], work[1], powers[1])
        row = 2 - row
    table.terms[i], table.powers[i] = work[row], powers[row]
    return good


@compiled(TABLE, _terms, _powers)
def fill(table, work, powers):
    """All entries of the table, level by level. Scratch: three entries."""
    terms, first = table.terms, table.first
    for i in range(first[1] - first[0]):
        if not _lowest(table, i, work, powers):
            terms[i].h = np.inf
    for level in range(1, first.size - 1):
        for i in range(first[level + 1] - first[level]):
            t, u = first[level] + i, first[level - 1] + 2 * i
            if max(terms[u].h, terms[u + 1].h) < np.inf:
                e = table.powers
                _merge(terms[t], e[t], terms[u], e[u], terms[u + 1], e[u + 1])
            else:
                terms[t].h = np.inf


REACH = 450  # exponents that plain doubles are used for: products of three stay normal


@compiled(TABLE, types.int64, FLATS)
def flatten(table, unit, flat):
    """The terms as plain doubles, for c in units of 2^unit and |c| < 2^17; h = inf where an exponent is out of reach.

    What is flushed to 0 (g, b, s far below 1) is below 2^-1000 with its c.
    """
    for k in range(table.terms.size):
        t, e, out = table.terms[k], table.powers[k], flat[k]
        a, b, h, g = e.a, e.b + unit, e.h, e.g + unit
        if not (t.h < np.inf and abs(a) <= REACH and b <= REACH and abs(h) <= REACH and g <= 40):
            out.h = np.inf
            continue
        fa, fb, fh, fg = pow2(a), pow2(b), pow2(h), pow2(g)
        out.h, out.g, out.na, out.nb = t.h * fh, t.g * fg, t.na * fa, t.nb * fb
        out.a, out.b, out.q, out.r = scaled(t.a, fa), scaled(t.b, fb), scaled(t.q, fh), scaled(t.r, fg)
        out.s = scaled(t.s, pow2(b + g))


def rows(length: int) -> NDArray[np.int64]:
    """`Table.first` for a reference of `length` steps."""
    levels = range(LOWEST, max(LOWEST, min(HIGHEST, (length - 1).bit_length() - 1)) + 1)
    return np.cumsum([0, *(length - 1 >> level for level in levels)], dtype=np.int64)
