"""A window of tiles as an ordinary Dask array of records, one task a tile."""

from __future__ import annotations

import dask.array as da
import numpy as np

from mandeldask.job.order import Window
from mandeldask.kernels import BlockFunction
from mandeldask.messages import job_id, key_name
from mandeldask.store import Store
from mandeldask.tile import RECORD, compute_tile


def window_records(store: Store, window: Window, block_function: BlockFunction, run: str) -> da.Array:
    """A lazy array with one record a tile; to compute an element is to compute its tile and write its shard.

    The graph is written out: what `map_blocks` adds to a function that wants to know its block makes each worker import
    dask.array before its first task, a second that a short run notices.
    """
    # never a result that another run left on the cluster
    name = key_name(job_id(store.identity, store.path), window.first, run)
    rows, columns = (range(first, end) for first, end in zip(window.first, window.end, strict=True))
    graph = {
        (name, i, j): (compute_tile, block_function, store, (row, column))
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
    }
    return da.Array(graph, name, ((1,) * len(rows), (1,) * len(columns)), meta=np.empty((0, 0), RECORD))
