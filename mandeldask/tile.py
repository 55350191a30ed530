"""What a worker does with a tile: compute, write, report. Workers import this room, and none of the driver's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from mandeldask.kernels import BlockFunction
from mandeldask.store import Store, Tile


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


def compute_tile(
    c: NDArray[np.complex128], block_function: BlockFunction, store: Store, first: Tile, block_id: Tile
) -> NDArray[np.void]:
    """Compute one tile, write it, and report: a (1, 1) array of RECORD."""
    tile = (first[0] + block_id[0], first[1] + block_id[1])
    started, clock = time.time(), time.perf_counter()
    block = block_function(c)
    seconds = time.perf_counter() - clock
    store.write(tile, block)
    record = (
        tile,
        seconds,
        *statistics(block["escape_time"] if block.dtype.names else block, store.description.max_iter),
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
