"""What the driver learns of each tile, kept in the store's `tiles` group, and the lease that keeps others out."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import psutil
from dask.utils import format_bytes
from numpy.typing import NDArray

from mandeldask.errors import DamagedError, StoreError
from mandeldask.job.pulse import every
from mandeldask.store import AnyPath, Store, Tile, open_store
from mandeldask.tile import LevelTile, Record, statistics

FLUSH_SECONDS = 2.0
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # a driver elsewhere that has been silent so long is gone
AHEAD_SECONDS = 3600.0  # by which the clock of a driver elsewhere may be ahead; more would hold the store for ever
SWEEP_SECONDS = 60.0  # a writer ends within seconds of its scheduler, and its file grows while it writes
RESERVED_SECONDS = 600.0  # the same of a job whose driver has not begun: workers may be busy, or still to come
_HELD: set[str] = set()  # leases of this process
MAX_ERRORS = 100  # kept in the store; each cut to MAX_ERROR_LENGTH characters
MAX_ERROR_LENGTH = 500


@dataclass
class Totals:
    """What this run has done so far: a few numbers, however many tiles."""

    tiles: int = 0
    levels: int = 0  # tiles of the levels
    iterations: int = 0
    kernel_seconds: float = 0.0
    started: float = math.inf
    finished: float = -math.inf


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
        self._writing = threading.Lock()

    def add(self, record: Record) -> None:
        """Enter a finished tile."""
        with self._lock:
            for name in ("seconds", "iterations", "minimum", "maximum", "not_escaped"):
                self.columns[name][record.tile] = getattr(record, name)
            self.columns["attempts"][record.tile] += 1
            self._changed.add(record.tile)
            total = self.this_run
            total.tiles += 1
            total.iterations += record.iterations
            total.kernel_seconds += record.seconds
            total.started = min(total.started, record.started)
            total.finished = max(total.finished, record.finished)
            if self.errors.pop(name_of(record.tile), None) is not None:
                self._errors_changed = True

    def fail(self, tile: Tile, error: str) -> None:
        """Enter a failed computation."""
        with self._lock:
            self.columns["attempts"][tile] += 1
            self._changed.add(tile)
        self.note(name_of(tile), error)

    def forget(self, tile: Tile) -> None:
        """Forget what was known of a tile: it is computed again, or read again by `complete`."""
        with self._lock:
            for column in self.columns.values():
                column[tile] = 0
            self._changed.add(tile)

    def note(self, name: str, error: str) -> None:
        """Enter what happened to a tile of a level."""
        with self._lock:
            if len(self.errors) < MAX_ERRORS or name in self.errors:
                self.errors[name] = error[:MAX_ERROR_LENGTH]
                self._errors_changed = True

    def made(self, name: str) -> None:
        """Enter a tile of a level that was made, and forget what happened to it before."""
        with self._lock:
            self.this_run.levels += 1
            self._errors_changed |= self.errors.pop(name, None) is not None

    def complete(self, done: NDArray[np.bool_]) -> None:
        """Read from their shards what is not known of finished tiles: a killed driver lost its last seconds."""
        for i, j in np.argwhere(done & (self.columns["minimum"] == 0)).tolist():
            try:
                values = statistics(self.store.read((i, j)), self.store.description.max_iter)
            except (DamagedError, OSError):  # `mandeldask verify` will tell
                continue
            with self._lock:
                for name, value in zip(("iterations", "minimum", "maximum", "not_escaped"), values, strict=True):
                    self.columns[name][i, j] = value
                self._changed.add((i, j))

    def flush(self) -> None:
        """Write what changed since the last time."""
        with self._writing:
            with self._lock:
                changed, self._changed = self._changed, set()
                errors = dict(self.errors) if self._errors_changed else None
                self._errors_changed = False
                columns = {name: column.copy() for name, column in self.columns.items()} if changed else {}
            try:
                if changed:
                    self.store.write_tiles(columns, changed)
                notes: dict[str, Any] = {} if errors is None else {"errors": errors or None}
                progress, self.progress = self.progress, None
                if progress is not None:
                    notes["progress"] = progress
                if notes:
                    self.store.write_notes(**notes)
            except (OSError, StoreError):  # the next time may serve
                with self._lock:
                    self._changed |= changed
                    self._errors_changed |= errors is not None
                raise

    @contextmanager
    def kept(self, job: str | None = None, run: str | None = None) -> Iterator[None]:
        """Hold the store's lease and flush every few seconds, until the context ends.

        `job` is the name of a submitted job, `run` the submission: its driver may be started again elsewhere, and
        takes its own lease over.

        Raises
        ------
        StoreError
            Another driver that lives holds the lease.
        """
        refuse_second_driver(self.store, run)
        mine: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "id": uuid.uuid4().hex,
        }
        if job:
            mine |= {"job": job, "run": run}
        try:
            self.store.write_notes(job=job)
            hold(self.store, mine)
        except OSError as error:
            raise cannot_write(self.store, error) from None
        _HELD.add(mine["id"])
        try:
            with (
                every(HEARTBEAT_SECONDS, partial(self._beat, mine), "lease"),
                every(FLUSH_SECONDS, self.flush, "ledger"),
            ):
                yield
        finally:
            _HELD.discard(mine["id"])
            with suppress(OSError, StoreError):  # full, or replaced: the lease of a driver that is gone binds nobody
                self.flush()
                lease = self.store.read_notes().get("lease")
                if isinstance(lease, dict) and lease.get("id") == mine["id"]:
                    self.store.write_notes(lease=None)

    def _beat(self, mine: dict[str, Any]) -> None:
        with self._writing:
            if mine["id"] in _HELD:  # not after its end, where a slow disk had it wait
                hold(self.store, mine)


@contextmanager
def swept(store: Store, say: Callable[[str], None]) -> Iterator[None]:
    """Remove the partial files of writers that died before this run; to be held within its lease, which is theirs else.

    At the beginning only those are gone for sure that have written nothing for a while; the rest is at the end.
    """
    begun = time.time()
    _sweep(store, begun - SWEEP_SECONDS, say)
    yield
    _sweep(store, begun, say)


def _sweep(store: Store, older: float, say: Callable[[str], None]) -> None:
    with suppress(OSError):  # of files that nobody reads
        if size := store.place.sweep(older):
            say(f"swept {format_bytes(size)} that writers who died had left")


def hold(store: Store, lease: Mapping[str, Any]) -> None:
    """Write the lease, with a heartbeat."""
    store.write_notes(lease={**lease, "heartbeat": time.time()})


def cannot_write(store: Store, error: OSError) -> StoreError:
    """What to say of a disk that refuses."""
    return StoreError(
        f"cannot write {store.path}: {error.strerror or error}. What is finished stays; make room or mend it, then "
        f"`mandeldask resume {store.path}`"
    )


def name_of(tile: Tile | LevelTile) -> str:
    """The name of a tile in errors and attributes: "row,column", or "level 2: row,column"."""
    return f"{tile[0]},{tile[1]}" if len(tile) == 2 else f"level {tile[0]}: {tile[1]},{tile[2]}"


def refuse_second_driver(store: Store, run: str | None = None) -> None:
    """Raise StoreError when a driver that lives, of another run, holds the store's lease."""
    lease = store.read_notes().get("lease")
    if not isinstance(lease, dict) or not is_alive(lease) or (run and lease.get("run") == run):
        return
    if lease.get("job"):
        after = RESERVED_SECONDS if is_reserved(lease) else STALE_SECONDS
        raise StoreError(
            f"job {lease['job']} is writing {store.path}: `mandeldask wait {store.path}`, or cancel it; "
            f"a job that is lost with its cluster is forgotten after {after:.0f} s"
        )
    raise StoreError(
        f"another run is writing {store.path}: process {lease.get('pid')} on {lease.get('host')}. "
        f"Wait for it or end it; a run that died on another host is forgotten after {STALE_SECONDS:.0f} s"
    )


