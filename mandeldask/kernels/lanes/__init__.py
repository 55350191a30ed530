"""The escape-time loop compiled by Numba into explicit vector instructions: the fast kernel.

The ideas, each exact, and where they live:

- `vectors`: formulas that become vector instructions, 32 samples side by side, without fused multiply-add except where
  it cannot change a bit.
- `steps`: single checked steps for the first 16 iterations, when most samples escape; then blocks of 24 steps with one
  look at the end, as an escaped orbit never comes back, and a roll-back to the block's start for the exact count; an
  orbit that repeats a state bit for bit is periodic, and never escapes.
- `phases`: the samples that are left are moved together in a list, so that no vector carries dead lanes along.
- `mandeldask.kernels.shortcuts`: samples that provably never escape.

Compilation (3 s) happens once per machine, on import: the machine code is cached on disk by Numba, keyed by the CPU it
is for. Whoever makes a block function imports this module, and so does a worker that unpickles one.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels.fields import EXTRA_STEPS, Orbit
from mandeldask.kernels.lanes import phases
from mandeldask.kernels.lanes.steps import LANE_ROWS, LATE_ROWS
from mandeldask.kernels.lanes.vectors import SIZE

_kept = threading.local()  # scratch is made once a thread: fresh memory costs a page fault every 4 kB


def count(c: NDArray[np.complex128], max_iter: int, at_end: int, out: NDArray[np.int32]) -> None:
    """Escape times of flat `c` into flat `out`; `at_end` for who neither escapes nor is known to stay."""
    phases.escape_time(c, max_iter, at_end, out, *_scratch())


def outside(c: NDArray[np.complex128], max_iter: int, counts: NDArray[np.int32]) -> Orbit:
    """The orbits of the samples with counts below max_iter, out to the larger bailout."""
    size = -(-c.size // SIZE) * SIZE  # whole groups
    samples, times = np.zeros(size, complex), np.full(size, max_iter, np.int32)
    samples[: c.size], times[: c.size] = c, counts
    last = int(counts[counts < max_iter].max(initial=0)) + EXTRA_STEPS
    z, n = np.empty((4, size)), np.empty(size, np.int64)
    phases.outside(samples, max_iter, times, last, z, n)
    x, y, dx, dy = z[:, : c.size]
    return Orbit(x, y, dx, dy, n[: c.size])


def _scratch() -> tuple[Any, ...]:
    """The last arguments of `phases.escape_time`: 1 MB for blocks of any size."""
    if not hasattr(_kept, "scratch"):
        columns = phases.TILE + 2 * SIZE  # a list grows by a tile on top of less than a group; a group may run over
        lanes, late = np.empty((LANE_ROWS, columns)), np.empty((LATE_ROWS, columns))
        _kept.scratch = lanes, late, late.view(np.int64), np.empty(SIZE, complex), np.empty(SIZE, np.int32)
    return _kept.scratch  # type: ignore[no-any-return]
