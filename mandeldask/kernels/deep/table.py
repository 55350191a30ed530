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
from typing import NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.deep.arithmetic import UP, add, exponent, inlined, multiply_complex, pow2

TINY = 2.0**-450  # below, a Z is on the side list too: its square is no normal double
LOWEST = 3  # level of the shortest jumps: 8 steps
HIGHEST = 24

# Columns of `terms`. A and B are double-double: their errors do not shrink with eta.
H, G, NA, NB, AX, AY, BX, BY, QX, QY, RX, RY, SX, SY, AXL, AYL, BXL, BYL = range(18)
# Columns of `powers`, exponents: of A and a; of B, and b; of Q and h; of R and g. S has those of B and R together.
EA, EB, EH, EG = range(4)


class Table(NamedTuple):
    """A reference and its jumps, as the compiled passes take them."""

    z: NDArray[np.complex128]
    low: NDArray[np.complex128]
    tiny_at: NDArray[np.int64]
    tiny: NDArray[np.float64]
    """x, y, low x, low y, exponent"""
    terms: NDArray[np.float64]
    """H = inf where there is no jump"""
    powers: NDArray[np.int32]
    first: NDArray[np.int64]
    """first[k] is the row of the first entry of level LOWEST + k; the last element is the number of rows"""


TABLE = types.NamedTuple(
    (
        types.complex128[::1],
        types.complex128[::1],
        types.int64[::1],
        types.float64[:, ::1],
        types.float64[:, ::1],
        types.int32[:, ::1],
        types.int64[::1],
    ),
    Table,
)


@inlined
def find_tiny(tiny_at, m):
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
    """Z_m as (x, low x, y, low y, exponent)."""
    z, low = table.z[m], table.low[m]
    if max(abs(z.real), abs(z.imag)) < TINY:
        k = find_tiny(table.tiny_at, m)
        if k >= 0:
            t = table.tiny
            return t[k, 0], t[k, 2], t[k, 1], t[k, 3], int(t[k, 4])
    return z.real, low.real, z.imag, low.imag, 0


@inlined
def _times(ax, ay, bx, by):
    return ax * bx - ay * by, ax * by + ay * bx


@inlined
def _one_step(t, powers, table, m):
    """The entry of one step, z' = 2 Z z (1 + z / 2Z) + c; False where Z is 0 or its neighbours may have escaped."""
    x, xl, y, yl, e = parts(table, m)
    size = 2.0 * math.sqrt(x * x + y * y)
    if size == 0.0:
        return False
    k = exponent(size)
    f = pow2(1 - k)
    t[AX], t[AXL], t[AY], t[AYL] = x * f, xl * f, y * f, yl * f
    t[NA] = size * pow2(-k) * UP
    t[BX], t[NB] = 0.5, 0.5
    t[BXL], t[BY], t[BYL] = 0.0, 0.0, 0.0
    square = t[AX] * t[AX] + t[AY] * t[AY]
    t[QX], t[QY], t[H] = t[AX] / square, -t[AY] / square, UP / (size * pow2(-k))
    t[RX], t[RY], t[G], t[SX], t[SY] = 0.0, 0.0, 0.0, 0.0, 0.0
    powers[EA], powers[EB], powers[EH], powers[EG] = e + k, 1, -(e + k), 0
    return e < 0 or size < 4.0 / (1.0 + 2.0**-9)


@inlined
def _merge_first_order(t, e, u, ue, v, ve):
    """A = Av Au, B = Av Bu + Bv, and their norms alike."""
    t[AX], t[AXL], t[AY], t[AYL] = multiply_complex(v[AX], v[AXL], v[AY], v[AYL], u[AX], u[AXL], u[AY], u[AYL])
    t[NA] = v[NA] * u[NA] * UP
    e[EA] = ve[EA] + ue[EA]
    xh, xl, yh, yl = multiply_complex(v[AX], v[AXL], v[AY], v[AYL], u[BX], u[BXL], u[BY], u[BYL])
    e[EB] = max(ve[EA] + ue[EB], ve[EB])
    f, g = pow2(ve[EA] + ue[EB] - e[EB]), pow2(ve[EB] - e[EB])
    t[BX], t[BXL] = add(xh * f, xl * f, v[BX] * g, v[BXL] * g)
    t[BY], t[BYL] = add(yh * f, yl * f, v[BY] * g, v[BYL] * g)
    t[NB] = (v[NA] * u[NB] * f + v[NB] * g) * UP


