"""What a worker does with a tile: compute, write, report. Workers import this room, and none of the driver's."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from mandeldask.errors import StoreError
from mandeldask.kernels import BlockFunction
from mandeldask.store import Store, Tile
from mandeldask.telemetry import TOPIC, Preview, job_id, tile_event
from mandeldask.view import Range, View

LevelTile = tuple[int, int, int]  # level, row, column
BAND = 1 << 16  # samples: 1 MiB of complex128
_kept = threading.local()


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


def compute_tile(tile: Tile, block_function: BlockFunction, store: Store, source: Store | None = None) -> Record:
    """Compute one tile, write it, and report; with a `source` by what that store of fewer iterations knows of it."""
    started = time.time()
    d = store.description
    found = deepened(tile, block_function, store, source) if source else None
    block, seconds = found or compute(d.view, *d.window(tile, (tile[0] + 1, tile[1] + 1)), block_function)
    store.write(tile, block)
    escape_time = block["escape_time"] if block.dtype.names else block
    worker, preview = get_worker(), Preview(d.shape, d.tile, d.max_iter).encode(escape_time, tile)
    record = Record(tile, seconds, *statistics(escape_time, d.max_iter), worker.address, started, time.time(), preview)
    worker.log_event(TOPIC, tile_event(job_id(store.identity, store.path), record))
    return record


def build_level(tile: LevelTile, store: Store) -> LevelTile:
    """Make one tile of a level above the field's own from the shards of the level below."""
    level, i, j = tile
    store.write_level(level, (i, j))
    return tile


def compute(view: View, rows: Range, columns: Range, block_function: BlockFunction) -> tuple[NDArray[Any], float]:
    """What `block_function` gives for a window of `view`, and the seconds it took.

    Samples are made and handed over in bands: a complex block of 2048 x 2048 takes 64 MiB, more than malloc keeps, and
    to make it whole costs 3.5 ns a sample, most of them page faults; in a buffer that is kept it is 0.7 ns.
    """
    x = columns[1] - columns[0]
    band = max(1, BAND // x)
    if not hasattr(_kept, "buffer") or _kept.buffer.size < band * x:
        _kept.buffer = np.empty(max(BAND, band * x), np.complex128)
    block: NDArray[Any] | None = None
    seconds = 0.0
    for row in range(rows[0], rows[1], band):
        stop = min(row + band, rows[1])
        c = view.block((row, stop), columns, _kept.buffer)
        start = time.perf_counter()
        part = block_function(c)
        seconds += time.perf_counter() - start
        if block is None:
            block = np.empty((rows[1] - rows[0], x), part.dtype)
        block[row - rows[0] : stop - rows[0]] = part
    assert block is not None  # a tile has a row
    return block, seconds


def deepened(
    tile: Tile, block_function: BlockFunction, store: Store, source: Store
) -> tuple[NDArray[Any], float] | None:
    """As `compute`, for the samples of a tile that had not escaped in `source`; None where it cannot tell.

    A sample's values depend on max_iter only where it had not escaped: the others are copied.
    """
    d = store.description
    try:
        parts = {name: source.read_shard(tile, 0, name) for name in d.fields}
        source.check_identity()  # after it was read: another field may have taken its place meanwhile
    except (StoreError, OSError):  # damaged, gone or replaced by now
        return None
    known = {name: part for name, part in parts.items() if part is not None}
    if len(known) < len(parts):
        return None
    old = known["escape_time"]
    block = old if len(known) == 1 else np.empty(old.shape, [(name, part.dtype) for name, part in known.items()])
    if block is not old:
        for name, part in known.items():
            block[name] = part
    todo = old == source.description.max_iter
    (top, bottom), (left, right) = d.levels[0].window(tile)
    band = max(1, BAND // (right - left))
    seconds = 0.0
    for row in range(0, bottom - top, band):
        rows = slice(row, min(row + band, bottom - top))
        if todo[rows].any():
            c = d.view.block((top + rows.start, top + rows.stop), (left, right))[todo[rows]]
            start = time.perf_counter()
            deeper = block_function(c)
            seconds += time.perf_counter() - start
            block[rows][todo[rows]] = deeper
    return block, seconds


def statistics(escape_time: NDArray[np.int32], max_iter: int) -> tuple[int, int, int, int]:
    """iterations, minimum, maximum and the number of samples at max_iter."""
    bands = np.array_split(escape_time, -(-escape_time.size // BAND))  # a band stays in the CPU's cache
    parts = [(b.sum(dtype=np.int64), b.min(), b.max(), np.count_nonzero(b == max_iter)) for b in bands if b.size]
    iterations, minimum, maximum, not_escaped = zip(*parts, strict=True)
    return int(sum(iterations)), int(min(minimum)), int(max(maximum)), int(sum(not_escaped))
