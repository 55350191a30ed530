"""The run on the terminal: the plan, a bar with rate and time left, the field as it forms; elsewhere plain lines."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from types import TracebackType

import numpy as np
from dask.utils import format_bytes
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mandeldask.job import Event, Expected, Notice, Plan, Preparing, Progress, Started, Summary, TileDone, TileFailed
from mandeldask.progress.mosaic import Mosaic
from mandeldask.telemetry import Preview
from mandeldask.tile import Record
from mandeldask.words import count, duration, plain, plural, shown

COMPILE_SECONDS = 1.5  # a kernel that takes longer to make ready is being compiled
PLAIN_SECONDS = 10.0  # between two lines where there is no terminal
REFRESH_RATE = 4  # a second
USUAL_PORT = 8787  # of the dashboard of a local cluster
MAX_FAILURES = 5  # shown one by one; the store keeps more
MAX_WORKERS = 10  # shown one by one
BAR_WIDTH = 34
MOSAIC_WIDTH, MOSAIC_HEIGHT = 48, 18  # characters, at most
LINES_BESIDE = 15  # of plan and summary: a mosaic is not to push them away
LEAST_WIDTH, LEAST_HEIGHT = 76, 24  # of a terminal with a mosaic


class Screen:
    """An observer of a run that prints to stderr; a context, so that the bar is gone when the run is."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.plan: Plan | None = None
        self.mosaic: Mosaic | None = None
        self.progress: Progress | None = None
        self.told = 0.0  # when `progress` was
        self.done = self.failures = 0
        self.tiles: Counter[str] = Counter()  # by worker
        self.seconds: Counter[str] = Counter()  # of kernel, by worker
        self.begun = 0.0
        self.first = math.inf  # when the first task began, Unix time
        self.stop = threading.Event()
        self.kernel = ""
        self.compiling: threading.Timer | None = None
        self.live = Live(
            get_renderable=self._moving, console=self.console, refresh_per_second=REFRESH_RATE, transient=True
        )

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
            case Preparing():
                self._preparing(event)
            case Notice(text, about):
                self.line(about, text)
            case Plan():
                self._plan(event)
            case Started():
                if self.compiling:
                    self.compiling.cancel()
                self._started(event)
            case Expected():
                self._expected(event)
            case TileDone(record):
                self._done(record)
            case TileFailed():
                self._failed(event)
            case Progress():
                self.progress, self.told = event, time.monotonic()
            case Summary():
                self._summary(event)

    def line(self, label: str, text: str) -> None:
        """One line of the screen: a label in its column, and what there is to say."""
        words = Text(f"  {label:<10} ", style="bold" if self.console.is_terminal else "")
        words.append(plain(text), style="not bold")
        self.console.print(words, soft_wrap=True)

    def _preparing(self, event: Preparing) -> None:
        self.kernel = event.kernel if event.reason == "as asked" else f"{event.kernel}: {event.reason}"
        if event.kernel == "numba" and event.here:
            self.compiling = threading.Timer(COMPILE_SECONDS, self.line, ("kernel", "compiling numba, once"))
            self.compiling.daemon = True
            self.compiling.start()

    def _plan(self, plan: Plan) -> None:
        self.plan = plan
        d, size = plan.store.description, plan.cluster
        self.line("view", str(d.view))
        self.line(
            "field",
            f"{d.shape[0]} x {d.shape[1]} = {count(plan.samples)} samples, max_iter {d.max_iter}",
        )
        self.line("kernel", self.kernel)
        done = f", {plan.done} done already: resuming" if plan.resumed else ""
        levels = f", {plural(plan.levels, 'pyramid tile')} to build" if plan.levels else ""
        self.line("tiles", f"{plan.tiles} of {d.tile[0]} x {d.tile[1]}{done}; {plan.pending} to compute{levels}")
        free = plan.store.place.free()
        scarce = free is not None and plan.pending and plan.bytes > free
        room = f", and only {format_bytes(free)} are free" if scarce else ""
        self.line("store", f"{shown(plan.store.path)}, at most {format_bytes(plan.bytes)} before compression{room}")
        self.line(
            "cluster",
            f"{plural(size.workers, 'worker')} of {plural(size.threads_per_worker, 'thread')} and "
            f"{format_bytes(size.memory_limit)}; a tile needs {format_bytes(plan.tile_memory)}",
        )

    def _started(self, event: Started) -> None:
        assert self.plan is not None
        ours = event.client.cluster is not None
        taken = f"    (port {USUAL_PORT} is taken)" if ours and f":{USUAL_PORT}/" not in event.dashboard else ""
        self.line("dashboard", f"{event.dashboard}{taken}" if event.dashboard else "switched off")
        self.begun = time.monotonic()
        if self.console.is_terminal:
            self.mosaic = self._make_mosaic(self.plan)
            self.live.start()
        else:
            threading.Thread(target=self._plain_lines, name="progress", daemon=True).start()

    def _make_mosaic(self, plan: Plan) -> Mosaic | None:
        """The field as it forms, where the terminal has room for it; with what earlier runs have done."""
        if self.console.width < LEAST_WIDTH or self.console.height < LEAST_HEIGHT:
            return None
        d = plan.store.description
        height = min(MOSAIC_HEIGHT, self.console.height - LINES_BESIDE)
        mosaic = Mosaic(Preview(d.shape, d.tile, d.max_iter), MOSAIC_WIDTH, height)
        if plan.resumed:
            iterations = plan.store.read_tiles()["iterations"]
            for tile in np.argwhere(plan.store.done()).tolist():
                rows, columns = d.window((tile[0], tile[1]), (tile[0] + 1, tile[1] + 1))
                size = (rows[1] - rows[0]) * (columns[1] - columns[0])
                mosaic.done((tile[0], tile[1]), iterations[tuple(tile)] / size)
        return mosaic

    def _expected(self, event: Expected) -> None:
        self.line(
            "expected",
            f"{duration(event.seconds)} of computing, costly tiles first; {duration(event.seconds_by_row)} row by row",
        )

    def _done(self, record: Record) -> None:
        self.done += 1
        self.first = min(self.first, record.started)
        self.tiles[record.worker] += 1
        self.seconds[record.worker] += record.seconds  # type: ignore[assignment]
        if self.mosaic:
            self.mosaic.add(record)

    def _plain_lines(self) -> None:
        while not self.stop.wait(PLAIN_SECONDS):
            self.line("", self._state())

    def _end(self) -> None:
        self.stop.set()
        self.live.stop()

    def _moving(self) -> RenderableType:
        """What moves while a run does: the bar, and under it the field and the workers."""
        if self.plan is None:
            return ""
        bar = Table.grid(padding=(0, 2))
        bar.add_row(" ", ProgressBar(max(1, self.plan.pending), self.done, width=BAR_WIDTH), self._state())
        return Group("", bar, "", self._picture()) if self.mosaic else bar

    def _picture(self) -> RenderableType:
        """The mosaic, and beside it the load of the workers."""
        if self.mosaic is None:
            return ""
        table = Table.grid(padding=(0, 3))
        colours = self.console.color_system in ("truecolor", "256")
        table.add_row("", Group(*self.mosaic.lines(colours)), self._load())
        return Padding(table, (0, 0, 1, 0))

    def _load(self) -> RenderableType:
        """By worker: tiles, and the share of its time in the kernel."""
        assert self.plan is not None
        table = Table.grid(padding=(0, 1))
        elapsed = max(1e-3, time.time() - self.first)
        most = max(self.tiles.values(), default=1)
        for k, (worker, tiles) in enumerate(sorted(self.tiles.items())):
            if k == MAX_WORKERS:
                table.add_row("", f"and {len(self.tiles) - k} more")
                break
            busy = min(1.0, self.seconds[worker] / elapsed / self.plan.cluster.threads_per_worker)
            bar = ProgressBar(most, tiles, width=10, complete_style="cyan", finished_style="cyan")
            address = Text(plain(worker.rpartition("/")[2]))  # an IPv6 one would be markup
            table.add_row(address, bar, plural(tiles, "tile"), f"{busy:.0%} in the kernel")
        return table if self.tiles else Text("no tile finished yet", "dim")

    def _state(self) -> str:
        assert self.plan is not None
        if self.done == self.plan.pending:
            levels = self.progress.levels if self.progress else self.plan.levels
            return f"{self.done}/{self.plan.pending} tiles; {plural(levels, 'pyramid tile')} to build"
        if not self.done:
            return (
                f"no tile finished yet, {duration(round(time.monotonic() - self.begun))} since the workers were started"
            )
        rate = left = ""
        if self.progress:
            rate = f", {count(self.progress.iterations_per_second)} iterations/s"
            if self.progress.seconds_left is not None:
                seconds = max(0.0, self.progress.seconds_left - (time.monotonic() - self.told))
                left = f", {duration(round(seconds))} left"
        return f"{self.done}/{self.plan.pending} tiles{rate}{left}"

    def _failed(self, event: TileFailed) -> None:
        self.failures += 1
        if self.mosaic:
            self.mosaic.fail(event.tile)
        if self.failures <= MAX_FAILURES or event.final:
            then = "given up" if event.final else "to be tried again"
            self.line(
                "failed",
                f"tile {event.tile[0]},{event.tile[1]}, attempt {event.attempt}, {then}: {event.error}",
            )

    def _summary(self, s: Summary) -> None:
        assert self.plan is not None
        self._end()
        if self.mosaic and s.computed:
            self.console.print(Group("", self._picture()))
        max_iter = self.plan.store.description.max_iter
        if s.computed:
            self.line(
                "done",
                f"{plural(s.computed, 'tile')} in {duration(s.seconds)}: {count(s.iterations)} iterations, "
                f"{count(s.iterations_per_second)} iterations/s, {s.efficiency:.0%} of the workers' time in the kernel",
            )
        elif s.levels:
            self.line("done", f"{plural(s.levels, 'pyramid tile')} built; nothing was left to compute")
        else:
            self.line("done", "nothing was left to compute")
        if s.failed:
            self.line("failed", f"{plural(s.failed, 'tile')}; `mandeldask resume {shown(s.store)}` tries them again")
        else:
            area = f": area {s.area:.6g}" if s.area is not None else ""
            share = s.not_escaped / s.samples
            self.line("set", f"{share:.4%} of the samples did not escape within {max_iter} iterations{area}")
        self.line("store", shown(s.store))
