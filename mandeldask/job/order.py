"""pending tiles -> windows, in the order in which they are handed out: a pure function."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mandeldask.store import Tile

WINDOW_BITS = 3  # a window is at most 8 x 8 tiles: one small graph


@dataclass(frozen=True)
class Window:
    """A rectangle of tiles, first <= tile < end, and those of them that are to be computed."""

    first: Tile
    end: Tile
    tiles: tuple[Tile, ...]


def order(pending: NDArray[np.bool_], costs: NDArray[np.float64] | None = None) -> Iterator[Window]:
    """Windows of at most 8 x 8 tiles that cover the pending tiles, dear ones first.

    A few dear tiles at the end would leave most workers idle. Windows of like cost, within a factor of sqrt(2), and all
    where no costs are known, go along a Morton curve, as their tiles do.

    Parameters
    ----------
    pending : bool array, shape (rows, columns) of tiles
    costs : float array of the same shape, optional
        What each tile is expected to cost, in any unit.
    """
    rows, columns = np.nonzero(pending)
    code = _spread(rows) << 1 | _spread(columns)
    by_code = np.argsort(code, kind="stable")
    window_of = code[by_code] >> 2 * WINDOW_BITS
    parts = [part for part in np.split(by_code, np.flatnonzero(np.diff(window_of)) + 1) if part.size]
    if costs is not None:
        parts.sort(key=lambda part: -_half_octave(float(costs[rows[part], columns[part]].sum())))
    for part in parts:
        i, j = rows[part], columns[part]
        yield Window(
            (int(i.min()), int(j.min())),
            (int(i.max()) + 1, int(j.max()) + 1),
            tuple(zip(i.tolist(), j.tolist(), strict=True)),
        )


def _half_octave(cost: float) -> int:
    return round(2 * math.log2(cost)) if cost > 0 else -(2**31)


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
