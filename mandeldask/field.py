"""complex grid -> escape-time field: a pure Dask graph that knows no cluster and no store."""

from __future__ import annotations

import dask.array as da
import numpy as np
from dask.base import tokenize

from mandeldask.errors import ConfigError
from mandeldask.kernels import AUTO, KERNELS, choose


def escape_time(grid: da.Array, max_iter: int, kernel: str = AUTO) -> da.Array:
    """The escape times of `grid` as a lazy Dask array of int32 with the same shape and chunks.

    Each block is one task after fusion with the grid's own; no kernel runs while the graph is built.

    Parameters
    ----------
    grid : dask array of complex128
        `complex_grid(view)`, or any other: a rotated view, a log-polar strip, samples along a curve.
    max_iter : int
        The cap, from 1 to 2**31 - 1: a sample that has not escaped by then gets `max_iter`.
    kernel : str
        A name in `mandeldask.kernels.KERNELS`, or auto for the fastest; every kernel gives the same bits.

    Raises
    ------
    ConfigError
        An unknown kernel, a max_iter out of range, a grid that is not complex128.

    See Also
    --------
    mandeldask.run : to store a field. Dask's own `to_zarr` may write wrong values into shards (dask #12583).
    """
    if not isinstance(grid, da.Array) or grid.dtype != np.complex128:
        got = f"a Dask array of {grid.dtype}" if isinstance(grid, da.Array) else f"a {type(grid).__name__}"
        raise ConfigError(f"grid must be a Dask array of complex128; got {got}")
    name, _ = choose(kernel)
    return grid.map_blocks(
        KERNELS[name](max_iter),
        dtype=np.int32,
        meta=np.empty((0,) * grid.ndim, np.int32),
        name=f"escape-time-{tokenize(grid.name, max_iter, kernel)}",
    )
