"""What runs on the device: first, unchecked and checked steps, and the steps to the larger bailout.

A sample under way is an item of a list, in no order: its number `at`, and (z, n), where z = z_n and none of
z_0 ... z_(n-1) has escaped; or n = REPEATS. Samples come as real and imaginary parts in turns. The threads share out
the samples, or the items of the list, in turns.

Who neither escapes nor is known to stay gets the escape time `at_end`: max_iter, or another number to tell them by.

Compilers for GPUs fuse a product and a sum where they may. They may not where the product says how it rounds, as `mul`
does. What is left fused has a power of two for a factor, which leaves the bits alone. `scripts/check_cuda --code` looks
whether that is all.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,attr-defined"
# (numba-cuda has no annotations)

from __future__ import annotations

import math

import numpy as np
from numba import config, cuda

from mandeldask.kernels.fields import BAILOUT, EXTRA_STEPS
from mandeldask.kernels.shortcuts import LOOK, never_escapes, never_returns, renewal, round_steps

FIRST = 17  # where the checked steps end, as numba's: 80 % of the whole set's surroundings have escaped
BLOCK = 64  # steps between two looks at whether a sample has escaped
REPEATS = 0
LIVE, TAKEN = 0, 1  # the counters: samples on the list, and how many of them threads have taken up

if config.ENABLE_CUDASIM:

    def mul(a, b):
        return a * b

    def inlined(function):
        return function
else:
    from numba.cuda.libdevice import dmul_rn as mul

    inlined = cuda.jit(device=True, inline="always")

round_steps_here, renewal_here, never_returns_here, never_escapes_here = map(
    cuda.jit(device=True), (round_steps, renewal, never_returns, never_escapes)
)


@inlined
def _square(t):
    return mul(t, t)


@inlined
def _twice_plus(t, c):
    """(t + t) + c to the bit, in one operation.

    2t is exact, so both round once. Where it is infinite, so is the fused result, as c is small beside it.
    """
    return cuda.fma(2.0, t, c)


@inlined
def _step(x, y, cx, cy):
    return (_square(x) - _square(y)) + cx, _twice_plus(mul(x, y), cy)


@inlined
def _inside(x, y):
    return _square(x) + _square(y) <= 4.0


@cuda.jit
def outer_sum(x, y, start, c):
    """Samples from number `start` on of the block whose axes are x and y."""
    for k in range(cuda.grid(1), c.size // 2, cuda.gridsize(1)):
        row, column = divmod(start + k, x.size)
        c[2 * k], c[2 * k + 1] = x[column], y[row]


@cuda.jit
def first_steps(c, max_iter, at_end, out, counters, at, zx, zy, zn):
    """Escape times of the samples that escape early, or provably never; who is left goes on the list, at step FIRST.

    The few samples far out are finished here: their orbits might come back.
    """
    for k in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        cx, cy = float(c[2 * k]), float(c[2 * k + 1])
        x, y, n = cx, cy, 1
        last = min(FIRST, max_iter) if never_returns_here(cx, cy, _square) else max_iter
        while n < last and _inside(x, y):
            x, y = _step(x, y, cx, cy)
            n += 1
        if n < max_iter and _inside(x, y):
            n = max_iter
            if not never_escapes_here(cx, cy, math.sqrt, _square):
                place = cuda.atomic.add(counters, LIVE, 1)
                at[place], zx[place], zy[place], zn[place] = k, x, y, last
        elif n == max_iter:
            n = at_end
        out[k] = n


@inlined
def _renewal_for_counts(n):
    return n + (n >> 1)


@inlined
def _renewal_for_proofs(n):
    return renewal_here(n, round_steps_here)


def _unchecked(block, renew):
    """Blocks of steps, with one look at the end, until each sample on the list is where checked steps go on.

    That is before the block in which it escapes or reaches max_iter. A thread that is done with a sample takes up the
    next, so that no warp carries finished ones along. A block of threads is one warp: it goes on together, until none
    has work. `renew` tells at which step another state takes the place of the one saved at step n.
    """

    @cuda.jit
    def unchecked_steps(c, max_iter, counters, at, zx, zy, zn):
        live = counters[LIVE]
        place = -1
        n, renewed_at = max_iter, 0
        x = y = cx = cy = saved_x = saved_y = 0.0
        while cuda.syncthreads_or(np.int32(place < live)):
            if place < live and n + block > max_iter:
                place = cuda.atomic.add(counters, TAKEN, 1)
                if place < live:
                    cx, cy = float(c[2 * at[place]]), float(c[2 * at[place] + 1])
                    x, y, n = float(zx[place]), float(zy[place]), int(zn[place])
                    saved_x, saved_y, renewed_at = x, y, renew(n)
            if n + block <= max_iter:
                last_x, last_y = x, y
                for _ in range(block):
                    x, y = _step(x, y, cx, cy)
                stays, repeats = _inside(x, y), x == saved_x and y == saved_y
                if stays:
                    last_x, last_y, n = x, y, n + block
                if not stays or repeats or n + block > max_iter:
                    zx[place], zy[place], zn[place] = last_x, last_y, REPEATS if repeats else n
                    n = max_iter
                elif n >= renewed_at:
                    saved_x, saved_y, renewed_at = x, y, renew(n)

    return unchecked_steps


unchecked_steps = _unchecked(BLOCK, _renewal_for_counts)
# Finds the cycles that numba finds, and takes up to twice as long
proving_steps = _unchecked(LOOK, _renewal_for_proofs)


@cuda.jit
def checked_steps(c, max_iter, at_end, out, counters, at, zx, zy, zn):
    """Escape times of all on the list but those that repeat, which have theirs."""
    for place in range(cuda.grid(1), counters[LIVE], cuda.gridsize(1)):
        k, n = at[place], int(zn[place])
        if n == REPEATS:
            continue
        cx, cy = float(c[2 * k]), float(c[2 * k + 1])
        x, y = float(zx[place]), float(zy[place])
        while n < max_iter and _inside(x, y):
            x, y = _step(x, y, cx, cy)
            n += 1
        out[k] = n if n < max_iter else at_end


@cuda.jit
def outside_steps(c, max_iter, counts, z, steps):
    """Where orbit and derivative of the samples with counts below max_iter pass the bailout; see `Orbit`."""
    for k in range(cuda.grid(1), counts.size, cuda.gridsize(1)):
        cx, cy = float(c[2 * k]), float(c[2 * k + 1])
        x, y, dx, dy, n = cx, cy, 1.0, 0.0, 1
        last = int(counts[k]) + EXTRA_STEPS if counts[k] < max_iter else 0
        while n <= last and _square(x) + _square(y) <= BAILOUT * BAILOUT:
            slope_x, slope_y = mul(x, dx) - mul(y, dy), mul(x, dy) + mul(y, dx)
            dx, dy = _twice_plus(slope_x, 1.0), slope_y + slope_y
            x, y = _step(x, y, cx, cy)
            n += 1
        if n > last:
            x = y = dx = dy = math.nan
        z[0, k], z[1, k], z[2, k], z[3, k], steps[k] = x, y, dx, dy, n
