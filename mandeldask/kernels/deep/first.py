"""The first pass: offsets as plain doubles, or as extended numbers far below 1, with a bound on their error.

A sample is followed as z, the offset of its orbit from the reference's at m: the orbit itself is at Z_m + z. Always
e >= |computed z - exact z|. The inequalities are README's, by the names they have there.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from collections.abc import Callable

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
def jump_error(h, g, a, b, q, c_size, e, eta):
    """(jump): e' = a e (1 + 4.5 eta_max) + (1.02 eta^2 + 16 U) (a q + b |c|)."""
    here = h * q + g * c_size
    return a * e * (1.0 + 4.5 * eta + 2.0**-40) + (1.02 * here * here + 16.0 * U) * (a * q + b * c_size) + LEAST


@inlined
def step_error(w, sx, sy, x, y, nx, ny, e):
    """(step): e' = (2 |w| + e + g) e + 5 g q + 2 U |z'|_1, g = U (|2Z + z|_1 + q), q = |z|_1."""
    q = abs(x) + abs(y)
    g = U * (abs(sx) + abs(sy) + q)
    return (2.0 * w + e + g) * e * GROW + 5.0 * g * q + 2.0 * U * (abs(nx) + abs(ny)) + 2.0**-1000


@inlined
def near(table, flat, n, m, x, y, e, cx, cy, unit, max_iter, eta, proof):
    """Follow z in plain doubles until it is decided, or ELSEWHERE: too small for them."""
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
                return verdict, n, m, x, y, e
        if n >= max_iter:
            return INSIDE, n, m, x, y, e
        z2 = x * x + y * y
        if w2 < z2 or m == last:
            # (rebase): the same orbit, as the offset from the reference's start
            x, y, z2 = wx, wy, w2
            if proof:
                e += 2.0 * U * (abs(zx) + abs(zy) + abs(wx) + abs(wy))
            zx, zy, m = 0.0, 0.0, 0
        if z2 < 2.0 ** (2 * LOW):
            return ELSEWHERE, n, m, x, y, e
        if (m - 1) & ((1 << LOWEST) - 1) == 0:
            row, level = longest(flat, first, last, m, z2, x, y, e, c_size, eta)
            if row >= 0:
                if proof:
                    e = jump_error(
                        flat[row, H], flat[row, G], flat[row, NA], flat[row, NB], abs(x) + abs(y), c_size, e, eta
                    )
                x, y = jump(flat, row, x, y, cx, cy)
                n += 1 << LOWEST + level
                m += 1 << LOWEST + level
                if n > max_iter:  # none on the way there has escaped
                    return INSIDE, max_iter, m, x, y, e
                continue
        sx, sy = (zx + zx) + x, (zy + zy) + y
        nx, ny = (sx * x - sy * y) + ux, (sx * y + sy * x) + uy
        if proof:
            e = step_error(math.sqrt(w2), sx, sy, x, y, nx, ny, e)
        x, y = nx, ny
        n += 1
        m += 1


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
def jump_far(t, p, k, x, y, s, e, cx, cy, unit, eta, proof):
    """`jump` and `jump_error` with the table's own exponents."""
    fh, fg = pow2(p[k, EH] + s), pow2(p[k, EG] + unit)
    u = (t[k, QX] * x - t[k, QY] * y) * fh + (t[k, RX] * cx - t[k, RY] * cy) * fg
    v = (t[k, QX] * y + t[k, QY] * x) * fh + (t[k, RX] * cy + t[k, RY] * cx) * fg
    px, py = x + (u * x - v * y), y + (u * y + v * x)
    bx, by = t[k, BX] + (t[k, SX] * cx - t[k, SY] * cy) * fg, t[k, BY] + (t[k, SX] * cy + t[k, SY] * cx) * fg
    top = max(p[k, EA] + s, p[k, EB] + unit)
    fa, fb = pow2(p[k, EA] + s - top), pow2(p[k, EB] + unit - top)
    nx = (t[k, AX] * px - t[k, AY] * py) * fa + (bx * cx - by * cy) * fb
    ny = (t[k, AX] * py + t[k, AY] * px) * fa + (bx * cy + by * cx) * fb
    if proof:
        e = jump_error(
            t[k, H] * fh, t[k, G] * fg, t[k, NA] * fa, t[k, NB] * fb, abs(x) + abs(y), abs(cx) + abs(cy), e, eta
        )
    return normal(nx, ny, top, e)


