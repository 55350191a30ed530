"""complex grid -> escape-time field: a pure Dask graph that knows no cluster and no store."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.grid import OFFSETS
from mandeldask.kernels import (
    AUTO,
    DEEP,
    EXACT_FIELDS,
    FIELDS,
    Exact,
    Kernel,
    block_function,
    choose,
    fastest,
    last_counts,
)
from mandeldask.view import View

BAND = 1 << 16  # samples that are gathered at once, so that a block needs no copy
_last = threading.local()


def escape_time(
    grid: da.Array,
    max_iter: int,
    kernel: str | Exact = AUTO,
    fields: tuple[str, ...] = ("escape_time",),
    known: da.Array | None = None,
    *,
    view: View | None = None,
) -> da.Array:
    """The escape times of `grid` as a lazy Dask array of int32 with the same shape and chunks.

    Each block is one task after fusion with the grid's own; no kernel runs while the graph is built.

    Parameters
    ----------
    grid : dask array of complex128
        `complex_grid(view)`, or any other: a rotated view, a log-polar strip, samples along a curve.
    max_iter : int
        The cap, from 1 to 2**31 - 1: a sample that has not escaped by then gets `max_iter`.
    kernel : str or Exact
        A name in `mandeldask.kernels.KERNELS`, or auto for each worker's fastest; every kernel gives the same bits. Of
        a deep view `mandeldask.kernels.Exact`, or auto.
    fields : tuple of str
        escape_time, and if wanted others of `mandeldask.kernels.FIELDS`: then the array is structured, an item a field.
    known : dask array, optional
        What a field of fewer iterations knows, with the dtype, shape and chunks of the result: its escape times are 0
        where a sample is to be computed, and all other samples are taken as they are.
    view : View, optional
        That of the grid; a deep one is needed, for samples are offsets from its origin.

    Raises
    ------
    ConfigError
        An unknown kernel, a max_iter out of range, unknown fields, a grid that is not complex128, a view that the
        kernel cannot compute.

    See Also
    --------
    mandeldask.run : to store a field. Dask's own `to_zarr` may write wrong values into shards (dask #12583).
    """
    if not isinstance(grid, da.Array) or grid.dtype != np.complex128:
        got = f"a Dask array of {grid.dtype}" if isinstance(grid, da.Array) else f"a {type(grid).__name__}"
        raise ConfigError(f"grid must be a Dask array of complex128; got {got}")
    if grid.name.startswith(OFFSETS) and view is None and not isinstance(kernel, Exact):
        raise ConfigError(
            "the grid of a deep view holds offsets from its origin: give escape_time the view too, view=..."
        )
    chosen = DEEP if isinstance(kernel, Exact) else choose(kernel, view, here=False)[0]
    function = block_function(kernel if isinstance(kernel, Exact) else chosen, max_iter, fields, view)
    dtype = dtype_of(fields, exact=chosen == DEEP)
    given = () if known is None else (known,)
    return da.map_blocks(
        Timed(function, chosen),
        grid,
        *given,
        dtype=dtype,
        meta=np.empty((0,) * grid.ndim, dtype),
        name=f"escape-time-{tokenize(grid.name, max_iter, kernel, fields, *(k.name for k in given))}",
    )


def dtype_of(fields: tuple[str, ...], exact: bool = False) -> np.dtype[Any]:
    """int32 for escape times alone, else a structured dtype with an item a field."""
    types = EXACT_FIELDS if exact else FIELDS
    return np.dtype(np.int32) if fields == ("escape_time",) else np.dtype([(name, types[name]) for name in fields])


class Taken(NamedTuple):
    """What it took to compute a block."""

    seconds: float = 0.0  # of kernel
    copied: int = 0  # iterations that were not computed, but known
    kernel: str = ""
    second: int = 0  # samples, in exact arithmetic, that the first pass could not decide
    third: int = 0  # nor the second
    unproven: int = 0


def taken() -> Taken:
    """Of this thread's last block: of the block at hand, for a function fused with `escape_time`."""
    return getattr(_last, "taken", Taken())


@dataclass(frozen=True)
class Timed:
    """A block function that notes what it took; `taken` tells.

    Given what is known of the block's samples too, it computes those whose escape time is 0 there.
    """

    function: Kernel
    kernel: str

    def __call__(self, c: NDArray[np.complex128], known: NDArray[Any] | None = None) -> NDArray[Any]:
        if self.kernel == AUTO:
            fastest.load()  # no time of the kernel
        begin = time.perf_counter()
        _last.proofs = np.zeros(3, np.int64)
        block = self._computed(c) if known is None else self._complete(c, known)
        seconds = time.perf_counter() - begin
        copied = 0 if known is None else int(_times(known).sum(dtype=np.int64))
        kernel = fastest.kernel_used() if self.kernel == AUTO else self.kernel
        _last.taken = Taken(seconds, copied, kernel, *_last.proofs.tolist())
        return block

    def _complete(self, c: NDArray[np.complex128], known: NDArray[Any]) -> NDArray[Any]:
        block = known.copy()
        unknown = _times(known) == 0
        rows = max(1, BAND * len(c) // max(1, c.size))
        for first in range(0, len(c), rows):
            band = slice(first, first + rows)
            if unknown[band].any():
                block[band][unknown[band]] = self._computed(c[band][unknown[band]])
        return block

    def _computed(self, c: NDArray[np.complex128]) -> NDArray[Any]:
        block = self.function(c)
        if self.kernel == DEEP:
            _last.proofs += last_counts()
        return block


def _times(block: NDArray[Any]) -> NDArray[np.int32]:
    return block["escape_time"] if block.dtype.names else block
