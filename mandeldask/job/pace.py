"""How fast a run goes, from its records: the time left is what is pending at the rate so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from mandeldask.job.events import Event, Observer, Plan, Progress, TileDone, TileFailed

EVERY_SECONDS = 1.0


class Pace:
    """Passes events on to an observer, and adds a `Progress` about once a second."""

    def __init__(self, plan: Plan, tell: Observer, clock: Callable[[], float] = time.time) -> None:
        self.plan, self.tell, self.clock = plan, tell, clock
        self.done = self.failed = self.iterations = 0
        self.first, self.last_told = math.inf, -math.inf

    def __call__(self, event: Event) -> None:
        self.tell(event)
        match event:
            case TileDone(record):
                self.done += 1
                self.iterations += record.iterations
                self.first = min(self.first, record.started)
            case TileFailed(final=True):
                self.failed += 1
            case _:
                return
        last = self.done + self.failed == self.plan.pending
        if last or self.clock() >= self.last_told + EVERY_SECONDS:
            self.last_told = self.clock()
            self.tell(self._progress())

    def _progress(self) -> Progress:
        seconds = max(1e-3, self.clock() - self.first)
        pending = self.plan.pending - self.done - self.failed
        samples = self.plan.samples * self.done / self.plan.tiles
        return Progress(
            self.done,
            pending,
            self.failed,
            samples / seconds if self.done else 0.0,
            self.iterations / seconds if self.done else 0.0,
            seconds / self.done * pending if self.done else None,
            self.plan.cluster.workers,
        )
