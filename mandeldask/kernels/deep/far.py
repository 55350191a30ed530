"""Offsets far below 1: extended numbers, with a bound on their error. The verdicts and bounds of the passes.

An offset is z 2^s, its error at most e 2^s, its slope d 2^s. An entry of the table is t, with exponents p.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from mandeldask.kernels.deep.arithmetic import U, exponent, inlined, norm1, normal, pow2, scaled, squared
from mandeldask.kernels.deep.table import LOWEST, parts

GROW = 1.0 + 2.0**-49
INSIDE, ESCAPED, UNCLEAR, ELSEWHERE = range(4)
LOW = -400  # exponent of a z that is followed as an extended number from here on down
HIGH = -380  # and as plain doubles from here on up
NOTHING = -(1 << 40)  # exponent of c = 0
SURELY = 3.999999
LEAST = 2.0**-900  # more than what underflows


@inlined
def judge(square, e, size, proof):
    """Is |w| > 2, for w computed as Z + z, |w|^2 = `square`, |Z|_1 = `size`? UNCLEAR where the error may decide.

    Without proof, what it looks like.

    (test): |computed w - w| <= f = e + 8 U (|Z|_1 + 2), beside the 4 U of the root.
    """
    if not proof:
        return INSIDE if square <= 4.0 else ESCAPED
    f = e + 8.0 * U * (size + 2.0)
    w = math.sqrt(square)
    if square > 4.0:
        return ESCAPED if w * (1.0 - 4.0 * U) - f > 2.0 else UNCLEAR
    return INSIDE if w * (1.0 + 4.0 * U) + f < 2.0 else UNCLEAR


@inlined
def jump_error(h, g, a, b, q, c_size, e, eta):
    """(jump): e' = a e (1 + 4.5 eta_max) + (1.02 eta^2 + 16 U) (a q + b |c|)."""
    here = h * q + g * c_size
    return a * e * (1.0 + 4.5 * eta + 2.0**-40) + (1.02 * here * here + 16.0 * U) * (a * q + b * c_size) + LEAST


@inlined
def longest_far(table, m, s, r, c_size, unit, eta):
    """As `longest`, for |z| <= r 2^s and c in units of 2^unit, with the table's own exponents."""
    first, last, index = table.first, table.z.size - 1, m - 1
    row, level = -1, 0
    while level < first.size - 1:
        step = 1 << LOWEST + level
        if m + step > last or index & (step - 1) != 0:
            break
        k = first[level] + (index >> LOWEST + level)
        t, p = table.terms[k], table.powers[k]
        if not (t.h < np.inf and p.h + s < 60 and p.g + unit < 60):
            break
        if not t.h * pow2(p.h + s) * r + t.g * pow2(p.g + unit) * c_size <= eta:
            break
        row = k
        level += 1
    return row, level - 1


@inlined
def slope_far(t, p, z, s, d, c, unit, top):
    """The slope of `_jump_far` in units of 2^top, A dz (1 + 2 Q z + R c) + (A R z + B + 2 S c) 2^unit."""
    fh, fg = pow2(p.h + s), pow2(p.g + unit)
    fa, fb = pow2(p.a + s - top), pow2(p.b + unit - top)
    grown = (1.0 + (scaled(t.q * z, 2.0 * fh) + scaled(t.r * c, fg))) * d + scaled(t.r * z, fg)
    return scaled(t.a * grown, fa) + scaled(t.b + scaled(t.s * c, 2.0 * fg), fb)


