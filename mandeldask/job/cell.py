"""What a notebook's cell shows while a run or a job goes on: a bar, and the picture as it forms."""

from __future__ import annotations

import importlib
import time
from contextlib import suppress
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from mandeldask.dashboard import picture_of
from mandeldask.errors import ClusterError
from mandeldask.job.events import Event, Notice, Orbit, Plan, Started, Summary, TileDone
from mandeldask.job.job_status import SPACE, Status, on_scheduler
from mandeldask.job.notebook import forming, with_image
from mandeldask.telemetry import Progress, TileFailed
from mandeldask.text import duration, plural
from mandeldask.tile import Record

SHOW_SECONDS = 0.5  # between two updates


class _Display:
    """A place in the cell's output, which is drawn anew at most twice a second."""

    def __init__(self) -> None:
        self.ipython: Any = importlib.import_module("IPython.display")
        self.handle: Any = None
        self.shown = 0.0

    def show(self, text: str) -> None:
        self.shown = time.monotonic()
        if self.handle:
            self.handle.update(self.ipython.HTML(text))
        else:
            self.handle = self.ipython.display(self.ipython.HTML(text), display_id=True)


class Cell:
    """An observer of a run that shows it in a notebook's cell."""

    def __init__(self) -> None:
        self.display = _Display()
        self.facts: dict[str, str] = {}
        self.plan: Plan | None = None
        self.samples: NDArray[np.int32] | None = None
        self.progress: Progress | None = None
        self.done = self.failed = 0

    def __call__(self, event: Event) -> None:
        match event:
            case Notice(text, about):
                self.facts.pop("orbit", None)
                self._note(about, text)
            case Orbit():
                self.facts["orbit"] = event.words
            case Plan():
                self.plan, self.samples, self.done = event, event.preview(), event.done
                for label, text in (event.facts | {"cluster": str(event.cluster)}).items():
                    self._note(label, text)
            case Started(link):
                self._note("dashboard", link or "switched off")
            case TileDone(record):
                self._done(record)
            case TileFailed(final=final):
                self.failed += final
            case Progress():
                self.progress = event
            case Summary():
                self.facts = {}  # which the summary itself shows
                vars(event)["drawn"] = True
        due = time.monotonic() - self.display.shown >= SHOW_SECONDS
        if due or not isinstance(event, TileDone | TileFailed | Progress | Orbit):
            self.display.show(self._html(event))

    def _note(self, label: str, text: str) -> None:
        self.facts[label] = "\n".join(filter(None, (self.facts.get(label), text)))

    def _done(self, record: Record) -> None:
        assert self.plan is not None and self.samples is not None
        self.done += 1
        cells = self.plan.grid.cells(record.tile)
        self.samples[cells] = self.plan.grid.decode(record.preview, cells)

    def _html(self, event: Event) -> str:
        if self.plan is None or self.samples is None:
            return with_image("", self.facts, 0, 1, "getting ready")
        image = forming(self.samples, self.plan.grid.max_iter)
        tiles = f"{self.done}/{plural(self.plan.tiles, 'tile')}"
        rate = self.progress.rate if self.progress else ""
        if isinstance(event, Summary):
            tiles, rate = f"{tiles} in {duration(event.seconds)}", ""
        failed = f"{self.failed} failed" if self.failed else ""
        words = ", ".join(filter(None, (tiles, failed, rate)))
        return with_image(image, self.facts, self.done, self.plan.tiles, words)


class Watcher:
    """Shows each status of a job in a notebook's cell, with the picture that its scheduler's page has."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.display = client, _Display()
        self.id = client.get_metadata([SPACE, name, "id"], default="")
        self.stamp, self.image = -1, ""

    def __call__(self, status: Status) -> None:
        with suppress(ClusterError):
            if news := on_scheduler(self.client, picture_of, self.id, self.stamp):
                self.stamp, self.image = news[0], forming(*news[1:])
        facts = {"job": str(status.job), "store": status.store, "why": (status.ended and status.message) or ""}
        self.display.show(with_image(self.image, facts, status.done, status.tiles, status.words))
