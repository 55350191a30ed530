"""The fast kernel's way through a block, tile by tile: first steps, then rounds over a list of the lanes left."""

# mypy: disable-error-code="call-arg"
# (an intrinsic is called without its first parameter)

from __future__ import annotations

import numba
from numba import types

from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.lanes.steps import (
    CX,
    CY,
    FIRST,
    ID,
    SX,
    SY,
    N,
    X,
    Y,
    checked_steps,
    first_steps,
    outside_steps,
    unchecked_steps,
)
from mandeldask.kernels.lanes.vectors import SIZE
from mandeldask.kernels.shortcuts import LOOK, renewal, round_steps

TILE = 8192  # samples on the list at a time: the two lists stay within a second-level cache of 1 MiB
FIRST_TIMES = 8  # 16 checked steps: by then 80 % of the whole set's surroundings have escaped

# Blocks may come from a read-only buffer of another process, at any address.
SAMPLES = types.Array(types.complex128, 1, "C", readonly=True, aligned=False)
COUNTS, ROWS = types.int32[::1], types.float64[:, ::1]

_inner = numba.njit(nogil=True, error_model="numpy")
_round_steps, _renewal = _inner(round_steps), _inner(renewal)


@_inner
def _finish(late, counts, k, max_iter, at_end, out):  # type: ignore[no-untyped-def]
    """Finish the first k lanes of the list `late`, and put their escape times, or `at_end`, where they belong."""
    for first in range(0, k, SIZE):
        checked_steps(late, first, max_iter)
    for lane in range(k):
        n = counts[N, lane]
        out[counts[ID, lane]] = n if n < max_iter else at_end


@_inner
def _pad(lanes, m, value):  # type: ignore[no-untyped-def]
    """Fill the list up to a whole group: with 0, which repeats at once, or with 3, which has escaped."""
    for row in range(lanes.shape[0]):
        for lane in range(m, m + SIZE):
            lanes[row, lane] = value


@_inner
def _finish_whole_groups(late, counts, k, max_iter, at_end, out):  # type: ignore[no-untyped-def]
    """Finish the list but for its last lanes, which wait for a group to be full; how many wait."""
    full = k - k % SIZE
    _finish(late, counts, full, max_iter, at_end, out)
    for row in range(late.shape[0]):
        for lane in range(k - full):
            late[row, lane] = late[row, full + lane]
    return k - full


@_inner
def _begin(c, start, stop, max_iter, times, out, lanes, late, k, rest_c, rest_out):  # type: ignore[no-untyped-def]
    """First steps of the samples start:stop; how many are on the two lists then."""
    m = 0
    for first in range(start, stop - SIZE + 1, SIZE):
        m, k = first_steps(c, out, first, first, times, max_iter, lanes, m, late, k)
    rest = (stop - start) % SIZE
    if rest:
        first = stop - rest
        for i in range(SIZE):
            rest_c[i] = c[first + i] if i < rest else 4.0  # which escapes at once
        m, k = first_steps(rest_c, rest_out, 0, first, times, max_iter, lanes, m, late, k)
        for i in range(rest):
            out[first + i] = rest_out[i]
    return m, k


@_inner
def _rounds(lanes, m, late, counts, k, n, max_iter, at_end, out):  # type: ignore[no-untyped-def]
    """Unchecked steps of the m lanes on the list, all at step n, until less than a block is to go; the new m, k and n.

    The lanes still there have max_iter in `out` already, and keep it unless they escape.
    """
    renewed_at = _renewal(n, _round_steps)
    while m > 0 and n + LOOK <= max_iter:
        blocks = min(_round_steps(n), max_iter - n) // LOOK
        _pad(lanes, m, 0.0)
        left = 0
        for first in range(0, m, SIZE):
            left, k = unchecked_steps(lanes, first, left, late, k, n, blocks)
        m = left
        n += blocks * LOOK
        k = _finish_whole_groups(late, counts, k, max_iter, at_end, out)
        if n == renewed_at:
            for lane in range(m):
                lanes[SX, lane], lanes[SY, lane] = lanes[X, lane], lanes[Y, lane]
            renewed_at = _renewal(n, _round_steps)
    return m, k, n


@_inner
def _hand_over(lanes, m, late, counts, k, n):  # type: ignore[no-untyped-def]
    """Move the m lanes on the list, all at step n, to the list `late`; its new length."""
    for lane in range(m):
        for row in (X, Y, CX, CY, ID):
            late[row, k + lane] = lanes[row, lane]
        counts[N, k + lane] = n
    return k + m


@compiled(SAMPLES, types.int64, types.int32, COUNTS, ROWS, ROWS, types.int64[:, ::1], types.complex128[::1], COUNTS)
def escape_time(c, max_iter, at_end, out, lanes, late, counts, rest_c, rest_out):  # type: ignore[no-untyped-def]
    """Escape times of `c` into `out`, both flat. Scratch: two lists, and a group for the last samples of the block.

    `counts` is `late` read as integers. From a max_iter of 32 on, who neither escapes nor is known to stay gets
    `at_end`.
    """
    times = min(FIRST_TIMES, max(1, (max_iter + FIRST - 2) // FIRST))
    k = 0
    for start in range(0, c.size, TILE):
        stop = min(c.size, start + TILE)
        m, k = _begin(c, start, stop, max_iter, times, out, lanes, late, k, rest_c, rest_out)
        m, k, n = _rounds(lanes, m, late, counts, k, 1 + times * FIRST, max_iter, at_end, out)
        k = _hand_over(lanes, m, late, counts, k, n)
        k = _finish_whole_groups(late, counts, k, max_iter, at_end, out)
    _pad(late, k, 3.0)
    _finish(late, counts, k, max_iter, at_end, out)


@compiled(SAMPLES, types.int64, COUNTS, types.int64, ROWS, types.int64[::1])
def outside(c, max_iter, counts, last, z, n):  # type: ignore[no-untyped-def]
    """Where the orbits of `c`, a whole number of groups, end: into z and n; see `outside_steps`."""
    for first in range(0, c.size, SIZE):
        outside_steps(c, counts, first, max_iter, last, z, n)
