"""An observer of a run that reports to the scheduler's dashboard: about one event a second.

What each tile looks like its worker tells. The reporter tells how far the run is, which tiles failed, and, where the
page came later than the tiles, what the store has of them.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from mandeldask.errors import StoreError
from mandeldask.job.events import Event, Plan, TileDone
from mandeldask.telemetry import (
    MAX_SHOWN,
    MAX_TEXT,
    TOPIC,
    DriverEvent,
    JobInfo,
    Progress,
    Tile,
    TileEvent,
    TileFailed,
    job_id,
    previews_wanted,
)
from mandeldask.tile import statistics

REPORT_SECONDS = 1.0
READ_SECONDS = 0.2  # of each second, at most: reading the store takes from the driver's time
TILES_AT_ONCE = 1000  # in an event
CLOSE_SECONDS = 5.0  # at most, for the last event when the run ends
logger = logging.getLogger(__name__)


class Reporter:
    """Sends the news of a run to the scheduler's topic; a context, whose end tells how the run ended.

    `columns` are the arrays of the store's `tiles` group, kept up to date while the run goes on; `done` says of each
    tile whether it was done before; `name` is what the job is called, by default as its store.

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
        self._failures: deque[TileFailed] = deque()
        self._progress: Progress | None = None
        self._ended = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_reporting, name="reporter", daemon=True)
        self._page = False  # whether there was one
        self._read: set[Tile] = set()
        self._silent = done.size > MAX_SHOWN  # the dashboard would refuse it

    def __enter__(self) -> Reporter:
        self._guarded(self._report)  # before a worker tells of its first tile
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended = "stopped" if kind else "done"
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)

    def __call__(self, event: Event) -> None:
        """Note an event; never waits for the network."""
        match event:
            case TileDone(record):
                self.done[record.tile] = True
            case TileFailed(error=error):
                self._failures.append(replace(event, error=error[:MAX_TEXT]))
            case Progress():
                self._progress = event

    def _keep_reporting(self) -> None:
        while not self._stop.wait(REPORT_SECONDS):
            self._guarded(self._report)
            self._guarded(self._serve_page)
        self._guarded(self._serve_page)  # a run may end within its first second
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
        failures = [self._failures.popleft() for _ in range(len(self._failures))]
        self._send(progress=self._progress, failures=failures, ended=self._ended)

    def _send(self, **news: Any) -> None:
        self.client.log_event(TOPIC, asdict(DriverEvent(self.job, **news)))

    def _serve_page(self) -> None:
        """Send a page what it has missed: the figures of finished tiles once, previews as long as some are wanted."""
        wanted = None
        with suppress(ImportError):  # a scheduler without mandeldask has no page
            wanted = self.client.run_on_scheduler(previews_wanted, self.job.id)
        if wanted is None:
            return
        if not self._page:
            self._page = True
            known = [self._figures((row, column)) for row, column in np.argwhere(self.done).tolist()]
            for start in range(0, len(known), TILES_AT_ONCE):
                self._send(tiles=known[start : start + TILES_AT_ONCE])
        deadline = time.monotonic() + READ_SECONDS
        for tile in wanted:
            if tile not in self._read and time.monotonic() < deadline:
                self._read.add(tile)
                with suppress(OSError, StoreError):  # a damaged tile stays in its mean colour
                    self._send(tiles=[self._look(tile)])

    def _figures(self, tile: Tile) -> TileEvent:
        """What the store's table says of a tile."""
        known = {name: self.columns[name][tile].item() for name in ("seconds", "iterations", "minimum", "maximum")}
        return TileEvent(self.job.id, tile, **known, worker="", preview=b"")

    def _look(self, tile: Tile) -> TileEvent:
        """What the store itself says of it."""
        samples = self.store.read(tile)
        figures = statistics(samples, self.job.max_iter)[:3]
        preview = self.job.preview.encode(samples, tile)
        return TileEvent(self.job.id, tile, float(self.columns["seconds"][tile]), *figures, "", preview)


def _describe(plan: Plan, name: str | None) -> JobInfo:
    d, path = plan.store.description, plan.store.path
    name = (name or path.rstrip("/").rpartition("/")[2])[:MAX_TEXT]
    known = job_id(plan.store.identity, path), name, uuid.uuid4().hex, plan.kernel, time.time()
    return JobInfo(*known, d.shape, d.tile, d.max_iter, *d.view.extent)
