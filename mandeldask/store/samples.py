"""The samples of a level as an array that is read by slices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import DamagedError
from mandeldask.store.arrays import shard_key
from mandeldask.store.description import chunk_side

PIECE_SIDE = 2048  # samples that are read at a time where every k-th is wanted


@dataclass(frozen=True)
class StoredSamples:
    """An array of a level that is read by slices, chunk by chunk; the fill value where a tile is not done.

    Raises DamagedError where a shard cannot be decoded; with `spare_damaged` every k-th sample can be read all the
    same, and there too is the fill value.
    """

    store: Any  # a `Store`, which knows this class
    level: int
    name: str
    spare_damaged: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.store.description.levels[self.level].shape
        return rows, columns

    @property
    def ndim(self) -> int:
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        kind: str = self.store.description.type_of(self.name)
        return np.dtype(kind)

    @property
    def chunks(self) -> tuple[int, int]:
        """Rows and columns of the chunks that are decoded at once."""
        rows, columns = self.store.description.levels[self.level].tile
        return chunk_side(rows), chunk_side(columns)

    def __getitem__(self, key: slice | tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = (*key, slice(None))[:2] if isinstance(key, tuple) else (key, slice(None))
        y, x = (range(*s.indices(n)) for s, n in zip((rows, columns), self.shape, strict=True))
        if (y.step, x.step) == (1, 1) or y.step < 0 or x.step < 0:
            whole = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
            found: NDArray[Any] = self.store.window(*whole, self.level, self.name)
            return found[:: rows.step, :: columns.step]
        return self._thinned(y, x)

    def _thinned(self, rows: range, columns: range) -> NDArray[Any]:
        """Every k-th sample, a piece of the field in memory at a time; a tile that is missing takes no reading."""
        tile = self.store.description.levels[self.level].tile
        sides = [side if side <= PIECE_SIDE else chunk for side, chunk in zip(tile, self.chunks, strict=True)]
        out = np.full((len(rows), len(columns)), self.store.array(self.level, self.name).fill_value, self.dtype)

        @cache  # a tile may have many pieces
        def done(i: int, j: int) -> bool:
            return bool(self.store.place.size(shard_key(self.level, self.name, (i, j))))

        for down, y in _pieces(rows, sides[0]):
            for across, x in _pieces(columns, sides[1]):
                if done(y.start // tile[0], x.start // tile[1]):
                    window = slice(y.start, y[-1] + 1), slice(x.start, x[-1] + 1)
                    with suppress(DamagedError) if self.spare_damaged else nullcontext():
                        out[down, across] = self.store.window(*window, self.level, self.name)[:: y.step, :: x.step]
        return out


def _pieces(indices: range, side: int) -> Iterator[tuple[slice, range]]:
    """Indices by the piece of `side` that they lie in: where they stand among all, and those of the piece."""
    first = 0
    while first < len(indices):
        end = (indices[first] // side + 1) * side  # of the piece
        last = min(len(indices), -(-(end - indices.start) // indices.step))
        yield slice(first, last), indices[first:last]
        first = last
