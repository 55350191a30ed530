"""The lesson's masked loop in NumPy: readable, and the reference for all other kernels.

The lesson squares complex numbers. NumPy's complex multiply uses fused multiply-add where the CPU has it, which
changes some escape times from one CPU to the next; real adds, subtracts and multiplies are each rounded once,
everywhere alike.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels import BlockFunction


def make(max_iter: int) -> BlockFunction:
    return partial(escape_time, max_iter=max_iter)


def escape_time(c: NDArray[np.complex128], max_iter: int) -> NDArray[np.int32]:
    """Escape times of `c`: the smallest n with |z_n| > 2, at most `max_iter`."""
    x, y = np.zeros(c.shape), np.zeros(c.shape)
    n = np.zeros(c.shape, np.int32)
    with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN are samples like any other
        for _ in range(max_iter):
            inside = x * x + y * y <= 4
            if not inside.any():
                break
            u, v = x[inside], y[inside]
            x[inside] = (u * u - v * v) + c.real[inside]
            y[inside] = (u * v + u * v) + c.imag[inside]
            n[inside] += 1
    return n
