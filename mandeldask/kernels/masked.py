"""The lesson's masked loop in NumPy: readable, and the reference for all other kernels.

The lesson squares complex numbers. NumPy's complex multiply uses fused multiply-add where the CPU has it, which
changes some escape times from one CPU to the next; real adds, subtracts and multiplies are each rounded once,
everywhere alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels.block import BlockFunction
from mandeldask.kernels.fields import outside


def make(max_iter: int, fields: tuple[str, ...] = ("escape_time",)) -> BlockFunction:
    return BlockFunction(count, outside, max_iter, fields)


def count(c: NDArray[np.complex128], max_iter: int, n: NDArray[np.int32]) -> None:
    """Escape times of `c` into `n`: the smallest n with |z_n| > 2, at most `max_iter`."""
    x, y = np.zeros(c.shape), np.zeros(c.shape)
    n[...] = 0
    with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN are samples like any other
        for _ in range(max_iter):
            inside = x * x + y * y <= 4
            if not inside.any():
                break
            u, v = x[inside], y[inside]
            x[inside] = (u * u - v * v) + c.real[inside]
            y[inside] = (u * v + u * v) + c.imag[inside]
            n[inside] += 1
