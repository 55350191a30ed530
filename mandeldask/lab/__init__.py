"""The lesson, measured on the machine at hand: what NumPy parallelises, and the Mandelbrot case by each strategy.

`lesson` holds the lesson's functions, `machine` describes what there is to compute with. `claims` tests the lesson's
sentences, `strategies` computes one `workload` in every way. What they find is a value as JSON takes it, which `tables`
and the page of `report` show. Times are taken here, in alternation, so that a busy machine slows all variants alike,
with CPU seconds beside wall seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mandeldask.text import short_time

Row = dict[str, Any]  # a result as JSON takes it: each spread in it is a dict of its fields
Call = Callable[[], Any]
Tell = Callable[[str], None]  # is told what is measured next


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some measurements."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = np.percentile(values, (25, 50, 75)).tolist()
        return cls(median, low, high, len(values))

    def near(self, threshold: float) -> bool:
        """Whether a threshold lies within the noise: between the quartiles, or within 5 % of the median."""
        return self.low <= threshold <= self.high or abs(self.median - threshold) <= 0.05 * threshold

    def text(self, unit: str = "") -> str:
        """The median with its quartiles: 1.9x (1.8 to 2.0), or 502 ms (490 ms to 520 ms) for the unit s."""
        if unit == "s":
            return f"{short_time(self.median)} ({short_time(self.low)} to {short_time(self.high)})"
        return f"{self.median:.3g}{unit} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True)
class Run:
    """One timed call: seconds of wall clock, of CPU in the process, of CPU in the calling thread."""

    wall: float
    cpu: float
    caller: float

    @property
    def cores(self) -> float:
        """Cores in use on average: CPU seconds over wall seconds."""
        return self.cpu / self.wall

    @property
    def threads(self) -> float:
        """All threads' CPU seconds over the calling thread's: 1 where it works alone, however busy the machine is."""
        return max(1.0, self.cpu / max(self.caller, 1e-9))


def _clocked(call: Call, repeats: int = 1) -> Run:
    """Time `repeats` calls in a row; the run is of one of them."""
    cpu, caller, wall = time.process_time(), time.thread_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    spent = time.perf_counter() - wall, time.process_time() - cpu, time.thread_time() - caller
    return Run(*(s / repeats for s in spent))


def in_turns(
    calls: Mapping[str, Call], turns: int, at_least: float = 0.0, tell: Tell = lambda _: None
) -> dict[str, list[Run]]:
    """Time each call once a turn, every second turn in the opposite order.

    The i-th runs of two calls belong to one turn, so their ratio is fair on a noisy machine. With `at_least`, calls are
    warmed up and then repeated, so that each measurement lasts so many seconds.
    """
    repeats = dict.fromkeys(calls, 1)
    if at_least:
        for name, call in calls.items():
            tell(f"warming up, {name}")
            call()
            repeats[name] = math.ceil(at_least / max(_clocked(call).wall, 1e-7))
    runs: dict[str, list[Run]] = {name: [] for name in calls}
    for turn in range(turns):
        for name in list(calls)[:: -1 if turn % 2 else 1]:
            tell(f"turn {turn + 1} of {turns}, {name}")
            runs[name].append(_clocked(calls[name], repeats[name]))
    return runs


def ratio(over: Sequence[Run], under: Sequence[Run]) -> Spread:
    """The wall seconds of one over the other's, turn by turn."""
    return Spread.of([a.wall / b.wall for a, b in zip(over, under, strict=True)])
