"""Offsets far below 1: extended numbers, with a bound on their error. The verdicts and bounds of the passes.

z = (x + iy) 2^s, its error at most e 2^s, its slope (dx + i dy) 2^s.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from mandeldask.kernels.deep.arithmetic import U, exponent, inlined, normal, pow2
from mandeldask.kernels.deep.table import (
    AX,
    AY,
    BX,
    BY,
    EA,
    EB,
    EG,
    EH,
    LOWEST,
    NA,
    NB,
    QX,
    QY,
    RX,
    RY,
    SX,
    SY,
    G,
    H,
    parts,
)

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
    t, p = table.terms, table.powers
    row, level = -1, 0
    while level < first.size - 1:
        step = 1 << LOWEST + level
        if m + step > last or index & (step - 1) != 0:
            break
        k = first[level] + (index >> LOWEST + level)
        if not (t[k, H] < np.inf and p[k, EH] + s < 60 and p[k, EG] + unit < 60):
            break
        if not t[k, H] * pow2(p[k, EH] + s) * r + t[k, G] * pow2(p[k, EG] + unit) * c_size <= eta:
            break
        row = k
        level += 1
    return row, level - 1


@inlined
def slope_far(t, p, k, x, y, s, dx, dy, cx, cy, unit, top):
    """The slope of `jump_far` in units of 2^top, A dz (1 + 2 Q z + R c) + (A R z + B + 2 S c) 2^unit."""
    fh, fg = pow2(p[k, EH] + s), pow2(p[k, EG] + unit)
    fa, fb = pow2(p[k, EA] + s - top), pow2(p[k, EB] + unit - top)
    rx, ry = (t[k, RX] * x - t[k, RY] * y) * fg, (t[k, RX] * y + t[k, RY] * x) * fg
    u = 1.0 + (2.0 * (t[k, QX] * x - t[k, QY] * y) * fh + (t[k, RX] * cx - t[k, RY] * cy) * fg)
    v = 2.0 * (t[k, QX] * y + t[k, QY] * x) * fh + (t[k, RX] * cy + t[k, RY] * cx) * fg
    px, py = (u * dx - v * dy) + rx, (u * dy + v * dx) + ry
    bx = t[k, BX] + 2.0 * (t[k, SX] * cx - t[k, SY] * cy) * fg
    by = t[k, BY] + 2.0 * (t[k, SX] * cy + t[k, SY] * cx) * fg
    return (t[k, AX] * px - t[k, AY] * py) * fa + bx * fb, (t[k, AX] * py + t[k, AY] * px) * fa + by * fb


@inlined
def jump_far(t, p, k, x, y, s, e, dx, dy, cx, cy, unit, eta, proof, coarse):
    """`jump`, `jump_error` and `jump_slope` with the table's own exponents; the slope is in units of 2^s too."""
    fh, fg = pow2(p[k, EH] + s), pow2(p[k, EG] + unit)
    u = (t[k, QX] * x - t[k, QY] * y) * fh + (t[k, RX] * cx - t[k, RY] * cy) * fg
    v = (t[k, QX] * y + t[k, QY] * x) * fh + (t[k, RX] * cy + t[k, RY] * cx) * fg
    px, py = x + (u * x - v * y), y + (u * y + v * x)
    bx = t[k, BX] + (t[k, SX] * cx - t[k, SY] * cy) * fg
    by = t[k, BY] + (t[k, SX] * cy + t[k, SY] * cx) * fg
    top = max(p[k, EA] + s, p[k, EB] + unit)
    fa, fb = pow2(p[k, EA] + s - top), pow2(p[k, EB] + unit - top)
    nx = (t[k, AX] * px - t[k, AY] * py) * fa + (bx * cx - by * cy) * fb
    ny = (t[k, AX] * py + t[k, AY] * px) * fa + (bx * cy + by * cx) * fb
    if proof:
        e = jump_error(
            t[k, H] * fh, t[k, G] * fg, t[k, NA] * fa, t[k, NB] * fb, abs(x) + abs(y), abs(cx) + abs(cy), e, eta
        )
    if coarse > 0.0:
        dx, dy = slope_far(t, p, k, x, y, s, dx, dy, cx, cy, unit, top)
    x, y, s, e, f = normal(nx, ny, top, e)
    return x, y, s, e, dx * f, dy * f


