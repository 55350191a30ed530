"""An observer of a run that reports to the scheduler's dashboard: about one event a second.

What each tile looks like its worker tells. The reporter tells how far the run is, which tiles failed, and, where the
page came later than the tiles, what the store has of them.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from mandeldask.errors import StoreError
from mandeldask.job.events import Event, Plan, Progress, TileDone, TileFailed
from mandeldask.telemetry import (
    KNOWN_TILE,
    MAX_BYTES,
    MAX_FAILURES,
    MAX_TEXT,
    MAX_TILES,
    TOPIC,
    DriverEvent,
    Failure,
    JobInfo,
    Tile,
    job_id,
    previews_wanted,
    tile_event,
)
from mandeldask.tile import Record, statistics

REPORT_SECONDS = 1.0
READ_SECONDS = 0.2  # of each second, at most: reading the store takes from the driver's time
CLOSE_SECONDS = 5.0  # at most, for the last event when the run ends
TABLE_TILES = MAX_BYTES // KNOWN_TILE.itemsize
logger = logging.getLogger(__name__)


class Reporter:
    """Sends the news of a run to the scheduler's topic; a context, whose end tells how the run ended.

    Parameters
    ----------
    client : distributed.Client
        Connected to the scheduler that computes.
    plan : Plan
    columns : mapping of name to array of shape (rows, columns) of tiles
        The store's `tiles` group, kept up to date while the run goes on.
    done : bool array of that shape
        The tiles that were done before.
    name : str, optional
        What the job is called; by default its store's name.

    A failure to send costs one warning and the dashboard's news, never the run.
    """

    def __init__(
        self,
        client: Client,
        plan: Plan,
        columns: Mapping[str, NDArray[Any]],
        done: NDArray[np.bool_],
        name: str | None = None,
    ) -> None:
        self.client, self.store, self.columns, self.done = client, plan.store, columns, done.copy()
        self.job = _describe(plan, name)
        self._failures: list[Failure] = []
        self._progress: Progress | None = None
        self._ended = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_reporting, name="reporter", daemon=True)
        self._page = False
        self._tried: set[Tile] = set()
        self._silent = done.size > MAX_TILES  # the dashboard would refuse it

    def __enter__(self) -> Reporter:
        self._guarded(self._report)  # before a worker tells of its first tile
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = "stopped" if kind else "done"
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)

    def __call__(self, event: Event) -> None:
        """Note an event; never waits for the network."""
        with self._lock:
            match event:
                case TileDone(record):
                    self.done[record.tile] = True
                case TileFailed(tile, attempt, error, final):
                    self._failures.append(Failure(tile, attempt, error[:MAX_TEXT], final))
                case Progress():
                    self._progress = event

    def _keep_reporting(self) -> None:
        while not self._stop.wait(REPORT_SECONDS):
            self._guarded(self._report)
            self._guarded(self._serve_page)
        self._guarded(self._report)

    def _guarded(self, report: Callable[[], None]) -> None:
        if self._silent:
            return
        try:
            report()
        except Exception as error:
            self._silent = True
            # The driver itself reports a lost scheduler, with the remedy.
            level = logging.WARNING if self.client.status == "running" else logging.INFO
            logger.log(level, "the dashboard gets no more news of this run: %r", error)

    def _report(self) -> None:
        with self._lock:
            failures, self._failures = self._failures[-MAX_FAILURES:], []
        self._send(DriverEvent(self.job, self._progress, failures, ended=self._ended))

    def _send(self, event: DriverEvent) -> None:
        self.client.log_event(TOPIC, event.to_dict())

    def _serve_page(self) -> None:
        """Send a page what it has missed: the table of finished tiles once, and previews as long as some are wanted."""
        try:
            wanted = self.client.run_on_scheduler(previews_wanted, self.job.id)
        except ImportError:  # a scheduler without mandeldask has no page
            return
        if wanted is None:
            return
        if not self._page:
            self._page = True
            self._send_table()
        deadline = time.monotonic() + READ_SECONDS
        for tile in wanted:
            if tile not in self._tried and time.monotonic() < deadline:
                self._send_preview(tile)

    def _send_table(self) -> None:
        tiles = np.argwhere(self.done)
        for start in range(0, len(tiles), TABLE_TILES):
            part = tiles[start : start + TABLE_TILES]
            table = np.zeros(len(part), KNOWN_TILE)
            table["row"], table["column"] = part.T
            for name in ("seconds", "iterations", "minimum", "maximum"):
                table[name] = self.columns[name][*part.T]
            self._send(DriverEvent(self.job, table=table.tobytes()))

    def _send_preview(self, tile: Tile) -> None:
        """Read a tile that is done, and tell of it as its worker would have."""
        self._tried.add(tile)
        try:
            samples = self.store.read(tile)
        except (OSError, StoreError):  # a damaged tile stays in its mean colour
            return
        preview = self.job.preview.encode(samples, tile)
        seconds = float(self.columns["seconds"][tile])
        record = Record(tile, seconds, *statistics(samples, self.job.max_iter), "", 0.0, 0.0, preview)
        self.client.log_event(TOPIC, tile_event(self.job.id, record))


def _describe(plan: Plan, name: str | None) -> JobInfo:
    d, path = plan.store.description, plan.store.path
    x, y = d.view.extent
    return JobInfo(
        id=job_id(plan.store.identity, path),
        name=(name or path.rstrip("/").rpartition("/")[2])[:MAX_TEXT],
        run=uuid.uuid4().hex,
        kernel=plan.kernel,
        started=time.time(),
        shape=d.shape,
        tile=d.tile,
        max_iter=d.max_iter,
        x=x,
        y=y,
    )
