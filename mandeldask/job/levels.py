"""Which tiles of the pyramid are to be built, and when: each as soon as all the tiles below it are in the store."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mandeldask.store import Level, Store, Tile
from mandeldask.tile import LevelTile

NOT = -1  # not to be built; no parent


def missing(store: Store, computed: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """For each level above 0, its missing tiles that no task writes beside one of the tiles to be `computed`."""
    d = store.description
    for level in d.levels[1:]:
        absent = ~store.done(level.number)
        yield absent & ~computed if level.number <= d.fine else absent


class Levels:
    """The missing tiles of the levels above 0, and how many tiles below each are still awaited: one byte a tile.

    The task of a tile of the field writes its part of the fine levels too. So a tile of a fine level is missing only
    where a shard was lost.
    """

    def __init__(self, store: Store, done: NDArray[np.bool_] | None = None) -> None:
        d = store.description
        self.fine = d.fine
        computed = ~(store.done() if done is None else done)
        self.parents = [_parents(*pair) for pair in zip(d.levels, d.levels[1:], strict=False)]
        self.awaited = [np.full(d.tiles, NOT, np.int8)]  # for each level; level 0 is built from no other
        coming = computed  # tiles of the level below that this run will write
        for level, mine, parents in zip(d.levels[1:], missing(store, computed), self.parents, strict=True):
            awaited = np.zeros(level.tiles, np.int8)
            rows, columns = (parents[axis][tiles] for axis, tiles in enumerate(np.nonzero(coming)))
            held = (rows != NOT) & (columns != NOT)
            np.add.at(awaited, (rows[held], columns[held]), 1)
            awaited[~mine] = NOT
            self.awaited.append(awaited)
            coming = mine | computed if level.number <= d.fine else mine
        self.left = sum(int((awaited != NOT).sum()) for awaited in self.awaited)

    def __len__(self) -> int:
        return self.left

    def ready(self) -> Iterator[LevelTile]:
        """The tiles that can be built now, before anything is computed."""
        for k, awaited in enumerate(self.awaited):
            yield from ((k, i, j) for i, j in np.argwhere(awaited == 0).tolist())

    def computed(self, tile: Tile) -> list[LevelTile]:
        """Note that a tile of the field, with its part of the fine levels, is done; the tiles that can be built now."""
        return self._there(self.fine, tile)

    def made(self, tile: LevelTile) -> list[LevelTile]:
        """Note that a tile of a level is done; the tiles that can be built now."""
        level, i, j = tile
        self.awaited[level][i, j] = NOT
        self.left -= 1
        return self._there(level, (i, j))

    def _there(self, level: int, tile: Tile) -> list[LevelTile]:
        if level + 1 >= len(self.awaited):
            return []
        rows, columns = self.parents[level]
        i, j = int(rows[tile[0]]), int(columns[tile[1]])
        awaited = self.awaited[level + 1]
        if NOT in (i, j) or awaited[i, j] <= 0:
            return []
        awaited[i, j] -= 1
        return [] if awaited[i, j] else [(level + 1, i, j)]


def _parents(below: Level, above: Level) -> list[NDArray[np.intp]]:
    """For the rows and the columns of tiles of a level: the row or column above that holds samples of it, or NOT."""
    found = []
    for n, side, side_above, length in zip(below.tiles, below.tile, above.tile, below.shape, strict=True):
        start = np.arange(n) * side
        even = start + start % 2  # the first sample that the level above has too
        found.append(np.where(even < np.minimum(start + side, length), even // 2 // side_above, NOT))
    return found
