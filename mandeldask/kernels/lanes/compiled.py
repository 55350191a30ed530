"""What Numba compiles of the fast kernel, for which types."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.lanes import phases
from mandeldask.kernels.lanes.steps import LANE_ROWS, LATE_ROWS
from mandeldask.kernels.lanes.vectors import SIZE

SOURCES = ("kernels/shortcuts.py", "kernels/fields.py", "kernels/lanes/vectors.py", "kernels/lanes/steps.py")

# Blocks may come from a read-only buffer of another process, at any address.
_samples = types.Array(types.complex128, 1, "C", readonly=True, aligned=False)
_counts, _rows, _numbers = types.int32[::1], types.float64[:, ::1], types.int64[:, ::1]


def scratch() -> tuple[Any, ...]:
    """The last arguments of `escape_time`: 1 MB for blocks of any size."""
    columns = phases.TILE + 2 * SIZE  # a list grows by a tile on top of less than a group; a group may run over
    lanes, late = np.empty((LANE_ROWS, columns)), np.empty((LATE_ROWS, columns))
    return lanes, late, late.view(np.int64), np.empty(SIZE, complex), np.empty(SIZE, np.int32)


_group = types.complex128[::1], _counts
escape_time = compiled(
    phases.make_escape_time, SOURCES, _samples, types.int64, types.int32, _counts, _rows, _rows, _numbers, *_group
)
outside = compiled(phases.make_outside, SOURCES, _samples, types.int64, _counts, types.int64, _rows, types.int64[::1])
