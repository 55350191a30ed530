"""What the driver learns of each tile, kept in the store's `tiles` group."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import DamagedError, StoreError
from mandeldask.job.events import Proofs
from mandeldask.job.periodic import every
from mandeldask.store import NOT_KNOWN, PassColumns, Store, Tile
from mandeldask.text import command
from mandeldask.tile import LevelTile, Record, statistics, tile_name
from mandeldask.view import Range

FLUSH_SECONDS = 2.0
MAX_ERRORS = 100  # kept in the store; each cut to MAX_ERROR_LENGTH characters
MAX_ERROR_LENGTH = 500
FIGURES = ("iterations", "minimum", "maximum", "not_escaped")  # that can be read from a shard again
PASSES = tuple(PassColumns)  # that cannot


class Ledger:
    """The table of tiles in memory, written to the store by `flush`; safe to use from two threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.columns = store.read_tiles()
        self._passes = PASSES if store.description.exact else ()
        errors = store.read_notes().get("errors")
        self.errors: dict[str, str] = errors if isinstance(errors, dict) else {}
        self.progress: dict[str, Any] | None = None  # what `mandeldask status STORE` tells of a run
        self._noted = dict(self.errors)  # as they are in the store
        self._changed: set[Tile] = set()
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
        self._enter(record.tile, **{name: getattr(record, name) for name in ("seconds", *FIGURES, *self._passes)})
        self._attempted(record.tile)
        self.made(record.tile)

    def fail(self, tile: Tile, error: str) -> None:
        self._attempted(tile)
        self.note(tile, error)

    def forget(self, tile: Tile) -> None:
        """Forget what was known of a tile: it is computed again, or read again by `complete`."""
        self._enter(tile, **dict.fromkeys(self.columns, 0) | dict.fromkeys(self._passes, NOT_KNOWN))

    def note(self, tile: Tile | LevelTile, error: str) -> None:
        """Enter what happened to a tile of the field or of a level."""
        name = tile_name(tile)
        with self._lock:
            if len(self.errors) < MAX_ERRORS or name in self.errors:
                self.errors[name] = error[:MAX_ERROR_LENGTH]

    def made(self, tile: Tile | LevelTile) -> None:
        """Forget what happened before to a tile, of the field or of a level, that is made now."""
        with self._lock:
            self.errors.pop(tile_name(tile), None)

    def complete(self, done: NDArray[np.bool_]) -> None:
        """Read from their shards what is not known of finished tiles: a killed driver lost its last seconds."""
        for i, j in np.argwhere(done & (self.columns["minimum"] == 0)).tolist():
            with suppress(DamagedError, OSError):  # `mandeldask verify` will tell
                values = statistics(self.store.read((i, j)), self.store.description.max_iter)
                self._enter((i, j), **dict(zip(FIGURES, values, strict=True)))

    def proofs(self, done: NDArray[np.bool_]) -> Proofs | None:
        """How the counts of a deep field were proven; None of any other."""
        d = self.store.description
        if not d.exact:
            return None
        second, third, unproven = (int(np.maximum(self.columns[name][done], 0).sum()) for name in PASSES)
        unknown = int((done & (self.columns["unproven"] < 0)).sum())
        return Proofs(second, third, unproven, unknown, preview=d.proof == "none")

    def area(self, done: NDArray[np.bool_]) -> float | None:
        """Of the samples that did not escape, in the units of c, of a deep field of 4^unit; None for a line or a strip.

        On the border of a gridline view a sample stands for half a cell, in a corner for a quarter.
        """
        view = self.store.description.view
        cells = float(self.columns["not_escaped"][done].sum())
        if view.cell_area and view.registration == "gridline":
            rows, columns = ([(i, i + 1) for i in (0, n - 1)] for n in view.shape)
            lines = [(row, (0, view.shape[1])) for row in rows] + [((0, view.shape[0]), column) for column in columns]
            corners = product(rows, columns)
            cells -= sum(self._not_escaped(done, *line) for line in lines) / 2
            cells += sum(self._not_escaped(done, *corner) for corner in corners) / 4
        return cells * view.cell_area if view.cell_area else None

    def _not_escaped(self, done: NDArray[np.bool_], rows: Range, columns: Range) -> int:
        """Samples of a window that did not escape; a tile of which all did, or none, is not read."""
        d, found = self.store.description, 0
        tiles = (range(a // side, (b - 1) // side + 1) for (a, b), side in zip((rows, columns), d.tile, strict=True))
        for i, j in product(*tiles):
            (top, bottom), (left, right) = d.levels[0].window((i, j))
            y, x = slice(max(top, rows[0]), min(bottom, rows[1])), slice(max(left, columns[0]), min(right, columns[1]))
            number = self.columns["not_escaped"][i, j] if done[i, j] else 0
            if number == (bottom - top) * (right - left):
                found += (y.stop - y.start) * (x.stop - x.start)
            elif number:
                with suppress(DamagedError, OSError):  # `mandeldask verify` will tell
                    found += int((self.store.window(y, x) == d.max_iter).sum())
        return found

    def flush(self) -> None:
        with self._flushing:
            with self._lock:
                changed, self._changed = self._changed, set()
                errors, progress, self.progress = dict(self.errors), self.progress, None
                columns = {name: column.copy() for name, column in self.columns.items()} if changed else {}
            notes: dict[str, Any] = {"progress": progress} if progress else {}
            if errors != self._noted:
                notes["errors"] = errors or None
            try:
                if changed:
                    self.store.write_tiles(columns, changed)
                if notes:
                    self.store.write_notes(**notes)
            except (OSError, StoreError):  # the next time may serve
                with self._lock:
                    self._changed |= changed
                raise
            self._noted = errors

    def _enter(self, tile: Tile, **values: float) -> None:
        with self._lock:
            for name, value in values.items():
                self.columns[name][tile] = value
            self._changed.add(tile)

    def _attempted(self, tile: Tile) -> None:
        with self._lock:
            self.columns["attempts"][tile] += 1
            self._changed.add(tile)


def cannot_write(store: Store, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write {store.path}: {error.strerror or error}. What is finished stays; make room, or repair the disk, "
        f"then `{command('resume', store.path)}`"
    )
