"""Which tiles are tried again after a failure, and which are given up."""

from __future__ import annotations

from collections import Counter, deque

from distributed import Client

from mandeldask.store import Tile
from mandeldask.telemetry import parse_key

MAX_ATTEMPTS = 3
MAX_DEATHS = 3  # of workers that had nothing but this tile to compute


class Retries:
    """The tiles that failed so far.

    A tile whose kernel raised is tried again after all others. A tile that was on a worker when the worker died is a
    suspect: a tile beside it may have been the cause. Suspects are tried last, one at a time; a suspect whose worker
    dies again was the cause.
    """

    def __init__(self) -> None:
        self.attempts: Counter[Tile] = Counter()
        self.suspects: set[Tile] = set()
        self._again: deque[Tile] = deque()
        self._alone: deque[Tile] = deque()

    def next(self, idle: bool) -> Tile | None:
        """A tile to try again now; suspects only while nothing else is in flight."""
        if self._again:
            return self._again.popleft()
        return self._alone.popleft() if idle and self._alone else None

    def fail(self, tile: Tile, killed: bool) -> bool:
        """Note a failure, by the death of a worker or not; whether the tile is given up."""
        self.attempts[tile] += 1
        if killed:
            final = tile in self.suspects
            if not final:
                self.suspect(tile)
            return final
        final = self.attempts[tile] >= MAX_ATTEMPTS
        if not final:
            self._again.append(tile)
        return final

    def suspect(self, tile: Tile) -> None:
        """Have a tile tried alone."""
        self.suspects.add(tile)
        self._alone.append(tile)


def deaths(client: Client, job: str, run: str) -> Counter[Tile]:
    """Tiles of a run whose worker died, and how often it had no other tile of the run: from the scheduler's events.

    A driver on the cluster that died with such a worker cannot know.
    """
    found: Counter[Tile] = Counter()
    for _, event in client.get_events("all") or ():
        if event.get("action") != "remove-worker" or event.get("expected"):
            continue
        tiles = [k[2] for key in event["processing-tasks"] if (k := parse_key(key)) and k[:2] == (job, run)]
        found.update({tile: int(len(tiles) == 1) for tile in tiles})
    return found