@inlined
def step_far(zx, zy, zs, ze, x, y, s, e, cx, cy, unit, proof):
    """One step, (2Z + z) z + c with Z = (zx + i zy) 2^zs below 2^ze, and (step) in units of the result."""
    t = max(ze, s)
    fz, f = pow2(zs - t), pow2(s - t)
    sx, sy = 2.0 * zx * fz + x * f, 2.0 * zy * fz + y * f
    top = max(t + s, unit)
    fp, fc = pow2(t + s - top), pow2(unit - top)
    nx, ny = (sx * x - sy * y) * fp + cx * fc, (sx * y + sy * x) * fp + cy * fc
    if proof:
        ww = math.sqrt((sx + x * f) ** 2 + (sy + y * f) ** 2)  # 2w = (2Z + z) + z
        q = abs(x) + abs(y)
        g = U * (abs(sx) + abs(sy) + q * f)
        e = (ww + e * f + 3.0 * g) * e * fp * GROW + 5.0 * g * q * fp + 2.0 * U * (abs(nx) + abs(ny)) + LEAST
    return normal(nx, ny, top, e)


@inlined
def far(table, n, m, x, y, s, e, cx, cy, unit, max_iter, eta, proof):
    """Follow z = (x + iy) 2^s, its error at most e 2^s, until it is decided, or ELSEWHERE: large enough for doubles.

    |z| < 2^-379 changes no test of Z + z against 2 that (test) does not leave to the later passes.
    """
    c_size, last = abs(cx) + abs(cy), table.z.size - 1
    while s <= HIGH:
        zx, _, zy, _, zs = parts(table, m)
        size, w2 = abs(zx) + abs(zy), zx * zx + zy * zy
        if not e < 2.0**60:  # nothing is known of z any more
            return UNCLEAR, n, m, x, y, s, e
        if zs == 0 and not w2 <= SURELY:
            verdict = judge(w2, 0.0, size, proof)
            if verdict != INSIDE:
                return verdict, n, m, x, y, s, e
        if n >= max_iter:
            return INSIDE, n, m, x, y, s, e
        # w = Z + z, in units of 2^t
        ze = zs + exponent(size) if size > 0.0 else NOTHING
        t = max(ze, s)
        fz, f = pow2(zs - t), pow2(s - t)
        wx, wy = zx * fz + x * f, zy * fz + y * f
        if wx * wx + wy * wy < (x * x + y * y) * f * f or m == last:
            if proof:
                e = e * f + 2.0 * U * (size * fz + abs(wx) + abs(wy))
            x, y, s, e = normal(wx, wy, t, e)
            zx, zy, zs, ze, m = 0.0, 0.0, NOTHING, NOTHING, 0
        elif (m - 1) & ((1 << LOWEST) - 1) == 0:
            row, level = longest_far(table, m, s, max(math.sqrt(x * x + y * y), e), c_size, unit, eta)
            if row >= 0:
                x, y, s, e = jump_far(table.terms, table.powers, row, x, y, s, e, cx, cy, unit, eta, proof)
                n += 1 << LOWEST + level
                m += 1 << LOWEST + level
                if n > max_iter:
                    return INSIDE, max_iter, m, x, y, s, e
                continue
        x, y, s, e = step_far(zx, zy, zs, ze, x, y, s, e, cx, cy, unit, proof)
        n += 1
        m += 1
    return ELSEWHERE, n, m, x, y, s, e


@inlined
def follow_sample(table, flat, cx, cy, unit, max_iter, eta, proof):
    """(verdict, n) of the sample (cx + i cy) 2^unit from the reference."""
    size = pow2(unit)
    if cx == 0.0 and cy == 0.0:
        unit = NOTHING
    n, m = 1, 1
    x, y, s, e = normal(cx, cy, unit, 0.0)
    while True:
        verdict, n, m, x, y, s, e = far(table, n, m, x, y, s, e, cx, cy, unit, max_iter, eta, proof)
        if verdict != ELSEWHERE:
            return verdict, n
        f = pow2(s)
        x, y, e = x * f, y * f, e * f
        verdict, n, m, x, y, e = near(table, flat, n, m, x, y, e, cx, cy, size, max_iter, eta, proof)
        if verdict != ELSEWHERE:
            return verdict, n
        x, y, s, e = normal(x * pow2(-LOW), y * pow2(-LOW), LOW, e * pow2(-LOW))
        if m == 0:
            x, y, s, e = step_far(0.0, 0.0, NOTHING, NOTHING, x, y, s, e, cx, cy, unit, proof)
            n += 1
            m = 1


def make_first_pass(sources: str) -> Callable[..., None]:
    """The function to compile; `sources` as in the vector kernel."""

    def first_pass(table, flat, cx, cy, unit, max_iter, eta, proof, counts, unclear):
        """Counts of the samples (cx + i cy) 2^unit; `unclear` says which are not proven."""
        _ = sources
        for i in range(cx.size):
            verdict, n = follow_sample(table, flat, cx[i], cy[i], unit, max_iter, eta, proof)
            counts[i] = n
            unclear[i] = verdict == UNCLEAR

    return first_pass
