"""pending tiles -> the order in which they are handed out: a pure function."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mandeldask.store import Tile

BATCH = 64  # tiles that are asked for at once: one small graph
# Simulated on 2,025 unequal tiles: with 8 classes 64 workers are busy for 0.999 of the time and 256 for 0.97; with
# tiles in the order of the Morton curve alone 0.91 and 0.69.
CLASSES = 8


def order(pending: NDArray[np.bool_], costs: NDArray[np.float64] | None = None) -> Iterator[list[Tile]]:
    """Batches of pending tiles, costly tiles first.

    A few costly tiles at the end would leave most workers idle. Tiles are sorted by their class of cost; tiles of one
    class, and all where no costs are known, follow a Morton curve, so that a picture forms part by part.

    Parameters
    ----------
    pending : bool array, shape (rows, columns) of tiles
    costs : float array of the same shape, optional
        What each tile is expected to cost, in any unit.
    """
    rows, columns = np.nonzero(pending)
    along_curve = _spread(rows) << np.uint64(1) | _spread(columns)
    classes = np.zeros(rows.size, np.int64) if costs is None else -_class_of(costs[rows, columns])
    at = np.lexsort((along_curve, classes))
    tiles = zip(rows[at].tolist(), columns[at].tolist(), strict=True)
    while batch := list(islice(tiles, BATCH)):
        yield batch


def _class_of(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """The class of each cost, 0 to CLASSES - 1: as many tiles in each, but equal costs are never parted."""
    if not costs.size:
        return np.zeros(0, np.int64)
    bounds = np.quantile(costs, np.arange(1, CLASSES) / CLASSES)
    return np.searchsorted(bounds, costs, side="left")


def _spread(n: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Put a zero before each of the low 32 bits: two such numbers interleave to a Morton code."""
    v = n.astype(np.uint64)
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        v = (v | v << np.uint64(shift)) & np.uint64(mask)
    return v
