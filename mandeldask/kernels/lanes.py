"""The escape-time loop compiled by Numba: several samples side by side, so that LLVM fills the CPU's vector lanes.

One sample's steps depend on each other and leave most of the CPU idle (9 cycles a step); LANES samples that step
together do not. Every lane does the contract's operations in the contract's order, so the bits are the contract's:
Numba neither reassociates nor contracts unless told to (`fastmath`, which stays off).
"""

from __future__ import annotations

from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels import BlockFunction

LANES = 64  # eight AVX-512 vectors, or sixteen of AVX2
STEPS = 8  # between two looks at whether any lane still runs


def make(max_iter: int) -> BlockFunction:
    return partial(escape_time, max_iter=max_iter)


def escape_time(c: NDArray[np.complex128], max_iter: int) -> NDArray[np.int32]:
    """Escape times of `c`: the smallest n with |z_n| > 2, at most `max_iter`."""
    n = np.empty(c.shape, np.int32)
    _escape_time(np.ascontiguousarray(c).reshape(-1), max_iter, n.reshape(-1))
    return n


@numba.njit(nogil=True, error_model="numpy")
def _advance(cx, cy, x, y, n, alive):  # type: ignore[no-untyped-def]
    """STEPS steps of every lane, counting those before it escapes; and tell whether any is left."""
    for k in range(LANES):  # branch-free, so that LLVM turns it into vector instructions
        u, v, count, live = x[k], y[k], n[k], alive[k]
        for _ in range(STEPS):
            u2, v2, uv = u * u, v * v, u * v
            live = live if u2 + v2 <= 4.0 else 0.0
            count += live
            u, v = (u2 - v2) + cx[k], (uv + uv) + cy[k]
        x[k], y[k], n[k], alive[k] = u, v, count, live
    for k in range(LANES):  # noqa: SIM110 (any() over a generator does not compile)
        if alive[k]:
            return True
    return False


READ_ONLY = numba.types.Array(numba.complex128, 1, "C", readonly=True)  # a block may be: da.full's is


@numba.njit(numba.void(READ_ONLY, numba.int64, numba.int32[::1]), nogil=True, cache=True, error_model="numpy")
def _escape_time(c, max_iter, out):  # type: ignore[no-untyped-def]
    cx, cy, x, y = np.empty(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES)
    n, alive = np.empty(LANES), np.empty(LANES)
    for first in range(0, c.size, LANES):
        size = min(LANES, c.size - first)
        for k in range(LANES):
            sample = c[first + min(k, size - 1)]  # spare lanes repeat the last sample
            cx[k], cy[k] = sample.real, sample.imag
        x[:], y[:], n[:], alive[:] = 0.0, 0.0, 0.0, 1.0
        step = 0
        while step < max_iter and _advance(cx, cy, x, y, n, alive):
            step += STEPS
        for k in range(size):  # the last round may step past max_iter: a lane that outlives it counts no more
            out[first + k] = min(max_iter, np.int64(n[k]))
