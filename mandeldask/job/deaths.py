"""Which tiles workers died with, from the scheduler's own events: what a driver that died with them cannot tell."""

from __future__ import annotations

from collections import Counter

from distributed import Client

from mandeldask.store import Tile
from mandeldask.telemetry import tile_of_key


def deaths(client: Client, job: str, run: str) -> Counter[Tile]:
    """Tiles of a run whose worker died, and how often it had no other tile of the run at hand."""
    found: Counter[Tile] = Counter()
    for _, event in client.get_events("all") or ():
        if event.get("action") != "remove-worker" or event.get("expected"):
            continue
        tiles = [tile for key in event["processing-tasks"] if (tile := tile_of_key(key, job, run))]
        found.update({tile: int(len(tiles) == 1) for tile in tiles})
    return found
