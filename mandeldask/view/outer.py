"""Samples that know that they are the sums of two axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Axes = tuple[NDArray[np.float64], NDArray[np.float64]]
"""x (columns) and y (rows)"""


class OuterSum(np.ndarray[Any, np.dtype[np.complex128]]):
    """Complex samples c[i, j] = x[j] + 1j * y[i], read-only, with their axes: a GPU makes them from these.

    Its parts, copies and what is computed from it have no axes.
    """

    axes: Axes | None = None

    @classmethod
    def of(cls, c: NDArray[np.complex128], axes: Axes) -> OuterSum:
        samples = c.view(cls)
        samples.axes = axes
        samples.flags.writeable = False
        return samples
