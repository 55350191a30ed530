"""Which tiles of the levels are to be made, and when: as soon as all that they are made from is there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mandeldask.store import Description, Store, Tile
from mandeldask.tile import LevelTile


def missing(
    store: Store, computed: np.ndarray[tuple[int, int], np.dtype[np.bool_]]
) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.bool_]]]:
    """Of each level above the field's own the tiles to be made by themselves: the others come with `computed` tiles."""
    d = store.description
    for level in d.levels[1:]:
        absent = ~store.done(level.number)
        yield absent & ~computed if level.number <= d.fine else absent


class Levels:
    """The tiles of the levels above 0 that are missing, and how many of their children are still awaited.

    A field's own tile writes its part of the fine levels, so these are missing only where a shard was lost.
    """

    def __init__(self, store: Store, done: np.ndarray[tuple[int, int], np.dtype[np.bool_]] | None = None) -> None:
        self.description: Description = store.description
        d = self.description
        computed = ~(store.done() if done is None else done)
        self.awaited: dict[LevelTile, set[Tile]] = {}
        coming = computed  # of the level below: what these runs will write
        for level, mine in zip(d.levels[1:], missing(store, computed), strict=True):
            k = level.number
            for i, j in np.argwhere(mine).tolist():
                self.awaited[k, i, j] = {child for child in d.children(k, (i, j)) if coming[child]}
            coming = mine | computed if k <= d.fine else mine

    def __len__(self) -> int:
        return len(self.awaited)

    def ready(self) -> Iterator[LevelTile]:
        """Those that can be made now, before anything is computed."""
        return iter([tile for tile, children in self.awaited.items() if not children])

    def computed(self, tile: Tile) -> list[LevelTile]:
        """A tile of the field is done, and with it its part of the fine levels: what can be made now."""
        return self._there(self.description.fine, tile)

    def made(self, tile: LevelTile) -> list[LevelTile]:
        """A tile of a level is done: what can be made now."""
        level, i, j = tile
        self.awaited.pop(tile, None)
        return self._there(level, (i, j))

    def _there(self, level: int, tile: Tile) -> list[LevelTile]:
        if level + 1 >= len(self.description.levels):
            return []
        parent = (level + 1, *self.description.parent(level, tile))
        children = self.awaited.get(parent)
        if not children or tile not in children:
            return []
        children.discard(tile)
        return [] if children else [parent]
