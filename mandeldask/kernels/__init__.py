"""The escape-time kernels: one contract, interchangeable, the same bits from every one.

For a sample c = cx + i cy, in IEEE binary64 with no fused multiply-add and no reassociation:

    x = y = 0; n = 0
    while n < max_iter and x*x + y*y <= 4:      # a NaN compares false: it escapes
        x, y = (x*x - y*y) + cx, (x*y + x*y) + cy
        n += 1
    escape_time = n                              # int32, 1..max_iter

`KERNELS[name]` is a factory, `make(max_iter, fields=("escape_time",), view=None) -> block function`. A block function
takes a complex128 array of any shape and gives the int32 escape times in that shape. It is pure and picklable, and
releases the GIL where it is compiled. What costs time once belongs in `make`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError

if TYPE_CHECKING:
    from mandeldask.view import View

BlockFunction = Callable[[NDArray[np.complex128]], NDArray[np.int32]]
MAX_ITER_LIMIT = 2**31 - 1


class Factory(Protocol):
    def __call__(
        self, max_iter: int, fields: tuple[str, ...] = ("escape_time",), view: View | None = None
    ) -> BlockFunction: ...


# Each factory imports its module when it is first called: a worker that runs the NumPy kernel never waits for Numba.
def _masked(max_iter: int, fields: tuple[str, ...] = ("escape_time",), view: View | None = None) -> BlockFunction:
    from mandeldask.kernels import masked

    _check(max_iter, fields, view)
    return masked.make(max_iter)


def _lanes(max_iter: int, fields: tuple[str, ...] = ("escape_time",), view: View | None = None) -> BlockFunction:
    from mandeldask.kernels import lanes

    _check(max_iter, fields, view)
    return lanes.make(max_iter)


KERNELS: dict[str, Factory] = {"numpy": _masked, "numba": _lanes}

# Peak bytes a sample while a block is computed, the complex block and the result included (tests/test_memory.py).
BYTES_PER_SAMPLE = {"numpy": 100, "numba": 24}


def _check(max_iter: int, fields: tuple[str, ...], view: View | None) -> None:
    if isinstance(max_iter, bool) or not isinstance(max_iter, int | np.integer):
        raise ConfigError(f"max_iter must be an integer; got {max_iter!r}")
    if not 1 <= max_iter <= MAX_ITER_LIMIT:
        raise ConfigError(f"max_iter must be from 1 to {MAX_ITER_LIMIT}; got {max_iter}")
    if tuple(fields) != ("escape_time",):
        raise ConfigError(f"the fields a kernel can give are [escape_time]; got {list(fields)}")
    if view is not None:
        view.check_resolved()
