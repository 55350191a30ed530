"""The second pass: what the first leaves undecided, the same loop in double-double with exponents.

z and its low part zl are (z + zl) 2^s. The inequalities are those of the first pass with UD in place of U, and with
what the second-order terms of a jump, which stay plain doubles, err by.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

from numba import types

from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.deep.arithmetic import (
    add,
    add_complex,
    exponent,
    inlined,
    multiply,
    multiply_complex,
    norm1,
    normal,
    pow2,
    scaled,
    squared,
)
from mandeldask.kernels.deep.far import ESCAPED, INSIDE, LEAST, NOTHING, SURELY, UNCLEAR, longest_far, slope_far
from mandeldask.kernels.deep.first import RESULTS, tail
from mandeldask.kernels.deep.table import LOWEST, TABLE, parts

UD = 2.0**-101  # one operation on double-doubles, complex or not, errs by less, relative; so does the reference


@inlined
def _judge(w, wl, e):
    """As `judge`, by |w|^2 - 4 in double-double: w is at most e off, so |w|^2 by less than (4.2 + e) e about 2.

    The squares and two sums err by less than 60 2^-106 about there, and 64 UD is 32 times as much.
    """
    p, pl = multiply(w.real, wl.real, w.real, wl.real)
    q, ql = multiply(w.imag, wl.imag, w.imag, wl.imag)
    p, pl = add(p, pl, q, ql)
    excess, _ = add(p, pl, -4.0, 0.0)
    unsure = (4.2 + e) * e + 64.0 * UD
    if excess > 0.0:
        return ESCAPED if excess > unsure else UNCLEAR
    return INSIDE if excess < -unsure else UNCLEAR


@inlined
def _jump(t, p, level, z, zl, s, e, d, c, unit, eta):
    """As in the first pass, A and B times their factors in double-double, the slope in doubles."""
    fh, fg = pow2(p.h + s), pow2(p.g + unit)
    w, wl = add_complex(z, zl, (scaled(t.q * z, fh) + scaled(t.r * c, fg)) * z, 0j)
    b, bl = add_complex(t.b, t.b_low, scaled(t.s * c, fg), 0j)
    top = max(p.a + s, p.b + unit)
    fa, fb = pow2(p.a + s - top), pow2(p.b + unit - top)
    q, c_size, steps = norm1(z), norm1(c), float(1 << LOWEST + level)
    here = t.h * fh * q + t.g * fg * c_size
    relative = 1.02 * here * here + here * 2.0**-43 + steps * 2.0**-99 + 64.0 * UD
    e = t.na * fa * e * (1.0 + 4.5 * eta + 2.0**-40) + relative * (t.na * fa * q + t.nb * fb * c_size) + LEAST
    a, al = multiply_complex(t.a, t.a_low, w, wl)
    b, bl = multiply_complex(b, bl, c, 0j)
    d = slope_far(t, p, z, s, d, c, unit, top)
    z, zl = add_complex(scaled(a, fa), scaled(al, fa), scaled(b, fb), scaled(bl, fb))
    z, s, e, f = normal(z, top, e)
    return z, scaled(zl, f), s, e, scaled(d, f)


@inlined
def _step(ref, low, at, ref_at, z, zl, s, e, d, c, unit):
    """As `step_far`."""
    t = max(ref_at, s)
    fz, f = 2.0 * pow2(at - t), pow2(s - t)
    both, bl = add_complex(scaled(ref, fz), scaled(low, fz), scaled(z, f), scaled(zl, f))
    top = max(t + s, unit)
    fp, fc = pow2(t + s - top), pow2(unit - top)
    p, pl = multiply_complex(both, bl, z, zl)
    new, nl = add_complex(scaled(p, fp), scaled(pl, fp), scaled(c, fc), 0j)
    q = norm1(z)
    size = norm1(both) + q * f
    w, g = both + scaled(z, f), UD * size
    ww = math.sqrt(squared(w)) + 2.0**-50 * size
    e = (ww + e * f + g) * e * fp * (1.0 + 2.0**-48) + 5.0 * g * q * fp + 2.0 * UD * norm1(new) + LEAST
    z, s, e, f = normal(new, top, e)
    return z, scaled(nl, f), s, e, scaled(scaled(w * d, fp) + fc, f)


@inlined
def _follow(table, c, unit, max_iter, eta, coarse, end, i):
    """(proven, n) of the sample c 2^unit from the reference; n is the likely count where it is not proven."""
    c_size, last = norm1(c), table.z.size - 1
    z, s, e, f = normal(c, unit, 0.0)
    zl, d = 0j, complex(f, 0.0)
    n, m, proven = 1, 1, True
    while True:
        ref, low, at = parts(table, m)
        size = norm1(ref)
        ref_at = at + exponent(size) if size > 0.0 else NOTHING
        t = max(ref_at, s)
        fz, f = pow2(at - t), pow2(s - t)
        w, wl = add_complex(scaled(ref, fz), scaled(low, fz), scaled(z, f), scaled(zl, f))
        we = e * f + 2.0 * UD * (size * fz + abs(w.real) + abs(w.imag)) + LEAST
        proven = proven and we < 2.0**60  # else nothing is known of z any more
        square = squared(w)
        one = pow2(t)
        if not (square * one * one + 16.0 * we * one <= SURELY):
            verdict = _judge(scaled(w, one), scaled(wl, one), we * one)
            proven = proven and verdict != UNCLEAR
            if verdict == ESCAPED or (verdict == UNCLEAR and not square * one * one <= 4.0):
                break
        if n >= max_iter:
            return proven, n
        proven = proven and not (coarse > 0.0 and we * we > coarse * square)
        if square < squared(z) * f * f or m == last:
            z, s, e, g = normal(w, t, we)
            zl, d = scaled(wl, g), scaled(scaled(d, f), g)
            ref, low, at, ref_at, m = 0j, 0j, NOTHING, NOTHING, 0
        elif (m - 1) & ((1 << LOWEST) - 1) == 0:
            row, level = longest_far(table, m, s, max(math.sqrt(squared(z)), e), c_size, unit, eta)
            if row >= 0:
                entry, powers = table.terms[row], table.powers[row]
                z, zl, s, e, d = _jump(entry, powers, level, z, zl, s, e, d, c, unit, eta)
                n += 1 << LOWEST + level
                m += 1 << LOWEST + level
                if n > max_iter:
                    return proven, max_iter
                continue
        z, zl, s, e, d = _step(ref, low, at, ref_at, z, zl, s, e, d, c, unit)
        n += 1
        m += 1
    if coarse > 0.0:
        size = pow2(unit)
        ended = tail(end, i, n, scaled(w, one), scaled(d, pow2(s)), table.z[1] + scaled(c, size), size)
        proven = proven and (ended or coarse == math.inf)
    return proven, n


@compiled(TABLE, types.complex128[::1], types.int64, types.int64, types.float64, types.float64, *RESULTS)
def second_pass(table, c, unit, max_iter, eta, coarse, counts, unclear, end):
    """As `first_pass`."""
    for i in range(c.size):
        proven, counts[i] = _follow(table, c[i], unit, max_iter, eta, coarse, end, i)
        unclear[i] = not proven
