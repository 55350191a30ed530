"""The second pass: what the first leaves undecided, the same loop in double-double with exponents.

z is (x + iy) 2^s with x and y double-double. The inequalities are those of the first pass with UD in place of U, and
with what the second-order terms of a jump, which stay plain doubles, err by.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

from numba import types

from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.deep.arithmetic import add, exponent, inlined, multiply, multiply_complex, pow2
from mandeldask.kernels.deep.far import ESCAPED, INSIDE, LEAST, NOTHING, SURELY, UNCLEAR, longest_far, slope_far
from mandeldask.kernels.deep.first import POINTS, RESULTS, tail
from mandeldask.kernels.deep.table import (
    AX,
    AXL,
    AY,
    AYL,
    BX,
    BXL,
    BY,
    BYL,
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
    TABLE,
    G,
    H,
    parts,
)

UD = 2.0**-101  # one operation on double-doubles, complex or not, errs by less, relative; so does the reference


@inlined
def normal2(x, xl, y, yl, s, e):
    """As `normal`."""
    largest = max(abs(x), abs(y))
    k = exponent(largest) if largest > 0.0 else 0
    f = pow2(-k)
    return x * f, xl * f, y * f, yl * f, s + k, e * f, f


@inlined
def judge2(wx, wxl, wy, wyl, e):
    """As `judge`, by |w|^2 - 4 in double-double: w is at most e off, so |w|^2 by less than (4.2 + e) e about 2.

    The squares and two sums err by less than 60 2^-106 about there, and 64 UD is 32 times as much.
    """
    p, pl = multiply(wx, wxl, wx, wxl)
    q, ql = multiply(wy, wyl, wy, wyl)
    p, pl = add(p, pl, q, ql)
    excess, _ = add(p, pl, -4.0, 0.0)
    unsure = (4.2 + e) * e + 64.0 * UD
    if excess > 0.0:
        return ESCAPED if excess > unsure else UNCLEAR
    return INSIDE if excess < -unsure else UNCLEAR


@inlined
def jump2(t, p, k, level, x, xl, y, yl, s, e, dx, dy, cx, cy, unit, eta):
    """As `jump_far`, A and B times their factors in double-double, the slope in doubles."""
    fh, fg = pow2(p[k, EH] + s), pow2(p[k, EG] + unit)
    u = (t[k, QX] * x - t[k, QY] * y) * fh + (t[k, RX] * cx - t[k, RY] * cy) * fg
    v = (t[k, QX] * y + t[k, QY] * x) * fh + (t[k, RX] * cy + t[k, RY] * cx) * fg
    px, pxl = add(x, xl, u * x - v * y, 0.0)
    py, pyl = add(y, yl, u * y + v * x, 0.0)
    bx, bxl = add(t[k, BX], t[k, BXL], (t[k, SX] * cx - t[k, SY] * cy) * fg, 0.0)
    by, byl = add(t[k, BY], t[k, BYL], (t[k, SX] * cy + t[k, SY] * cx) * fg, 0.0)
    top = max(p[k, EA] + s, p[k, EB] + unit)
    fa, fb = pow2(p[k, EA] + s - top), pow2(p[k, EB] + unit - top)
    q, c_size, steps = abs(x) + abs(y), abs(cx) + abs(cy), float(1 << LOWEST + level)
    here = t[k, H] * fh * q + t[k, G] * fg * c_size
    relative = 1.02 * here * here + here * 2.0**-43 + steps * 2.0**-99 + 64.0 * UD
    e = (
        t[k, NA] * fa * e * (1.0 + 4.5 * eta + 2.0**-40)
        + relative * (t[k, NA] * fa * q + t[k, NB] * fb * c_size)
        + LEAST
    )
    ax, axl, ay, ayl = multiply_complex(t[k, AX], t[k, AXL], t[k, AY], t[k, AYL], px, pxl, py, pyl)
    bx, bxl, by, byl = multiply_complex(bx, bxl, by, byl, cx, 0.0, cy, 0.0)
    nx, nxl = add(ax * fa, axl * fa, bx * fb, bxl * fb)
    ny, nyl = add(ay * fa, ayl * fa, by * fb, byl * fb)
    dx, dy = slope_far(t, p, k, x, y, s, dx, dy, cx, cy, unit, top)
    x, xl, y, yl, s, e, f = normal2(nx, nxl, ny, nyl, top, e)
    return x, xl, y, yl, s, e, dx * f, dy * f


@inlined
def step2(zx, zxl, zy, zyl, zs, ze, x, xl, y, yl, s, e, dx, dy, cx, cy, unit):
    """As `first.step_far`."""
    t = max(ze, s)
    fz, f = 2.0 * pow2(zs - t), pow2(s - t)
    sx, sxl = add(zx * fz, zxl * fz, x * f, xl * f)
    sy, syl = add(zy * fz, zyl * fz, y * f, yl * f)
    top = max(t + s, unit)
    fp, fc = pow2(t + s - top), pow2(unit - top)
    px, pxl, py, pyl = multiply_complex(sx, sxl, sy, syl, x, xl, y, yl)
    nx, nxl = add(px * fp, pxl * fp, cx * fc, 0.0)
    ny, nyl = add(py * fp, pyl * fp, cy * fc, 0.0)
    q, size = abs(x) + abs(y), abs(sx) + abs(sy) + (abs(x) + abs(y)) * f
    wx, wy = sx + x * f, sy + y * f
    ww = math.sqrt(wx * wx + wy * wy) + 2.0**-50 * size
    g = UD * size
    e = (ww + e * f + g) * e * fp * (1.0 + 2.0**-48) + 5.0 * g * q * fp + 2.0 * UD * (abs(nx) + abs(ny)) + LEAST
    dx, dy = (wx * dx - wy * dy) * fp + fc, (wx * dy + wy * dx) * fp
    x, xl, y, yl, s, e, f = normal2(nx, nxl, ny, nyl, top, e)
    return x, xl, y, yl, s, e, dx * f, dy * f


@inlined
def follow_closely(table, cx, cy, unit, max_iter, eta, coarse, end, i):
    """(proven, n) of the sample (cx + i cy) 2^unit from the reference; n is the likely count where it is not proven."""
    c_size, last = abs(cx) + abs(cy), table.z.size - 1
    x, xl, y, yl, s, e, dx = normal2(cx, 0.0, cy, 0.0, unit, 0.0)
    dy = 0.0
    n, m, proven = 1, 1, True
    while True:
        zx, zxl, zy, zyl, zs = parts(table, m)
        size = abs(zx) + abs(zy)
        ze = zs + exponent(size) if size > 0.0 else NOTHING
        t = max(ze, s)
        fz, f = pow2(zs - t), pow2(s - t)
        wx, wxl = add(zx * fz, zxl * fz, x * f, xl * f)
        wy, wyl = add(zy * fz, zyl * fz, y * f, yl * f)
        we = e * f + 2.0 * UD * (size * fz + abs(wx) + abs(wy)) + LEAST
        proven = proven and we < 2.0**60  # else nothing is known of z any more
        square = wx * wx + wy * wy
        one = pow2(t)
        if not (square * one * one + 16.0 * we * one <= SURELY):
            verdict = judge2(wx * one, wxl * one, wy * one, wyl * one, we * one)
            proven = proven and verdict != UNCLEAR
            if verdict == ESCAPED or (verdict == UNCLEAR and not square * one * one <= 4.0):
                break
        if n >= max_iter:
            return proven, n
        proven = proven and not (coarse > 0.0 and we * we > coarse * square)
        if square < (x * x + y * y) * f * f or m == last:
            x, xl, y, yl, s, e, g = normal2(wx, wxl, wy, wyl, t, we)
            dx, dy = dx * f * g, dy * f * g
            zx, zxl, zy, zyl, zs, ze, m = 0.0, 0.0, 0.0, 0.0, NOTHING, NOTHING, 0
        elif (m - 1) & ((1 << LOWEST) - 1) == 0:
            row, level = longest_far(table, m, s, max(math.sqrt(x * x + y * y), e), c_size, unit, eta)
            if row >= 0:
                x, xl, y, yl, s, e, dx, dy = jump2(
                    table.terms, table.powers, row, level, x, xl, y, yl, s, e, dx, dy, cx, cy, unit, eta
                )
                n += 1 << LOWEST + level
                m += 1 << LOWEST + level
                if n > max_iter:
                    return proven, max_iter
                continue
        x, xl, y, yl, s, e, dx, dy = step2(zx, zxl, zy, zyl, zs, ze, x, xl, y, yl, s, e, dx, dy, cx, cy, unit)
        n += 1
        m += 1
    if coarse > 0.0:
        c, size, f = table.z[1], pow2(unit), pow2(s)
        if not tail(end, i, n, wx * one, wy * one, dx * f, dy * f, c.real + cx * size, c.imag + cy * size, size):
            proven = proven and coarse == math.inf
    return proven, n


@compiled(TABLE, *POINTS, types.int64, types.int64, types.float64, types.float64, *RESULTS)
def second_pass(table, cx, cy, unit, max_iter, eta, coarse, counts, unclear, end):
    """As `first_pass`."""
    for i in range(cx.size):
        proven, counts[i] = follow_closely(table, cx[i], cy[i], unit, max_iter, eta, coarse, end, i)
        unclear[i] = not proven
