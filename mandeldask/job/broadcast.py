"""An observer of a run that tells the scheduler, for the dashboard there: small batches, about two a second."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np
from distributed import Client, Scheduler
from numpy.typing import NDArray

from mandeldask.errors import StoreError
from mandeldask.job.events import Event, Plan, Progress, TileDone, TileFailed
from mandeldask.messages import (
    MAX_BATCH,
    MAX_BYTES,
    MAX_ERROR_LENGTH,
    MAX_TILES,
    TILE,
    TOPIC,
    VERSION,
    Grid,
    job_id,
    thumbnail,
)
from mandeldask.tile import Record, statistics

BATCH_SECONDS = 0.4  # a finished tile shows within a second: this, and as much again until the page looks
HEARTBEAT_SECONDS = 5.0  # a word all the same, where nothing happens
ASK_SECONDS = 1.0  # between two looks whether there is a page, until there is
LOOK_BACK_SECONDS = 0.1  # of each batch: reading takes from the driver's time
CLOSE_SECONDS = 5.0  # at most, for what is left when the run ends
logger = logging.getLogger(__name__)


class Broadcast:
    """Sends what happens in a run to the scheduler's topic; a context, whose end tells how the run ended.

    Parameters
    ----------
    client : distributed.Client
        Connected to the scheduler that computes.
    plan : Plan
    columns : mapping of name to array of shape (rows, columns) of tiles
        The store's `tiles` group: what is known of the tiles that were done before.
    done : bool array of that shape
        Which these are.
    name : str, optional
        What the job is called; by default its store's name.

    Whatever goes wrong with sending costs one warning and the rest of the broadcast, never the run.
    """

    def __init__(
        self,
        client: Client,
        plan: Plan,
        columns: Mapping[str, NDArray[Any]],
        done: NDArray[np.bool_],
        name: str | None = None,
    ) -> None:
        d = plan.store.description
        path = plan.store.path
        extent = d.view.extent
        self.client = client
        self.job = {
            "id": job_id(plan.store.identity, path),
            "name": (name or path.rstrip("/").rpartition("/")[2])[:200],
            "run": uuid.uuid4().hex,
            "kernel": plan.kernel,
            "started": time.time(),
            "shape": d.shape,
            "tile": d.tile,
            "max_iter": d.max_iter,
            "x": extent[0],
            "y": extent[1],
        }
        self.store = plan.store
        self._before = list(_before(columns, done))
        self._records: list[Record] = []
        self._failures: list[dict[str, Any]] = []
        self._pace: dict[str, Any] | None = None
        self._ended = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_sending, name="broadcast", daemon=True)
        self._sent = self._asked = 0.0
        self._page = False
        self._silent = done.size > MAX_TILES  # the dashboard would refuse it

    def __enter__(self) -> Broadcast:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = "stopped" if kind else "done"
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)

    def __call__(self, event: Event) -> None:
        """Note an event; never waits."""
        if self._silent:
            return
        with self._lock:
            match event:
                case TileDone(record):
                    self._records.append(record)
                case TileFailed(tile, attempt, error, final):
                    text = error[:MAX_ERROR_LENGTH]
                    self._failures.append({"tile": tile, "attempt": attempt, "error": text, "final": final})
                case Progress():
                    self._pace = vars(event)

    def _keep_sending(self) -> None:
        if self._silent:
            return
        try:
            for part in self._before:
                self._send(tiles=part.tobytes())
            earlier = (row for part in self._before for row in part)
            resumed = any(map(len, self._before))
            while not self._stop.wait(BATCH_SECONDS):
                self._send_batch()
                if resumed and self._has_page():
                    self._look_back(earlier)
            self._send_batch(self._ended)
        except Exception as error:
            self._silent = True
            # that the scheduler is gone the driver tells, with the remedy
            level = logging.WARNING if self.client.status == "running" else logging.INFO
            logger.log(level, "the dashboard is told no more of this run: %r", error)

    def _send_batch(self, ended: str = "") -> None:
        with self._lock:
            records, self._records = self._records, []
            failures, self._failures = self._failures, []
            pace, self._pace = self._pace, None
        news = {"failures": failures[-MAX_BATCH:], "pace": pace}
        for part in _batches(records):
            self._send(**_packed(part))
        if failures or pace or ended or time.monotonic() >= self._sent + HEARTBEAT_SECONDS:
            self._send(**news, ended=ended)

    def _has_page(self) -> bool:
        """Whether there is a page to read the store for: it may come after the run has begun."""
        now = time.monotonic()
        if not self._page and now >= self._asked + ASK_SECONDS:
            self._asked = now
            try:
                self._page = bool(self.client.run_on_scheduler(_is_shown))
            except Exception:  # a scheduler that lacks mandeldask will have no page
                self._asked = math.inf
        return self._page

    def _look_back(self, earlier: Iterator[np.void]) -> None:
        """Read thumbnails of tiles that were done before, for a moment: they are in their mean colour until then."""
        d = self.store.description
        grid, deadline = Grid(d.shape, d.tile), time.monotonic() + LOOK_BACK_SECONDS
        rows, small, size = [], [], 0
        while size < MAX_BYTES // 2 and time.monotonic() < deadline and (row := next(earlier, None)) is not None:
            tile = int(row["row"]), int(row["column"])
            try:
                samples = self.store.read(tile)
            except (OSError, StoreError):  # a damaged tile stays as it is
                continue
            if not row["minimum"]:  # a driver that was killed took the figures with it
                row["iterations"], row["minimum"], row["maximum"], _ = statistics(samples, d.max_iter)
            rows.append(row)
            small.append(thumbnail(samples, grid, tile, d.max_iter))
            size += len(small[-1])
        if rows:
            self._send(tiles=np.array(rows, TILE).tobytes(), thumbnails=b"".join(small))

    def _send(self, **news: Any) -> None:
        self._sent = time.monotonic()
        self.client.log_event(TOPIC, {"version": VERSION, "job": self.job, **news})


def _is_shown(dask_scheduler: Scheduler | None = None) -> bool:
    """On the scheduler: whether the plugin of `mandeldask.dashboard` is there, and has a page."""
    plugin = dask_scheduler.plugins.get(TOPIC) if dask_scheduler else None
    return plugin is not None and not plugin.problem


def _before(columns: Mapping[str, NDArray[Any]], done: NDArray[np.bool_]) -> Iterator[NDArray[np.void]]:
    """Tables of what is known of the tiles that were done before; one that is empty where there are none."""
    tiles = np.argwhere(done)
    for start in range(0, max(1, len(tiles)), MAX_BATCH):
        part = tiles[start : start + MAX_BATCH]
        table = np.zeros(len(part), TILE)
        table["row"], table["column"] = part.T
        for name in ("seconds", "iterations", "minimum", "maximum"):
            table[name] = columns[name][*part.T]
        table["worker"] = -1
        yield table


def _batches(records: list[Record]) -> Iterator[list[Record]]:
    """Parts of at most MAX_BATCH records and, but for a single larger one, half of MAX_BYTES."""
    rest = iter(records)
    part: list[Record] = []
    size = 0
    for record in rest:
        if part and (len(part) == MAX_BATCH or size + len(record.thumbnail) > MAX_BYTES // 2):
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record.thumbnail)
    if part:
        yield part


def _packed(records: list[Record]) -> dict[str, Any]:
    workers = {name: k for k, name in enumerate(dict.fromkeys(r.worker for r in records))}
    table = np.array(
        [(*r.tile, r.seconds, r.iterations, r.minimum, r.maximum, workers[r.worker]) for r in records], TILE
    )
    return {
        "tiles": table.tobytes(),
        "thumbnails": b"".join(r.thumbnail for r in records),
        "workers": tuple(workers),
    }
