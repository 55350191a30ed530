"""The first pass: offsets as plain doubles, or as extended numbers far below 1, with a bound on their error.

A sample is followed as z, the offset of its orbit from the reference's at m: the orbit itself is at Z_m + z. Always
e >= |computed z - exact z|. The inequalities are README's, by the names they have there.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

from numba import types

from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.deep.arithmetic import U, inlined, normal, pow2
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
from mandeldask.kernels.deep.table import (
    AX,
    AY,
    BX,
    BY,
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
)
from mandeldask.kernels.fields import BAILOUT

POINTS = types.float64[::1], types.float64[::1]
RESULTS = types.int64[::1], types.boolean[::1], types.float64[:, ::1]
TAIL = 24  # steps from |w| > 2 to the bailout, where |w| - 2 is known to 1e-7 of itself


@inlined
def longest(flat, first, last, m, z2, x, y, e, c_size, eta):
    """(row, level) of the longest jump from m whose eta is small enough; row -1 if there is none.

    (valid): h max(|z|, e) + g |c| <= eta.
    """
    index = m - 1
    row, level = -1, 0
    k = first[0] + (index >> LOWEST)
    if m + (1 << LOWEST) <= last and flat[k, H] * max(abs(x), abs(y)) <= eta:
        r = max(math.sqrt(z2), e)
        while flat[k, H] * r + flat[k, G] * c_size <= eta:
            row = k
            level += 1
            step = 1 << LOWEST + level
            if level >= first.size - 1 or m + step > last or index & (step - 1) != 0:
                break
            k = first[level] + (index >> LOWEST + level)
    return row, level - 1


@inlined
def jump(t, k, x, y, cx, cy):
    """A z (1 + Q z + R c) + (B + S c) c."""
    p = (t[k, QX] * x - t[k, QY] * y) + (t[k, RX] * cx - t[k, RY] * cy)
    q = (t[k, QX] * y + t[k, QY] * x) + (t[k, RX] * cy + t[k, RY] * cx)
    px, py = x + (p * x - q * y), y + (p * y + q * x)
    bx, by = t[k, BX] + (t[k, SX] * cx - t[k, SY] * cy), t[k, BY] + (t[k, SX] * cy + t[k, SY] * cx)
    return (t[k, AX] * px - t[k, AY] * py) + (bx * cx - by * cy), (t[k, AX] * py + t[k, AY] * px) + (bx * cy + by * cx)


@inlined
def jump_slope(t, k, x, y, dx, dy, cx, cy):
    """The slope of `jump`, A dz (1 + 2 Q z + R c) + A R z + B + 2 S c."""
    rx, ry = t[k, RX] * x - t[k, RY] * y, t[k, RX] * y + t[k, RY] * x
    p = 1.0 + (2.0 * (t[k, QX] * x - t[k, QY] * y) + (t[k, RX] * cx - t[k, RY] * cy))
    q = 2.0 * (t[k, QX] * y + t[k, QY] * x) + (t[k, RX] * cy + t[k, RY] * cx)
    px, py = (p * dx - q * dy) + rx, (p * dy + q * dx) + ry
    bx, by = t[k, BX] + 2.0 * (t[k, SX] * cx - t[k, SY] * cy), t[k, BY] + 2.0 * (t[k, SX] * cy + t[k, SY] * cx)
    return (t[k, AX] * px - t[k, AY] * py) + bx, (t[k, AX] * py + t[k, AY] * px) + by


@inlined
def step_error(w, sx, sy, x, y, nx, ny, e):
    """(step): e' = (2 |w| + e + g) e + 5 g q + 2 U |z'|_1, g = U (|2Z + z|_1 + q), q = |z|_1."""
    q = abs(x) + abs(y)
    g = U * (abs(sx) + abs(sy) + q)
    return (2.0 * w + e + g) * e * GROW + 5.0 * g * q + 2.0 * U * (abs(nx) + abs(ny)) + 2.0**-1000


@inlined
def near(  # noqa: PLR0912 (one loop, each branch a step of README)
    table, flat, n, m, x, y, e, dx, dy, cx, cy, unit, max_iter, eta, proof, coarse
):
    """Follow z in plain doubles until it is decided, or ELSEWHERE: too small for them.

    With `coarse`, dz/dc too, and UNCLEAR where e^2 > coarse |w|^2: the slope would be too rough.
    """
    c_size = abs(cx) + abs(cy)
    ux, uy = cx * unit, cy * unit
    zs, first, last = table.z, table.first, table.z.size - 1
    while True:
        zx, zy = zs[m].real, zs[m].imag
        wx, wy = zx + x, zy + y
        w2 = wx * wx + wy * wy
        if not (w2 + 16.0 * e <= SURELY):
            verdict = judge(w2, e, abs(zx) + abs(zy), proof)
            if verdict != INSIDE:
                return verdict, n, m, x, y, e, dx, dy
        if n >= max_iter:
            return INSIDE, n, m, x, y, e, dx, dy
        if coarse > 0.0 and e * e > coarse * w2:
            return UNCLEAR, n, m, x, y, e, dx, dy
        z2 = x * x + y * y
        if w2 < z2 or m == last:
            # (rebase): the same orbit, as the offset from the reference's start
            x, y, z2 = wx, wy, w2
            if proof:
                e += 2.0 * U * (abs(zx) + abs(zy) + abs(wx) + abs(wy))
            zx, zy, m = 0.0, 0.0, 0
        if z2 < 2.0 ** (2 * LOW):
            return ELSEWHERE, n, m, x, y, e, dx, dy
        if (m - 1) & ((1 << LOWEST) - 1) == 0:
            row, level = longest(flat, first, last, m, z2, x, y, e, c_size, eta)
            if row >= 0:
                if proof:
                    e = jump_error(
                        flat[row, H], flat[row, G], flat[row, NA], flat[row, NB], abs(x) + abs(y), c_size, e, eta
                    )
                if coarse > 0.0:
                    dx, dy = jump_slope(flat, row, x, y, dx, dy, cx, cy)
                x, y = jump(flat, row, x, y, cx, cy)
                n += 1 << LOWEST + level
                m += 1 << LOWEST + level
                if n > max_iter:  # none on the way there has escaped
                    return INSIDE, max_iter, m, x, y, e, dx, dy
                continue
        sx, sy = (zx + zx) + x, (zy + zy) + y
        nx, ny = (sx * x - sy * y) + ux, (sx * y + sy * x) + uy
        if proof:
            e = step_error(math.sqrt(w2), sx, sy, x, y, nx, ny, e)
        if coarse > 0.0:
            dx, dy = 2.0 * (wx * dx - wy * dy) + unit, 2.0 * (wx * dy + wy * dx)
        x, y = nx, ny
        n += 1
        m += 1


@inlined
def tail(end, i, n, x, y, dx, dy, cx, cy, unit):
    """Follow w = x + iy from the escape at n to the bailout, c = cx + i cy; into column i of `end`.

    Rows of `end`: w and its slope, and the step. False if it lingers.
    """
    for _ in range(TAIL):
        if x * x + y * y > BAILOUT * BAILOUT:
            break
        dx, dy = 2.0 * (x * dx - y * dy) + unit, 2.0 * (x * dy + y * dx)
        x, y = (x * x - y * y) + cx, 2.0 * x * y + cy
        n += 1
    end[0, i], end[1, i], end[2, i], end[3, i], end[4, i] = x, y, dx, dy, n
    return x * x + y * y > BAILOUT * BAILOUT


@inlined
def follow_sample(table, flat, cx, cy, unit, max_iter, eta, proof, coarse, end, i):
    """(verdict, n) of the sample (cx + i cy) 2^unit from the reference; how it ends into column i of `end`."""
    size = pow2(unit)
    n, m = 1, 1
    x, y, s, e, dx = normal(cx, cy, unit, 0.0)
    dy = 0.0
    while True:
        verdict, n, m, x, y, s, e, dx, dy = far(
            table, n, m, x, y, s, e, dx, dy, cx, cy, unit, max_iter, eta, proof, coarse
        )
        f = pow2(s)
        x, y, e, dx, dy = x * f, y * f, e * f, dx * f, dy * f
        if verdict != ELSEWHERE:
            break
        verdict, n, m, x, y, e, dx, dy = near(
            table, flat, n, m, x, y, e, dx, dy, cx, cy, size, max_iter, eta, proof, coarse
        )
        if verdict != ELSEWHERE:
            break
        f = pow2(-LOW)
        x, y, s, e, g = normal(x * f, y * f, LOW, e * f)
        dx, dy = dx * f * g, dy * f * g
        if m == 0:
            x, y, s, e, dx, dy = step_far(0.0, 0.0, NOTHING, NOTHING, x, y, s, e, dx, dy, cx, cy, unit, proof)
            n += 1
            m = 1
    if coarse > 0.0 and verdict == ESCAPED:
        zx, zy = table.z[m].real, table.z[m].imag
        c = table.z[1]
        if not tail(end, i, n, zx + x, zy + y, dx, dy, c.real + cx * size, c.imag + cy * size, size) and proof:
            verdict = UNCLEAR
    return verdict, n


@compiled(
    TABLE,
    types.float64[:, ::1],
    *POINTS,
    types.int64,
    types.int64,
    types.float64,
    types.boolean,
    types.float64,
    *RESULTS,
)
def first_pass(table, flat, cx, cy, unit, max_iter, eta, proof, coarse, counts, unclear, end):
    """Counts of the samples (cx + i cy) 2^unit; `unclear` says which are not proven.

    With `coarse` above 0, how they end as well (`tail`), their slope d/dc with c in units of 2^unit.
    """
    for i in range(cx.size):
        verdict, counts[i] = follow_sample(table, flat, cx[i], cy[i], unit, max_iter, eta, proof, coarse, end, i)
        unclear[i] = verdict == UNCLEAR
