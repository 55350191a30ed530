"""Samples that are the sums of two axes, and known to be: a GPU makes them from these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Axes = tuple[NDArray[np.float64], NDArray[np.float64]]
"""x (columns) and y (rows)"""


@dataclass(frozen=True)
class _OuterSum:
    """What NumPy makes a plain array of, whose `base` this is; the base of its parts is that array."""

    samples: NDArray[np.complex128]
    axes: Axes

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.samples.__array_interface__


def outer_sum(c: NDArray[np.complex128], axes: Axes) -> NDArray[np.complex128]:
    """The samples c[i, j] = x[j] + 1j * y[i], read-only, with the axes that `axes_of` gives.

    Their parts, copies and what is computed from them have no axes.
    """
    samples = c.view()
    samples.flags.writeable = False
    return np.asarray(_OuterSum(samples, axes))


def axes_of(c: NDArray[np.complex128]) -> Axes | None:
    """The axes of samples that `outer_sum` gave, else None."""
    return c.base.axes if isinstance(c.base, _OuterSum) else None
