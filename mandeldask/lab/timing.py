"""How the lab takes a time: in turns, so that a busy machine slows all alike, with CPU seconds beside wall seconds."""

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

QUIET_SECONDS = 1.0  # at most, to wait for threads that spin


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
        """The median with its quartiles: 1.9x (1.8 to 2.0)."""
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


def settle() -> None:
    """Wait until no other thread of this process takes CPU: a BLAS's threads spin for a while after a call."""
    deadline = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        before, wall = time.process_time(), time.monotonic()
        time.sleep(0.03)  # longer than another program keeps a spinning thread from its core
        if time.process_time() - before < 0.05 * (time.monotonic() - wall):
            return


@dataclass
class Neighbours:
    """Cores that other programs took while the context lasted, and whether too few were left for a fair figure."""

    taken: float = 0.0

    def __enter__(self) -> Neighbours:
        self.before = time.perf_counter(), _own(), _busy()
        return self

    def __exit__(self, *error: object) -> None:
        wall, own, machine = self.before
        others = (_busy() - machine) - (_own() - own)
        self.taken = max(0.0, others / (time.perf_counter() - wall))

    def crowd(self, needed: int) -> bool:
        """Whether they left less than nine tenths of the cores needed."""
        return (os.cpu_count() or 1) - self.taken < 0.9 * needed


def _busy() -> float:
    """CPU seconds that the whole machine has spent."""
    t = psutil.cpu_times()
    return sum(getattr(t, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))


def clocked(call: Call, repeats: int = 1) -> Run:
    """Time `repeats` calls in a row; the run is of one of them."""
    cpu, caller, wall = time.process_time(), time.thread_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    seconds = time.perf_counter() - wall, time.process_time() - cpu, time.thread_time() - caller
    return Run(*(s / repeats for s in seconds))


def _own() -> float:
    """CPU seconds of this process and of its children, alive and ended."""
    times = os.times()
    alive = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            used = child.cpu_times()
        except psutil.Error:  # ended in the meantime
            continue
        alive += used.user + used.system
    return time.process_time() + times.children_user + times.children_system + alive


def repeats_for(call: Call, seconds: float) -> int:
    """How many calls last about `seconds`; the calls that find out are a warm-up, one of them for 0 seconds."""
    call()
    if not seconds:
        return 1
    once = clocked(call).wall
    return max(1, math.ceil(seconds / max(once, 1e-7)))


def in_turns(
    calls: Mapping[str, Call],
    turns: int,
    at_least: float = 0.03,
    within: Mapping[str, Callable[[], AbstractContextManager[Any]]] | None = None,
    warm: bool = False,
    tell: Tell | None = None,
) -> dict[str, list[Run]]:
    """Time each call once a turn, every second turn in the opposite order; each measurement lasts `at_least` seconds.

    The i-th runs of two calls belong to one turn, so their ratio is a fair one on a noisy machine. A call named in
    `within` is measured inside that context, whose own time does not count. Calls that are `warm` already are not
    called before they are timed, and once a turn.
    """
    say = tell or (lambda _: None)
    contexts = {name: (within or {}).get(name, nullcontext) for name in calls}
    repeats = dict.fromkeys(calls, 1)
    for name, call in () if warm else calls.items():
        say(f"warming up, {name}")
        with contexts[name]():
            repeats[name] = repeats_for(call, at_least)
    settle()
    names = list(calls)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for turn in range(turns):
        for name in names if turn % 2 == 0 else names[::-1]:
            say(f"turn {turn + 1} of {turns}, {name}")
            with contexts[name]():
                runs[name].append(clocked(calls[name], repeats[name]))
    return runs


def ratio(over: Sequence[Run], under: Sequence[Run]) -> Spread:
    """The wall seconds of one over the other's, turn by turn."""
    return Spread.of([a.wall / b.wall for a, b in zip(over, under, strict=True)])
