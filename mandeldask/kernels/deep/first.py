"""The first pass: offsets as plain doubles, or as extended numbers far below 1, with a bound on their error.

A sample is followed as z, the offset of its orbit from the reference's at m: the orbit itself is at Z_m + z. Always
e >= |computed z - exact z|. The inequalities are README's, by the names they have there.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

from numba import types

from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.deep.arithmetic import U, inlined, larger, norm1, normal, pow2, scaled, squared
from mandeldask.kernels.deep.far import (
    ELSEWHERE,
    ESCAPED,
    GROW,
    INSIDE,
    LOW,
    NOTHING,
    SURELY,
    UNCLEAR,
    far,
    judge,
    jump_error,
    step_far,
)
from mandeldask.kernels.deep.table import FLATS, LOWEST, TABLE
from mandeldask.kernels.fields import BAILOUT

TAIL = 24  # steps from |w| > 2 to the bailout, where |w| - 2 is known to 1e-7 of itself
RESULTS = types.int64[::1], types.boolean[::1], types.float64[:, ::1]


@inlined
def _longest(flat, first, last, m, z2, z, e, c_size, eta):
    """(row, level) of the longest jump from m whose eta is small enough; row -1 if there is none.

    (valid): h max(|z|, e) + g |c| <= eta.
    """
    index = m - 1
    row, level = -1, 0
    k = first[0] + (index >> LOWEST)
    if m + (1 << LOWEST) <= last and flat[k].h * larger(z) <= eta:
        r = max(math.sqrt(z2), e)
        while flat[k].h * r + flat[k].g * c_size <= eta:
            row = k
            level += 1
            step = 1 << LOWEST + level
            if level >= first.size - 1 or m + step > last or index & (step - 1) != 0:
                break
            k = first[level] + (index >> LOWEST + level)
    return row, level - 1


@inlined
def _jump(t, z, c):
    """A z (1 + Q z + R c) + (B + S c) c."""
    return t.a * (z + (t.q * z + t.r * c) * z) + (t.b + t.s * c) * c


@inlined
def _jump_slope(t, z, d, c):
    """The slope of `_jump`, A dz (1 + 2 Q z + R c) + A R z + B + 2 S c."""
    grown = (1.0 + (scaled(t.q * z, 2.0) + t.r * c)) * d + t.r * z
    return t.a * grown + (t.b + scaled(t.s * c, 2.0))


@inlined
def _step_error(w, both, z, new, e):
    """(step): e' = (2 |w| + e + g) e + 5 g q + 2 U |z'|_1, g = U (|2Z + z|_1 + q), q = |z|_1."""
    q = norm1(z)
    g = U * (norm1(both) + q)
    return (2.0 * w + e + g) * e * GROW + 5.0 * g * q + 2.0 * U * norm1(new) + 2.0**-1000


@inlined
def _near(  # noqa: PLR0912 (one loop, each branch a step of README)
    table, flat, n, m, z, e, d, c, unit, max_iter, eta, proof, coarse
):
    """Follow z in plain doubles until it is decided, or ELSEWHERE: too small for them.

    With `coarse`, d = dz/dc too, and UNCLEAR where e^2 > coarse |w|^2: the slope would be too rough.
    """
    c_size, offset = norm1(c), scaled(c, unit)
    first, last = table.first, table.z.size - 1
    while True:
        ref = table.z[m]
        w = ref + z
        w2 = squared(w)
        if not (w2 + 16.0 * e <= SURELY):
            verdict = judge(w2, e, norm1(ref), proof)
            if verdict != INSIDE:
                return verdict, n, m, z, e, d
        if n >= max_iter:
            return INSIDE, n, m, z, e, d
        if coarse > 0.0 and e * e > coarse * w2:
            return UNCLEAR, n, m, z, e, d
        z2 = squared(z)
        if w2 < z2 or m == last:
            # (rebase): the same orbit, as the offset from the reference's start
            z, z2 = w, w2
            if proof:
                e += 2.0 * U * (norm1(ref) + abs(w.real) + abs(w.imag))
            ref, m = 0j, 0
        if z2 < 2.0 ** (2 * LOW):
            return ELSEWHERE, n, m, z, e, d
        if (m - 1) & ((1 << LOWEST) - 1) == 0:
            row, level = _longest(flat, first, last, m, z2, z, e, c_size, eta)
            if row >= 0:
                t = flat[row]
                if proof:
                    e = jump_error(t.h, t.g, t.na, t.nb, norm1(z), c_size, e, eta)
                if coarse > 0.0:
                    d = _jump_slope(t, z, d, c)
                z = _jump(t, z, c)
                n += 1 << LOWEST + level
                m += 1 << LOWEST + level
                if n > max_iter:  # none on the way there has escaped
                    return INSIDE, max_iter, m, z, e, d
                continue
        both = (ref + ref) + z
        new = both * z + offset
        if proof:
            e = _step_error(math.sqrt(w2), both, z, new, e)
        if coarse > 0.0:
            d = scaled(w * d, 2.0) + unit
        z = new
        n += 1
        m += 1


@inlined
def tail(end, i, n, w, d, c, unit):
    """Follow w, of slope d, from the escape at n to the bailout; into column i of `end`.

    Rows of `end`: w and its slope, and the step. False if it lingers.
    """
    for _ in range(TAIL):
        if squared(w) > BAILOUT * BAILOUT:
            break
        d = scaled(w * d, 2.0) + unit
        w = w * w + c
        n += 1
    end[0, i], end[1, i], end[2, i], end[3, i], end[4, i] = w.real, w.imag, d.real, d.imag, n
    return squared(w) > BAILOUT * BAILOUT


@inlined
def _follow(table, flat, c, unit, max_iter, eta, proof, coarse, end, i):
    """(verdict, n) of the sample c 2^unit from the reference; how it ends into column i of `end`."""
    size = pow2(unit)
    n, m = 1, 1
    z, s, e, f = normal(c, unit, 0.0)
    d = complex(f, 0.0)
    while True:
        verdict, n, m, z, s, e, d = far(table, n, m, z, s, e, d, c, unit, max_iter, eta, proof, coarse)
        f = pow2(s)
        z, e, d = scaled(z, f), e * f, scaled(d, f)
        if verdict != ELSEWHERE:
            break
        verdict, n, m, z, e, d = _near(table, flat, n, m, z, e, d, c, size, max_iter, eta, proof, coarse)
        if verdict != ELSEWHERE:
            break
        f = pow2(-LOW)
        z, s, e, g = normal(scaled(z, f), LOW, e * f)
        d = scaled(scaled(d, f), g)
        if m == 0:
            z, s, e, d = step_far(0j, NOTHING, NOTHING, z, s, e, d, c, unit, proof)
            n += 1
            m = 1
    if coarse > 0.0 and verdict == ESCAPED:
        ended = tail(end, i, n, table.z[m] + z, d, table.z[1] + scaled(c, size), size)
        if proof and not ended:
            verdict = UNCLEAR
    return verdict, n


@compiled(
    TABLE,
    FLATS,
    types.complex128[::1],
    types.int64,
    types.int64,
    types.float64,
    types.boolean,
    types.float64,
    *RESULTS,
)
def first_pass(table, flat, c, unit, max_iter, eta, proof, coarse, counts, unclear, end):
    """Counts of the samples c 2^unit; `unclear` says which are not proven.

    With `coarse` above 0, how they end as well (`tail`), their slope d/dc with c in units of 2^unit.
    """
    for i in range(c.size):
        verdict, counts[i] = _follow(table, flat, c[i], unit, max_iter, eta, proof, coarse, end, i)
        unclear[i] = verdict == UNCLEAR