@inlined
def _merge_second_order(t, e, u, ue, v, ve):
    """Q = Qu + Qv Au, R = Ru + Rv + 2 Qv Bu, S = Av (Su + (Qv Bu + Rv) Bu) + Sv; h as Q, g = gu + gv + hv bu."""
    e[EH] = max(ue[EH], ve[EH] + ue[EA])
    f, g = pow2(ue[EH] - e[EH]), pow2(ve[EH] + ue[EA] - e[EH])
    x, y = _times(v[QX], v[QY], u[AX], u[AY])
    t[QX], t[QY] = u[QX] * f + x * g, u[QY] * f + y * g
    t[H] = (u[H] * f + v[H] * u[NA] * g) * UP

    qb = ve[EH] + ue[EB]
    e[EG] = max(ue[EG], ve[EG], qb)
    f, g, h = pow2(ue[EG] - e[EG]), pow2(ve[EG] - e[EG]), pow2(qb - e[EG])
    bx, by = _times(v[QX], v[QY], u[BX], u[BY])
    t[RX], t[RY] = u[RX] * f + v[RX] * g + 2.0 * bx * h, u[RY] * f + v[RY] * g + 2.0 * by * h
    t[G] = (u[G] * f + v[G] * g + v[H] * u[NB] * h) * UP

    sum_at = max(ve[EG], qb)
    f, g = pow2(ve[EG] - sum_at), pow2(qb - sum_at)
    x, y = _times(v[RX] * f + bx * g, v[RY] * f + by * g, u[BX], u[BY])
    s = e[EB] + e[EG]
    f, g = pow2(ve[EA] + ue[EB] + sum_at - s), pow2(ve[EA] + ue[EB] + ue[EG] - s)
    x, y = _times(v[AX], v[AY], x * f + u[SX] * g, y * f + u[SY] * g)
    h = pow2(ve[EB] + ve[EG] - s)
    t[SX], t[SY] = x + v[SX] * h, y + v[SY] * h


@inlined
def _normalise(t, e):
    """The norms in [1/2, 1); g may be 0."""
    a, b, h, g = exponent(t[NA]), exponent(t[NB]), exponent(t[H]), exponent(t[G]) if t[G] > 0.0 else 0
    e[EA], e[EB], e[EH], e[EG] = e[EA] + a, e[EB] + b, e[EH] + h, e[EG] + g
    for column in (NA, AX, AY, AXL, AYL):
        t[column] *= pow2(-a)
    for column in (NB, BX, BY, BXL, BYL):
        t[column] *= pow2(-b)
    for column in (H, QX, QY):
        t[column] *= pow2(-h)
    for column in (G, RX, RY):
        t[column] *= pow2(-g)
    for column in (SX, SY):
        t[column] *= pow2(-b - g)


@inlined
def merge(t, e, u, ue, v, ve):
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
        merge(work[2 - row], powers[2 - row], work[row], powers[row], work[1], powers[1])
        row = 2 - row
    for column in range(18):
        table.terms[i, column] = work[row, column]
    for column in range(4):
        table.powers[i, column] = powers[row, column]
    return good


@inlined
def _fill(table, work, work_powers):
    """All entries of the table, level by level. Scratch: three entries."""
    terms, powers, first = table.terms, table.powers, table.first
    for i in range(first[1] - first[0]):
        if not _lowest(table, i, work, work_powers):
            terms[i, H] = np.inf
    for level in range(1, first.size - 1):
        for i in range(first[level + 1] - first[level]):
            t, u = first[level] + i, first[level - 1] + 2 * i
            if max(terms[u, H], terms[u + 1, H]) < np.inf:
                merge(terms[t], powers[t], terms[u], powers[u], terms[u + 1], powers[u + 1])
            else:
                terms[t, H] = np.inf


REACH = 450  # exponents that plain doubles are used for: products of three stay normal


@inlined
def _flatten(table, unit, out):
    """The terms as plain doubles, for c in units of 2^unit and |c| < 2^17; H = inf where an exponent is out of reach.

    What is flushed to 0 (G, B, S far below 1) is below 2^-1000 with its c.
    """
    for k in range(table.terms.shape[0]):
        t, e = table.terms[k], table.powers[k]
        a, b, h, g = e[EA], e[EB] + unit, e[EH], e[EG] + unit
        if not (t[H] < np.inf and abs(a) <= REACH and b <= REACH and abs(h) <= REACH and g <= 40):
            out[k, H] = np.inf
            continue
        fa, fb, fh, fg, fs = pow2(a), pow2(b), pow2(h), pow2(g), pow2(b + g)
        out[k, H], out[k, G], out[k, NA], out[k, NB] = t[H] * fh, t[G] * fg, t[NA] * fa, t[NB] * fb
        out[k, AX], out[k, AY], out[k, BX], out[k, BY] = t[AX] * fa, t[AY] * fa, t[BX] * fb, t[BY] * fb
        out[k, QX], out[k, QY], out[k, RX], out[k, RY] = t[QX] * fh, t[QY] * fh, t[RX] * fg, t[RY] * fg
        out[k, SX], out[k, SY] = t[SX] * fs, t[SY] * fs


def rows(length: int) -> NDArray[np.int64]:
    """`Table.first` for a reference of `length` steps."""
    levels = range(LOWEST, max(LOWEST, min(HIGHEST, (length - 1).bit_length() - 1)) + 1)
    return np.cumsum([0, *(length - 1 >> level for level in levels)], dtype=np.int64)


@compiled(TABLE, types.float64[:, ::1], types.int32[:, ::1])
def fill(table, work, work_powers):
    _fill(table, work, work_powers)


@compiled(TABLE, types.int64, types.float64[:, ::1])
def flatten(table, unit, out):
    _flatten(table, unit, out)