@inlined
def _jump_far(t, p, z, s, e, d, c, unit, eta, proof, coarse):
    """A jump of the first pass with the table's own exponents; the slope is in units of 2^s too."""
    fh, fg = pow2(p.h + s), pow2(p.g + unit)
    grown = z + (scaled(t.q * z, fh) + scaled(t.r * c, fg)) * z
    b = t.b + scaled(t.s * c, fg)
    top = max(p.a + s, p.b + unit)
    fa, fb = pow2(p.a + s - top), pow2(p.b + unit - top)
    if proof:
        e = jump_error(t.h * fh, t.g * fg, t.na * fa, t.nb * fb, norm1(z), norm1(c), e, eta)
    if coarse > 0.0:
        d = slope_far(t, p, z, s, d, c, unit, top)
    z, s, e, f = normal(scaled(t.a * grown, fa) + scaled(b * c, fb), top, e)
    return z, s, e, scaled(d, f)


@inlined
def step_far(ref, at, ref_at, z, s, e, d, c, unit, proof):
    """One step, (2Z + z) z + c with Z = `ref` 2^at below 2^ref_at, and (step) in units of the result."""
    t = max(ref_at, s)
    f = pow2(s - t)
    both = scaled(ref, 2.0 * pow2(at - t)) + scaled(z, f)
    top = max(t + s, unit)
    fp, fc = pow2(t + s - top), pow2(unit - top)
    new, w = scaled(both * z, fp) + scaled(c, fc), both + scaled(z, f)  # 2w = (2Z + z) + z
    if proof:
        q = norm1(z)
        g = U * (norm1(both) + q * f)
        e = (math.sqrt(squared(w)) + e * f + 3.0 * g) * e * fp * GROW + 5.0 * g * q * fp + 2.0 * U * norm1(new) + LEAST
    z, s, e, f = normal(new, top, e)
    return z, s, e, scaled(scaled(w * d, fp) + fc, f)


@inlined
def far(table, n, m, z, s, e, d, c, unit, max_iter, eta, proof, coarse):
    """Follow z 2^s, its error at most e 2^s, until it is decided, or ELSEWHERE: large enough for doubles.

    |z| < 2^-379 changes no test of Z + z against 2 that (test) does not leave to the later passes.
    """
    c_size, last = norm1(c), table.z.size - 1
    while s <= HIGH:
        ref, _, at = parts(table, m)
        size, w2 = norm1(ref), squared(ref)
        if not e < 2.0**60:  # nothing is known of z any more
            return UNCLEAR, n, m, z, s, e, d
        if at == 0 and not w2 <= SURELY:
            verdict = judge(w2, 0.0, size, proof)
            if verdict != INSIDE:
                return verdict, n, m, z, s, e, d
        if n >= max_iter:
            return INSIDE, n, m, z, s, e, d
        # w = Z + z, in units of 2^t
        ref_at = at + exponent(size) if size > 0.0 else NOTHING
        t = max(ref_at, s)
        fz, f = pow2(at - t), pow2(s - t)
        w = scaled(ref, fz) + scaled(z, f)
        w2 = squared(w)
        if coarse > 0.0 and (e * f) * (e * f) > coarse * w2:
            return UNCLEAR, n, m, z, s, e, d
        if w2 < squared(z) * f * f or m == last:
            if proof:
                e = e * f + 2.0 * U * (size * fz + abs(w.real) + abs(w.imag))
            z, s, e, g = normal(w, t, e)
            d = scaled(scaled(d, f), g)
            ref, at, ref_at, m = 0j, NOTHING, NOTHING, 0
        elif (m - 1) & ((1 << LOWEST) - 1) == 0:
            row, level = longest_far(table, m, s, max(math.sqrt(squared(z)), e), c_size, unit, eta)
            if row >= 0:
                z, s, e, d = _jump_far(table.terms[row], table.powers[row], z, s, e, d, c, unit, eta, proof, coarse)
                n += 1 << LOWEST + level
                m += 1 << LOWEST + level
                if n > max_iter:
                    return INSIDE, max_iter, m, z, s, e, d
                continue
        z, s, e, d = step_far(ref, at, ref_at, z, s, e, d, c, unit, proof)
        n += 1
        m += 1
    return ELSEWHERE, n, m, z, s, e, d
