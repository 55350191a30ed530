"""A window of tiles -> a future of a record for each."""

from __future__ import annotations

from typing import Any

from distributed import Client, Future

from mandeldask.job.order import Window
from mandeldask.kernels import BlockFunction
from mandeldask.store import Store
from mandeldask.tile import LevelTile, build_level, compute_tile


def submit_window(
    client: Client,
    store: Store,
    window: Window,
    block_function: BlockFunction,
    name: str,
    source: Store | None = None,
    **where: Any,
) -> list[Future]:
    """Hand the tiles of a window to the scheduler, one task a tile, with keys (name, row, column).

    All windows of a run share the name: more tasks of one group than twice the threads wait on the scheduler, which
    gives each worker the next one when it has room, while those of a small group are dealt out at once.
    """
    keys = [(name, *tile) for tile in window.tiles]
    return client.map(  # type: ignore[no-any-return]
        compute_tile,
        window.tiles,
        key=keys,
        block_function=block_function,
        store=store,
        source=source,
        pure=False,
        **where,
    )


def submit_levels(client: Client, store: Store, tiles: list[LevelTile], name: str) -> list[Future]:
    """Hand tiles of levels to the scheduler, one task a tile, with keys (name, level, row, column); before others.

    They wait for no other task: all that they are made from is in the store.
    """
    keys = [(name, *tile) for tile in tiles]
    return client.map(build_level, tiles, key=keys, store=store, pure=False, priority=1)  # type: ignore[no-any-return]
