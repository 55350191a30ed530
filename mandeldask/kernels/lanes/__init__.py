"""The escape-time loop compiled by Numba into explicit vector instructions: the fast kernel.

The ideas, each exact, and where they live:

- `vectors`: formulas that become vector instructions, 32 samples side by side, without fused multiply-add except where
  it cannot change a bit.
- `steps`: single checked steps for the first 16 iterations, when most samples escape; then blocks of 24 steps with one
  look at the end, as an escaped orbit never comes back, and a roll-back to the block's start for the exact count; an
  orbit that repeats a state bit for bit is periodic, and never escapes.
- Here: a block is taken tile by tile; the samples that are left after the first steps are moved together in a list, so
  that no vector carries dead lanes along.
- `mandeldask.kernels.shortcuts`: samples that provably never escape.

Compilation (3 s) happens once per machine, on import: the machine code is cached on disk by Numba, keyed by the CPU it
is for. Whoever makes a block function imports this module, and so does a worker that unpickles one.
"""

# mypy: disable-error-code="call-arg"
# (an intrinsic is called without its first parameter)

from __future__ import annotations

import threading
from typing import Any

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.fields import EXTRA_STEPS, Orbit
from mandeldask.kernels.lanes.steps import (
    CX,
    CY,
    FIRST,
    ID,
    LANE_ROWS,
    LATE_ROWS,
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
_samples = types.Array(types.complex128, 1, "C", readonly=True, aligned=False)
_counts, _rows = types.int32[::1], types.float64[:, ::1]
_scratch_types = _rows, _rows, types.int64[:, ::1], types.complex128[::1], _counts

_kept = threading.local()  # scratch is made once a thread: fresh memory costs a page fault every 4 kB
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


@compiled(_samples, types.int64, types.int32, _counts, *_scratch_types)
def _escape_time(c, max_iter, at_end, out, lanes, late, counts, rest_c, rest_out):  # type: ignore[no-untyped-def]
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


@compiled(_samples, types.int64, _counts, types.int64, _rows, types.int64[::1])
def _outside(c, max_iter, counts, last, z, n):  # type: ignore[no-untyped-def]
    """Where the orbits of `c`, a whole number of groups, end: into z and n; see `outside_steps`."""
    for first in range(0, c.size, SIZE):
        outside_steps(c, counts, first, max_iter, last, z, n)


def count(c: NDArray[np.complex128], max_iter: int, at_end: int, out: NDArray[np.int32]) -> None:
    """Escape times of flat `c` into flat `out`; `at_end` for who neither escapes nor is known to stay."""
    _escape_time(c, max_iter, at_end, out, *_scratch())


def outside(c: NDArray[np.complex128], max_iter: int, counts: NDArray[np.int32]) -> Orbit:
    """The orbits of the samples with counts below max_iter, out to the larger bailout."""
    size = -(-c.size // SIZE) * SIZE  # whole groups
    samples, times = np.zeros(size, complex), np.full(size, max_iter, np.int32)
    samples[: c.size], times[: c.size] = c, counts
    last = int(counts[counts < max_iter].max(initial=0)) + EXTRA_STEPS
    z, n = np.empty((4, size)), np.empty(size, np.int64)
    _outside(samples, max_iter, times, last, z, n)
    x, y, dx, dy = z[:, : c.size]
    return Orbit(x, y, dx, dy, n[: c.size])


def _scratch() -> tuple[Any, ...]:
    """The last arguments of `_escape_time`: 1 MB for blocks of any size."""
    if not hasattr(_kept, "scratch"):
        columns = TILE + 2 * SIZE  # a list grows by a tile on top of less than a group; a group may run over
        lanes, late = np.empty((LANE_ROWS, columns)), np.empty((LATE_ROWS, columns))
        _kept.scratch = lanes, late, late.view(np.int64), np.empty(SIZE, complex), np.empty(SIZE, np.int32)
    return _kept.scratch  # type: ignore[no-any-return]
