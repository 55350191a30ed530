"""Times taken in alternation, so that a busy machine slows all variants alike, with CPU seconds beside wall seconds."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import psutil

Call = Callable[[], Any]
Tell = Callable[[str], None]  # is told what is measured next

SETTLE_SECONDS = 1.0  # at most, to wait for threads that spin


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some measurements."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    def near(self, threshold: float) -> bool:
        """Whether a threshold lies within the noise: between the quartiles, or within 5 % of the median."""
        return self.low <= threshold <= self.high or abs(self.median - threshold) <= 0.05 * threshold

    def text(self, unit: str = "") -> str:
        """The median with its quartiles: 1.9x (1.8 to 2.0), or 502 ms (490 ms to 520 ms) for the unit s."""
        if unit == "s":
            return f"{seconds(self.median)} ({seconds(self.low)} to {seconds(self.high)})"
        return f"{self.median:.3g}{unit} ({self.low:.3g} to {self.high:.3g})"


def seconds(value: float) -> str:
    """2.31 s, 502 ms, 7.02 ms: three digits."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


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


@dataclass
class OtherPrograms:
    """How many cores other programs took while the context lasted."""

    taken: float = 0.0

    def __enter__(self) -> OtherPrograms:
        self.before = time.perf_counter(), _own_cpu(), _machine_cpu()
        return self

    def __exit__(self, *error: object) -> None:
        wall, own, machine = self.before
        others = (_machine_cpu() - machine) - (_own_cpu() - own)
        self.taken = max(0.0, others / (time.perf_counter() - wall))

    def crowd(self, needed: int) -> bool:
        """Whether they left less than nine tenths of the cores that a fair figure needs."""
        return (os.cpu_count() or 1) - self.taken < 0.9 * needed


def _machine_cpu() -> float:
    """CPU seconds that the whole machine has spent."""
    t = psutil.cpu_times()
    return sum(getattr(t, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))


def _own_cpu() -> float:
    """CPU seconds of this process and of its children, alive and ended."""
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in psutil.Process().children(recursive=True):
        try:
            used = child.cpu_times()
        except psutil.Error:  # ended in the meantime
            continue
        total += used.user + used.system
    return total


def clocked(call: Call, repeats: int = 1) -> Run:
    """Time `repeats` calls in a row; the run is of one of them."""
    cpu, caller, wall = time.process_time(), time.thread_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    spent = time.perf_counter() - wall, time.process_time() - cpu, time.thread_time() - caller
    return Run(*(s / repeats for s in spent))


def repeats_for(call: Call, at_least: float) -> int:
    """How many calls last about `at_least` seconds. The calls made to find out are a warm-up; 0 seconds takes one."""
    call()
    if not at_least:
        return 1
    return max(1, math.ceil(at_least / max(clocked(call).wall, 1e-7)))


def in_turns(
    calls: Mapping[str, Call],
    turns: int,
    at_least: float = 0.03,
    within: Mapping[str, Callable[[], AbstractContextManager[Any]]] | None = None,
    warm: bool = False,
    tell: Tell = lambda _: None,
) -> dict[str, list[Run]]:
    """Time each call once a turn, every second turn in the opposite order; each measurement lasts `at_least` seconds.

    The i-th runs of two calls belong to one turn, so their ratio is fair on a noisy machine. A call named in `within`
    is measured inside that context, whose own time does not count. `warm` calls need no warm-up, and are called once
    a turn.
    """
    contexts = dict.fromkeys(calls, nullcontext) | dict(within or {})
    repeats = dict.fromkeys(calls, 1)
    for name, call in () if warm else calls.items():
        tell(f"warming up, {name}")
        with contexts[name]():
            repeats[name] = repeats_for(call, at_least)
    _settle()
    runs: dict[str, list[Run]] = {name: [] for name in calls}
    for turn in range(turns):
        for name in list(calls)[:: -1 if turn % 2 else 1]:
            tell(f"turn {turn + 1} of {turns}, {name}")
            with contexts[name]():
                runs[name].append(clocked(calls[name], repeats[name]))
    return runs


def _settle() -> None:
    """Wait until no other thread of this process takes CPU: a BLAS's threads spin for a while after a call."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        before, wall = time.process_time(), time.monotonic()
        time.sleep(0.03)  # longer than another program keeps a spinning thread from its core
        if time.process_time() - before < 0.05 * (time.monotonic() - wall):
            return


def ratio(over: Sequence[Run], under: Sequence[Run]) -> Spread:
    """The wall seconds of one over the other's, turn by turn."""
    return Spread.of([a.wall / b.wall for a, b in zip(over, under, strict=True)])
