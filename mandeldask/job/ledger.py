"""What the driver learns of each tile, kept in the store's `tiles` group."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.utils import format_bytes
from numpy.typing import NDArray

from mandeldask.errors import DamagedError, StoreError
from mandeldask.job.periodic import every
from mandeldask.store import Store, Tile
from mandeldask.tile import LevelTile, Record, statistics, tile_name

FLUSH_SECONDS = 2.0
SWEEP_SECONDS = 60.0  # a writer ends within seconds of its scheduler, and its file grows while it writes
MAX_ERRORS = 100  # kept in the store; each cut to MAX_ERROR_LENGTH characters
MAX_ERROR_LENGTH = 500
FIGURES = ("iterations", "minimum", "maximum", "not_escaped")  # that can be read from a shard again


@dataclass
class Totals:
    """What this run has done so far: a few numbers, however many tiles."""

    tiles: int = 0
    levels: int = 0  # tiles of the levels
    iterations: int = 0
    kernel_seconds: float = 0.0
    started: float = math.inf
    finished: float = -math.inf

    def add(self, record: Record) -> None:
        self.tiles += 1
        self.iterations += record.iterations
        self.kernel_seconds += record.seconds
        self.started = min(self.started, record.started)
        self.finished = max(self.finished, record.finished)


class Ledger:
    """The table of tiles in memory, written to the store by `flush`; safe to use from two threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.columns = store.read_tiles()
        errors = store.read_notes().get("errors")
        self.errors: dict[str, str] = errors if isinstance(errors, dict) else {}
        self.this_run = Totals()
        self.progress: dict[str, Any] | None = None  # what `mandeldask status STORE` tells of a run
        self._changed: set[Tile] = set()
        self._errors_changed = False
        self._lock = threading.Lock()
        self._flushing = threading.Lock()  # a slow flush must not write over a later one

    @contextmanager
    def flushed(self) -> Iterator[Ledger]:
        """Flush every few seconds, and once more when the context ends."""
        try:
            with every(FLUSH_SECONDS, self.flush, "ledger"):
                yield self
        finally:
            with suppress(OSError, StoreError):  # what ends the run here is told elsewhere
                self.flush()

    def add(self, record: Record) -> None:
        """Enter a finished tile."""
        with self._lock:
            for name in ("seconds", *FIGURES):
                self.columns[name][record.tile] = getattr(record, name)
            self.columns["attempts"][record.tile] += 1
            self._changed.add(record.tile)
            self.this_run.add(record)
            self._errors_changed |= self.errors.pop(tile_name(record.tile), None) is not None

    def fail(self, tile: Tile, error: str) -> None:
        """Enter a failed computation."""
        with self._lock:
            self.columns["attempts"][tile] += 1
            self._changed.add(tile)
        self.note(tile, error)

    def forget(self, tile: Tile) -> None:
        """Forget what was known of a tile: it is computed again, or read again by `complete`."""
        with self._lock:
            for column in self.columns.values():
                column[tile] = 0
            self._changed.add(tile)

    def note(self, tile: Tile | LevelTile, error: str) -> None:
        """Enter what happened to a tile of the field or of a level."""
        name = tile_name(tile)
        with self._lock:
            if len(self.errors) < MAX_ERRORS or name in self.errors:
                self.errors[name] = error[:MAX_ERROR_LENGTH]
                self._errors_changed = True

    def made(self, tile: LevelTile) -> None:
        """Enter a tile of a level that was made, and forget what happened to it before."""
        with self._lock:
            self.this_run.levels += 1
            self._errors_changed |= self.errors.pop(tile_name(tile), None) is not None

    def complete(self, done: NDArray[np.bool_]) -> None:
        """Read from their shards what is not known of finished tiles: a killed driver lost its last seconds."""
        for i, j in np.argwhere(done & (self.columns["minimum"] == 0)).tolist():
            with suppress(DamagedError, OSError):  # `mandeldask verify` will tell
                values = statistics(self.store.read((i, j)), self.store.description.max_iter)
                with self._lock:
                    for name, value in zip(FIGURES, values, strict=True):
                        self.columns[name][i, j] = value
                    self._changed.add((i, j))

    def flush(self) -> None:
        """Write what changed since the last time."""
        with self._flushing:
            with self._lock:
                changed, self._changed = self._changed, set()
                notes: dict[str, Any] = {"errors": dict(self.errors) or None} if self._errors_changed else {}
                self._errors_changed = False
                if self.progress is not None:
                    notes["progress"], self.progress = self.progress, None
                columns = {name: column.copy() for name, column in self.columns.items()} if changed else {}
            try:
                if changed:
                    self.store.write_tiles(columns, changed)
                if notes:
                    self.store.write_notes(**notes)
            except (OSError, StoreError):  # the next time may serve
                with self._lock:
                    self._changed |= changed
                    self._errors_changed |= "errors" in notes
                raise


@contextmanager
def swept(store: Store, say: Callable[[str], None]) -> Iterator[None]:
    """Remove the partial files of writers that died before this run. Hold the store's lease meanwhile.

    At the beginning only those that have written nothing for a while are certainly dead; the rest is at the end.
    """
    begun = time.time()
    _sweep(store, begun - SWEEP_SECONDS, say)
    yield
    _sweep(store, begun, say)


def _sweep(store: Store, older: float, say: Callable[[str], None]) -> None:
    with suppress(OSError):  # of files that nobody reads
        if size := store.place.sweep(older):
            say(f"removed {format_bytes(size)} of partial files that killed writers had left")


def cannot_write(store: Store, error: OSError) -> StoreError:
    """What to say of a disk that refuses."""
    return StoreError(
        f"cannot write {store.path}: {error.strerror or error}. What is finished stays; make room or repair it, then "
        f"`mandeldask resume {store.path}`"
    )
