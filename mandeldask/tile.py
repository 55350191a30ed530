"""What a worker does with a tile beside computing it. Workers import this room, and none of the driver's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from distributed import get_worker
from distributed.worker import thread_state
from numpy.typing import NDArray

from mandeldask.errors import StoreError
from mandeldask.field import dtype_of, taken
from mandeldask.kernels.fields import PROVED
from mandeldask.store import Store, Tile
from mandeldask.telemetry import TOPIC, Preview, job_id, tile_event

LevelTile = tuple[int, int, int]  # level, row, column
BAND = 1 << 16  # samples: what fits in a CPU's cache


@dataclass(frozen=True)
class Record:
    """What a finished tile reports: the one source for progress, dashboard and the store's `tiles` group."""

    tile: Tile
    seconds: float  # of kernel
    iterations: int  # sum of the escape times
    minimum: int
    maximum: int
    not_escaped: int  # samples at max_iter
    worker: str
    started: float  # Unix time on the worker
    finished: float
    preview: bytes = b""  # every k-th sample: `telemetry.Preview.encode`
    copied: int = 0  # of the iterations, those that a field of fewer iterations knew
    kernel: str = ""  # that computed it
    second: int = 0  # samples, in exact arithmetic: that the first pass could not decide
    third: int = 0  # nor the second
    unproven: int = 0


def tile_name(tile: Tile | LevelTile) -> str:
    """The name of a tile in errors and attributes: "row,column", or "level 2: row,column"."""
    return f"{tile[0]},{tile[1]}" if len(tile) == 2 else f"level {tile[0]}: {tile[1]},{tile[2]}"


def write_block(block: NDArray[Any], store: Store, block_id: Tile) -> NDArray[np.object_]:
    """Write a block of the field as one tile of `store`; its `Record`, in an array of shape (1, 1)."""
    started = getattr(thread_state, "start_time", time.time())  # of the Dask task that this is the last step of
    d = store.description
    store.write(block_id, block)
    escape_time = block["escape_time"] if block.dtype.names else block
    worker, preview = get_worker(), Preview(d.shape, d.tile, d.max_iter).encode(escape_time, block_id)
    took, figures = taken(), statistics(escape_time, d.max_iter)
    values = took.seconds, *figures, worker.address, started, time.time(), preview, *took[1:]
    record = Record(block_id, *values)
    worker.log_event(TOPIC, tile_event(job_id(store.identity, store.path), record))
    written = np.empty((1, 1), object)
    written[0, 0] = record
    return written


def read_block(store: Store, max_iter: int, block_id: Tile) -> NDArray[Any]:
    """What a store of fewer iterations than `max_iter` knows of a tile, 0 where it cannot tell.

    A sample's values depend on max_iter only where it had not escaped; where it never will, its time is max_iter. A
    tile that is missing or damaged is not known, nor one of which a count is not proven.
    """
    d = store.description
    known = np.zeros(d.levels[0].tile_shape(block_id), dtype_of(d.fields, d.exact))
    try:
        parts = {name: store.read_shard(block_id, 0, name) for name in d.fields}
        if d.exact and not store.proven(block_id):
            return known
        store.check_identity()  # after it was read: another field may have taken its place meanwhile
    except (StoreError, OSError):
        return known
    if any(part is None for part in parts.values()) or (d.format_version < 4 and "smooth" in d.fields):
        return known  # what an older format has of smooth is not what a run would give
    for name, part in parts.items():
        (known[name] if known.dtype.names else known)[...] = part
    times = known["escape_time"] if known.dtype.names else known
    times[times == d.max_iter] = 0
    if "interior" in d.fields:
        times[known["interior"] == PROVED] = max_iter
    return known


def statistics(escape_time: NDArray[np.int32], max_iter: int) -> tuple[int, int, int, int]:
    """iterations, minimum, maximum and the number of samples at max_iter."""
    bands = np.array_split(escape_time, -(-escape_time.size // BAND))  # a band stays in the CPU's cache
    sums = np.int32 if bands[0].size * max_iter < 2**31 else np.int64  # int32 is four times as fast
    parts = [(int(b.sum(dtype=sums)), b.min(), b.max(), np.count_nonzero(b == max_iter)) for b in bands if b.size]
    iterations, minimum, maximum, not_escaped = zip(*parts, strict=True)
    return sum(iterations), int(min(minimum)), int(max(maximum)), int(sum(not_escaped))
