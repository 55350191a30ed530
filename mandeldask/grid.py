"""View -> complex grid: a chunked Dask array of complex128, made lazily on the workers from global indices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from mandeldask import buffers
from mandeldask.errors import ConfigError, check_type
from mandeldask.view import Deep, Range, View
from mandeldask.view.outer import outer_sum

OFFSETS = "complex-offsets"  # what the grid of a deep view is called: its samples are not numbers c


def complex_grid(view: View, chunks: Any = "auto", window: tuple[Range, Range] | None = None) -> da.Array:
    """The samples of `view` as a lazy Dask array of complex128, shape (rows, columns), y ascending.

    Of a deep view they are offsets from its origin, in its units: give `escape_time` the view too.

    Parameters
    ----------
    view : View
    chunks : anything that Dask takes as chunks
        Block shapes; a block of r x c samples takes 16 r c bytes on the worker that makes it.
    window : ((first row, end), (first column, end)), optional
        Only these global indices, for a part of a view too large to hold: the samples have the bits that they have in
        the whole grid.

    Raises
    ------
    ConfigError
        Chunks that Dask does not take; a view that is none.
    """
    check_type("view", view, View, "a mandeldask.View, such as View(x=(-2, 1), y=(-1.5, 1.5), shape=(1000, 1000))")
    ranges = window or ((0, view.shape[0]), (0, view.shape[1]))
    shape = tuple(end - first for first, end in ranges)
    try:
        blocks = da.core.normalize_chunks(chunks, shape, dtype=np.complex128)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ConfigError(f"chunks must be what Dask takes, such as (500, 500); got {chunks!r} ({error})") from None
    edges = tuple(_edges(sizes, first) for sizes, (first, _) in zip(blocks, ranges, strict=True))
    return da.map_blocks(
        _block,
        view=view,
        edges=edges,
        ends=tuple(end for _, end in ranges),
        chunks=blocks,
        dtype=np.complex128,
        meta=np.empty((0, 0), np.complex128),
        name=f"{OFFSETS if isinstance(view.frame, Deep) else 'complex-grid'}-{tokenize(view, blocks, ranges)}",
    )


def _edges(sizes: tuple[int, ...], first: int) -> Sequence[int]:
    """The first index of each block along one axis; a range where they are regular, since each task carries it."""
    if len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0]:
        return range(first, first + len(sizes) * max(1, sizes[0]), max(1, sizes[0]))
    return tuple(accumulate(sizes[:-1], initial=first))


def _block(
    view: View, edges: tuple[Sequence[int], Sequence[int]], ends: tuple[int, int], block_id: tuple[int, int]
) -> NDArray[np.complex128]:
    rows, columns = (
        (edge[i], edge[i + 1] if i + 1 < len(edge) else end) for edge, end, i in zip(edges, ends, block_id, strict=True)
    )
    size = (rows[1] - rows[0]) * (columns[1] - columns[0])
    block = view.block(rows, columns, buffers.empty((size,), np.complex128))
    return block if view.frame else outer_sum(block, (view.axis("x", columns), view.axis("y", rows)))