@inlined
def step_far(zx, zy, zs, ze, x, y, s, e, dx, dy, cx, cy, unit, proof):
    """One step, (2Z + z) z + c with Z = (zx + i zy) 2^zs below 2^ze, and (step) in units of the result."""
    t = max(ze, s)
    fz, f = pow2(zs - t), pow2(s - t)
    sx, sy = 2.0 * zx * fz + x * f, 2.0 * zy * fz + y * f
    top = max(t + s, unit)
    fp, fc = pow2(t + s - top), pow2(unit - top)
    nx, ny = (sx * x - sy * y) * fp + cx * fc, (sx * y + sy * x) * fp + cy * fc
    wx, wy = sx + x * f, sy + y * f  # 2w = (2Z + z) + z
    if proof:
        q = abs(x) + abs(y)
        g = U * (abs(sx) + abs(sy) + q * f)
        ww = math.sqrt(wx * wx + wy * wy)
        e = (ww + e * f + 3.0 * g) * e * fp * GROW + 5.0 * g * q * fp + 2.0 * U * (abs(nx) + abs(ny)) + LEAST
    dx, dy = (wx * dx - wy * dy) * fp + fc, (wx * dy + wy * dx) * fp
    x, y, s, e, f = normal(nx, ny, top, e)
    return x, y, s, e, dx * f, dy * f


@inlined
def far(table, n, m, x, y, s, e, dx, dy, cx, cy, unit, max_iter, eta, proof, coarse):
    """Follow z = (x + iy) 2^s, its error at most e 2^s, until it is decided, or ELSEWHERE: large enough for doubles.

    |z| < 2^-379 changes no test of Z + z against 2 that (test) does not leave to the later passes.
    """
    c_size, last = abs(cx) + abs(cy), table.z.size - 1
    while s <= HIGH:
        zx, _, zy, _, zs = parts(table, m)
        size, w2 = abs(zx) + abs(zy), zx * zx + zy * zy
        if not e < 2.0**60:  # nothing is known of z any more
            return UNCLEAR, n, m, x, y, s, e, dx, dy
        if zs == 0 and not w2 <= SURELY:
            verdict = judge(w2, 0.0, size, proof)
            if verdict != INSIDE:
                return verdict, n, m, x, y, s, e, dx, dy
        if n >= max_iter:
            return INSIDE, n, m, x, y, s, e, dx, dy
        # w = Z + z, in units of 2^t
        ze = zs + exponent(size) if size > 0.0 else NOTHING
        t = max(ze, s)
        fz, f = pow2(zs - t), pow2(s - t)
        wx, wy = zx * fz + x * f, zy * fz + y * f
        w2 = wx * wx + wy * wy
        if coarse > 0.0 and (e * f) * (e * f) > coarse * w2:
            return UNCLEAR, n, m, x, y, s, e, dx, dy
        if w2 < (x * x + y * y) * f * f or m == last:
            if proof:
                e = e * f + 2.0 * U * (size * fz + abs(wx) + abs(wy))
            x, y, k, e, g = normal(wx, wy, t, e)
            dx, dy, s = dx * f * g, dy * f * g, k
            zx, zy, zs, ze, m = 0.0, 0.0, NOTHING, NOTHING, 0
        elif (m - 1) & ((1 << LOWEST) - 1) == 0:
            row, level = longest_far(table, m, s, max(math.sqrt(x * x + y * y), e), c_size, unit, eta)
            if row >= 0:
                x, y, s, e, dx, dy = jump_far(
                    table.terms, table.powers, row, x, y, s, e, dx, dy, cx, cy, unit, eta, proof, coarse
                )
                n += 1 << LOWEST + level
                m += 1 << LOWEST + level
                if n > max_iter:
                    return INSIDE, max_iter, m, x, y, s, e, dx, dy
                continue
        x, y, s, e, dx, dy = step_far(zx, zy, zs, ze, x, y, s, e, dx, dy, cx, cy, unit, proof)
        n += 1
        m += 1
    return ELSEWHERE, n, m, x, y, s, e, dx, dy
