"""Samples that are the sums of two axes, and known to be: a GPU makes them from these."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Axes = tuple[NDArray[np.float64], NDArray[np.float64]]
"""x (columns) and y (rows)"""


class _OuterSum(np.ndarray[Any, np.dtype[np.complex128]]):
    axes: Axes | None = None


def outer_sum(c: NDArray[np.complex128], axes: Axes) -> NDArray[np.complex128]:
    """The samples c[i, j] = x[j] + 1j * y[i], read-only, as a plain array whose `axes_of` are these.

    Its parts, copies and what is computed from it have none: they have another `base`.
    """
    samples = c.view(_OuterSum)
    samples.axes = axes
    samples.flags.writeable = False
    return samples.view(np.ndarray)


def axes_of(c: NDArray[np.complex128]) -> Axes | None:
    """The axes of samples that `outer_sum` gave, else None."""
    whole = isinstance(c.base, _OuterSum) and c.base.shape == c.shape and c.base.strides == c.strides
    return c.base.axes if whole else None  # type: ignore[union-attr]
