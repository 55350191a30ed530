"""The run on the terminal: the plan, a bar with rate and time left, the summary; elsewhere plain lines."""

from __future__ import annotations

import math
import shutil
import threading
import time
from types import TracebackType

from dask.utils import format_bytes
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mandeldask.job import Event, Notice, Plan, Preparing, Started, Summary, TileDone, TileFailed
from mandeldask.words import count, duration, plural, shown

COMPILE_SECONDS = 1.5  # a kernel that takes longer to make ready is being compiled
PLAIN_SECONDS = 10.0  # between two lines where there is no terminal
MAX_FAILURES = 5  # shown one by one; the store keeps more


class Screen:
    """An observer of a run that prints to stderr; a context, so that the bar is gone when the run is."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.bar = Progress(
            TextColumn("  "),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("tiles  {task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("elapsed"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.plan: Plan | None = None
        self.done = self.failures = self.iterations = 0
        self.begun = 0.0
        self.first = math.inf  # when the first task began
        self.stop = threading.Event()
        self.kernel = ""
        self.compiling: threading.Timer | None = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        if self.compiling:
            self.compiling.cancel()

    def __call__(self, event: Event) -> None:
        match event:
            case Preparing(kernel, reason):
                self.kernel = kernel if reason == "as asked" else f"{kernel}: {reason}"
                if kernel == "numba":
                    self.compiling = threading.Timer(COMPILE_SECONDS, self.line, ("kernel", "compiling numba, once"))
                    self.compiling.daemon = True
                    self.compiling.start()
            case Notice(text):
                self.line("cluster", text)
            case Plan():
                if self.compiling:
                    self.compiling.cancel()
                self._plan(event)
            case Started(dashboard=dashboard):
                self._started(dashboard)
            case TileDone(record):
                self.done += 1
                self.iterations += record.iterations
                self.first = min(self.first, record.started)
                self._advance()
            case TileFailed():
                self._failed(event)
            case Summary():
                self._summary(event)

    def line(self, label: str, text: str) -> None:
        """One line of the screen: a label in its column, and what there is to say."""
        self.console.print(f"  {label:<10} {text}", markup=False, soft_wrap=True)

    def _plan(self, plan: Plan) -> None:
        self.plan = plan
        d, size = plan.store.description, plan.cluster
        self.line("view", f"x [{d.x[0]!r}, {d.x[1]!r}], y [{d.y[0]!r}, {d.y[1]!r}], {d.registration}")
        self.line(
            "field",
            f"{d.shape[0]} x {d.shape[1]} = {count(plan.samples)} samples, max_iter {d.max_iter}",
        )
        self.line("kernel", self.kernel)
        done = f", {plan.done} done already: resuming" if plan.resumed else ""
        self.line("tiles", f"{plan.tiles} of {d.tile[0]} x {d.tile[1]}{done}; {plan.pending} to compute")
        free = shutil.disk_usage(plan.store.path).free
        room = f", and only {format_bytes(free)} are free" if plan.pending and plan.bytes > free else ""
        self.line("store", f"{shown(plan.store.path)}, at most {format_bytes(plan.bytes)} before compression{room}")
        self.line(
            "cluster",
            f"{plural(size.workers, 'worker')} of {plural(size.threads_per_worker, 'thread')} and "
            f"{format_bytes(size.memory_limit)}; a tile needs {format_bytes(plan.tile_memory)}",
        )

    def _started(self, dashboard: str) -> None:
        assert self.plan is not None
        self.line("dashboard", dashboard or "switched off")
        self.begun = time.time()
        self.task = self.bar.add_task("tiles", total=self.plan.pending, rate="starting workers")
        if self.console.is_terminal:
            self.bar.start()
        else:
            threading.Thread(target=self._plain_lines, name="progress", daemon=True).start()

    def _plain_lines(self) -> None:
        while not self.stop.wait(PLAIN_SECONDS):
            self.line("", self._state())

    def _end(self) -> None:
        self.stop.set()
        self.bar.stop()

    def _advance(self) -> None:
        self.bar.update(self.task, completed=self.done, rate=self._rate())

    def _rate(self) -> str:
        return f"{count(self.iterations / max(time.time() - self.first, 1e-3))} iterations/s"

    def _state(self) -> str:
        assert self.plan is not None
        if not self.done:
            return f"no tile finished yet, {duration(time.time() - self.begun)} since the workers were started"
        left = (time.time() - self.first) / self.done * (self.plan.pending - self.done)
        return f"{self.done}/{self.plan.pending} tiles, {self._rate()}, {duration(left)} left"

    def _failed(self, event: TileFailed) -> None:
        self.failures += 1
        if self.failures <= MAX_FAILURES or event.final:
            then = "given up" if event.final else "to be tried again"
            self.line(
                "failed",
                f"tile {event.tile[0]},{event.tile[1]}, attempt {event.attempt}, {then}: {event.error}",
            )

    def _summary(self, s: Summary) -> None:
        assert self.plan is not None
        self._end()
        max_iter = self.plan.store.description.max_iter
        if s.computed:
            self.line(
                "done",
                f"{plural(s.computed, 'tile')} in {duration(s.seconds)}: {count(s.iterations)} iterations, "
                f"{count(s.iterations_per_second)} iterations/s, {s.efficiency:.0%} of the workers' time in the kernel",
            )
        else:
            self.line("done", "nothing was left to compute")
        if s.failed:
            self.line("failed", f"{plural(s.failed, 'tile')}; `mandeldask resume {shown(s.store)}` tries them again")
        else:
            area = f": area {s.area:.6g}" if s.area is not None else ""
            share = s.not_escaped / s.samples
            self.line("set", f"{share:.4%} of the samples did not escape within {max_iter} iterations{area}")
        self.line("store", shown(s.store))