def reserve(store: Store, job: str, run: str) -> None:
    """Hold the store for a job whose driver is yet to begin; the hold of a driver that did is left alone.

    Raises
    ------
    StoreError
        A driver that lives, or another job, holds it.
    """
    refuse_second_driver(store, run)
    lease = store.read_notes().get("lease")
    if not isinstance(lease, dict) or is_reserved(lease) or not is_alive(lease):
        hold(store, {"job": job, "run": run, "host": socket.gethostname()})


def is_reserved(lease: Mapping[str, Any]) -> bool:
    """Whether the lease is that of a job whose driver has not begun."""
    return bool(lease.get("job")) and "pid" not in lease


def let_go(path: AnyPath, run: str) -> None:
    """Take back what `reserve` did, for a job that is not to be."""
    store = open_store(path)
    lease = store.read_notes().get("lease")
    if isinstance(lease, dict) and is_reserved(lease) and lease.get("run") == run:
        store.write_notes(lease=None)


def is_alive(lease: dict[str, Any]) -> bool:
    """Whether the driver that wrote the lease still works, as far as can be told from here."""
    try:
        if lease.get("job") or lease["host"] != socket.gethostname():
            silent = time.time() - float(lease["heartbeat"])
            return -AHEAD_SECONDS <= silent <= (RESERVED_SECONDS if is_reserved(lease) else STALE_SECONDS)
        if lease["pid"] == os.getpid():
            return lease.get("id") in _HELD
        age = psutil.Process(int(lease["pid"])).create_time() - float(lease["started"])
        return abs(age) < 1
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return False
