"""View -> complex grid: a chunked Dask array of complex128, made lazily on the workers from global indices."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.view import Range, View


def complex_grid(view: View, chunks: Any = "auto", window: tuple[Range, Range] | None = None) -> da.Array:
    """The samples of `view` as a lazy Dask array of complex128, shape (rows, columns), y ascending.

    Parameters
    ----------
    view : View
    chunks : anything that Dask takes as chunks
        Block shapes; a block of r x c samples takes 16 r c bytes on the worker that makes it.
    window : ((first row, end), (first column, end)), optional
        Only these global indices, for a part of a view too large to hold: the samples have the bits that they have in
        the whole grid.
    """
    ranges = window or ((0, view.shape[0]), (0, view.shape[1]))
    shape = tuple(end - first for first, end in ranges)
    try:
        blocks = da.core.normalize_chunks(chunks, shape, dtype=np.complex128)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ConfigError(f"chunks must be what Dask takes, such as (500, 500); got {chunks!r} ({error})") from None
    edges = tuple(tuple(accumulate(sizes, initial=first)) for sizes, (first, _) in zip(blocks, ranges, strict=True))
    return da.map_blocks(
        _block,
        view=view,
        edges=edges,
        chunks=blocks,
        dtype=np.complex128,
        meta=np.empty((0, 0), np.complex128),
        name=f"complex-grid-{tokenize(view, edges)}",
    )


def _block(view: View, edges: tuple[tuple[int, ...], ...], block_id: tuple[int, int]) -> NDArray[np.complex128]:
    rows, columns = ((edge[i], edge[i + 1]) for edge, i in zip(edges, block_id, strict=True))
    return view.block(rows, columns)
