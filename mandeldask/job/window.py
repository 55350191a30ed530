"""A window of tiles as an ordinary Dask array: grid, kernel and write, fused to one task a tile."""

from __future__ import annotations

import uuid

import dask.array as da
import numpy as np

from mandeldask.grid import complex_grid
from mandeldask.job.order import Window
from mandeldask.kernels import BlockFunction
from mandeldask.store import Store
from mandeldask.tile import RECORD, compute_tile


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
