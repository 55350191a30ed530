"""Whether a field will fit where it is to lie: looked at before anything is computed, where there may be doubt."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from dask.utils import format_bytes
from numpy.typing import NDArray

from mandeldask.errors import StoreError
from mandeldask.job.events import Plan
from mandeldask.kernels import FIELDS, BlockFunction
from mandeldask.store import Description, Place
from mandeldask.store.layout import fill_value
from mandeldask.store.shard import Shards
from mandeldask.tile import compute

Say = Callable[[str], None]
SIDE = 64  # of the squares that are computed and compressed, at the field's own spacing
SQUARES = 64
LOOK_SECONDS = 2.0
# One colour is compressed to a 10,000th; nothing that a kernel gives to less.
BEST_RATIO = 1 / 16384
LEVELS = 4 / 3  # 1 + 1/4 + 1/16 + ...
SURELY = 2.0  # times too large by a look at 64 squares: the field will not fit
PERHAPS = 0.8  # of what is free
REMEDY = "choose another --out, make room, or go on all the same with --ignore-space"


def refuse_absurd(place: Place, d: Description) -> None:
    """Raise StoreError where not even a field of one colour would fit, before a store is made for it.

    The coordinates of 10^12 columns alone are 8 TB.
    """
    free = place.free()
    samples = d.shape[0] * d.shape[1]
    least = int(_plain_bytes(d) * samples * BEST_RATIO + 4 * sum(d.shape))
    if free is not None and least > free:
        raise StoreError(
            f"{samples:.3g} samples need at least {format_bytes(least)} at {place.url}, however well they are "
            f"compressed, and {format_bytes(free)} are free: {REMEDY}"
        )


def look(plan: Plan, block_function: BlockFunction, say: Say) -> None:
    """Say so where the pending tiles may not fit.

    Only where they would not without compression are some of their samples computed and compressed, to see.

    Raises
    ------
    StoreError
        They surely will not.
    """
    store, d = plan.store, plan.store.description
    free = store.place.free()
    samples = plan.pending * d.tile[0] * d.tile[1]
    most = samples * _plain_bytes(d) * LEVELS
    if free is None or most <= free:
        return
    say(f"{format_bytes(int(most))} before compression, and {format_bytes(free)} are free: looking how it compresses")
    needed = int(samples * bytes_a_sample(d, ~store.done(), block_function) * LEVELS)
    sizes = f"about {format_bytes(needed)} are needed at {store.path}, and {format_bytes(free)} are free"
    if needed > SURELY * free:
        raise StoreError(f"{sizes}: {REMEDY}")
    if needed > PERHAPS * free:
        say(f"{sizes}: it may not fit. A run that finds the disk full ends; resume goes on once there is room")


def bytes_a_sample(
    d: Description,
    pending: NDArray[np.bool_],
    block_function: BlockFunction,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Bytes that a sample of the pending tiles takes on disk, by squares of neighbouring samples spread over them."""
    chance = np.random.default_rng(0)
    tiles = chance.permutation(np.argwhere(pending))
    deadline = clock() + LOOK_SECONDS
    size = count = 0
    for k in range(SQUARES):
        i, j = tiles[k % len(tiles)].tolist()
        square = [_part(chance, *axis) for axis in d.window((i, j), (i + 1, j + 1))]
        samples, _ = compute(d.view, square[0], square[1], block_function)
        for name in d.fields:
            part = samples[name] if samples.dtype.names else samples
            shape = (part.shape[0], part.shape[1])
            size += len(Shards(shape, shape, np.dtype(FIELDS[name]), fill_value(name)).encode_chunk(part))
        count += samples.size
        if clock() > deadline:
            break
    return size / count


def _part(chance: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    first = int(chance.integers(low, max(low + 1, high - SIDE + 1)))
    return first, min(first + SIDE, high)


def _plain_bytes(d: Description) -> int:
    """Bytes of a sample before compression, in all fields."""
    return sum(np.dtype(FIELDS[name]).itemsize for name in d.fields)
