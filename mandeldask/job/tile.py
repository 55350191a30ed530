"""A window of tiles as an ordinary Dask array: grid, kernel and write, fused to one task a tile."""

from __future__ import annotations

import time
import uuid
from typing import Any

import dask.array as da
import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from mandeldask.grid import complex_grid
from mandeldask.job.events import Record
from mandeldask.job.order import Window
from mandeldask.kernels import BlockFunction
from mandeldask.store import Store, Tile

RECORD = np.dtype(
    [
        ("tile", "int64", 2),
        ("seconds", "float64"),
        ("iterations", "int64"),
        ("minimum", "int32"),
        ("maximum", "int32"),
        ("not_escaped", "int64"),
        ("worker", "U64"),
        ("started", "float64"),
        ("finished", "float64"),
    ]
)


def window_records(store: Store, window: Window, block_function: BlockFunction) -> da.Array:
    """A lazy array with one record a tile; to compute an element is to compute its tile and write its shard."""
    d = store.description
    grid = complex_grid(d.view, d.tile, d.window(window.first, window.end))
    return grid.map_blocks(
        compute_tile,
        block_function=block_function,
        store=store,
        first=window.first,
        dtype=RECORD,
        meta=np.empty((0, 0), RECORD),
        chunks=tuple((1,) * n for n in grid.numblocks),
        name=f"escape-time-tile-{uuid.uuid4().hex}",  # never a result that another run left on the cluster
    )


def compute_tile(
    c: NDArray[np.complex128], block_function: BlockFunction, store: Store, first: Tile, block_id: Tile
) -> NDArray[np.void]:
    """Compute one tile, write it, and report: a (1, 1) array of RECORD."""
    tile = (first[0] + block_id[0], first[1] + block_id[1])
    started, clock = time.time(), time.perf_counter()
    escape_time = block_function(c)
    seconds = time.perf_counter() - clock
    store.write(tile, escape_time)
    record = (
        tile,
        seconds,
        *statistics(escape_time, store.description.max_iter),
        get_worker().address,
        started,
        time.time(),
    )
    return np.array([[record]], RECORD)


def statistics(escape_time: NDArray[np.int32], max_iter: int) -> tuple[int, int, int, int]:
    """iterations, minimum, maximum and the number of samples at max_iter."""
    not_escaped = np.count_nonzero(escape_time == max_iter)
    iterations = escape_time.sum(dtype=np.int64)
    return int(iterations), int(escape_time.min()), int(escape_time.max()), int(not_escaped)


def to_record(element: NDArray[np.void]) -> Record:
    """The record in the (1, 1) array that a tile's task gives."""
    values: list[Any] = list(element.item())
    row, column = values[0].tolist()
    return Record((row, column), *values[1:])
