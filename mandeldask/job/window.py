"""A window of tiles -> a future of a record for each."""

from __future__ import annotations

from typing import Any

from distributed import Client, Future

from mandeldask.job.order import Window
from mandeldask.kernels import BlockFunction
from mandeldask.store import Store
from mandeldask.tile import compute_tile


def submit_window(
    client: Client, store: Store, window: Window, block_function: BlockFunction, name: str, **where: Any
) -> list[Future]:
    """Hand the tiles of a window to the scheduler, one task a tile, with keys (name, row, column).

    All windows of a run share the name: more tasks of one group than twice the threads wait on the scheduler, which
    gives each worker the next one when it has room, while those of a small group are dealt out at once.
    """
    keys = [(name, *tile) for tile in window.tiles]
    return client.map(  # type: ignore[no-any-return]
        compute_tile, window.tiles, key=keys, block_function=block_function, store=store, pure=False, **where
    )
