from __future__ import annotations

from functools import partial
import threading
import numba
import numpy as np
from mandeldask.kernels.lanes import phases
from mandeldask.kernels.lanes.steps import LANE_ROWS, SIZE

_local = threading.local()

c16 = numba.types.Array(numba.types.complex128, 1, "C", readonly=True, aligned=False)
_run = numba.njit((c16, numba.int64, numba.int32[::1], numba.float64[:, ::1], numba.float64[:, ::1], numba.int64[:, ::1], numba.complex128[::1], numba.int32[::1]), nogil=True, error_model="numpy", cache=True)(phases.escape_time.py_func)


def make(max_iter):
    return partial(escape_time, max_iter=max_iter)


def _scratch():
    if not hasattr(_local, "scratch"):
        late = np.empty((6, phases.TILE + 2 * SIZE))
        _local.scratch = (np.empty((LANE_ROWS, phases.TILE + 2 * SIZE)), late, late.view(np.int64), np.empty(SIZE, complex), np.empty(SIZE, np.int32))
    return _local.scratch


def escape_time(c, max_iter):
    out = np.empty(c.shape, np.int32)
    _run(c.reshape(-1), max_iter, out.reshape(-1), *_scratch())
    return out
