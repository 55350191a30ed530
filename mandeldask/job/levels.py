"""Which tiles of the levels are to be made, and when: as soon as all that they are made from is there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mandeldask.store import Level, Store, Tile
from mandeldask.tile import LevelTile

NOT = -1  # to be made, or no parent


def missing(store: Store, computed: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """Of each level above the field's own the tiles to be made by themselves: the others come with `computed` tiles."""
    d = store.description
    for level in d.levels[1:]:
        absent = ~store.done(level.number)
        yield absent & ~computed if level.number <= d.fine else absent


class Levels:
    """The tiles of the levels above 0 that are missing, and how many of their children are still awaited: a byte each.

    A field's own tile writes its part of the fine levels, so these are missing only where a shard was lost.
    """

    def __init__(self, store: Store, done: NDArray[np.bool_] | None = None) -> None:
        d = store.description
        self.fine = d.fine
        computed = ~(store.done() if done is None else done)
        self.parents = [_parents(*pair) for pair in zip(d.levels, d.levels[1:], strict=False)]
        self.awaited = [np.full(d.tiles, NOT, np.int8)]  # for each level; the field's own is not made of another
        coming = computed  # of the level below: what these runs will write
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
        """Those that can be made now, before anything is computed."""
        for k, awaited in enumerate(self.awaited):
            yield from ((k, i, j) for i, j in np.argwhere(awaited == 0).tolist())

    def computed(self, tile: Tile) -> list[LevelTile]:
        """A tile of the field is done, and with it its part of the fine levels: what can be made now."""
        return self._there(self.fine, tile)

    def made(self, tile: LevelTile) -> list[LevelTile]:
        """A tile of a level is done: what can be made now."""
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
    """For the rows and for the columns of tiles of a level, those above that hold samples of them, if any does."""
    found = []
    for n, side, side_above, length in zip(below.tiles, below.tile, above.tile, below.shape, strict=True):
        start = np.arange(n) * side
        even = start + start % 2  # the first sample that the level above has too
        found.append(np.where(even < np.minimum(start + side, length), even // 2 // side_above, NOT))
    return found
