"""The explorer: pan and zoom in the browser over a store and beyond it; a leaf. See README.md beside this file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from mandeldask import cluster as clusters
from mandeldask.config import Cluster
from mandeldask.explorer.live import LiveTiles
from mandeldask.explorer.scene import Scene, open_scene
from mandeldask.explorer.server import LOOPBACK, Explorer, listen

__all__ = ["Scene", "explore", "open_scene", "serve"]


def explore(
    scene: Scene,
    cluster: Cluster | None = None,
    *,
    port: int = 0,
    upload: bool = False,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the explorer on loopback until it is interrupted.

    Parameters
    ----------
    cluster : Cluster, optional
        It computes live tiles; by default the one that the scene's run description names, else as for a run. It is
        started with the first live tile, or at once where the scene has no complete store.
    port : int
        0 for a free one.
    upload : bool
        Send this mandeldask to the scheduler and the workers first.
    ready : callable, optional
        Called with the link.

    Raises
    ------
    ConfigError
        The port cannot be used.
    """
    described = clusters.resolve(cluster or (scene.config.cluster if scene.config else None))
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(scene, LiveTiles(described, scene.kernel, upload), port, ready, asyncio.Event()))


async def serve(scene: Scene, live: LiveTiles, port: int, ready: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve in the running event loop until `stop` is set."""
    server, port = listen(explorer := Explorer(scene, live), port)
    try:
        done, tiles = await asyncio.to_thread(scene.tiles)
        if done < tiles or not tiles:
            live.start()
        ready(f"http://{LOOPBACK}:{port}/")
        await stop.wait()
    finally:
        server.stop()
        explorer.rendering.cancel()
        await live.close()
