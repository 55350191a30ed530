"""A run on the terminal: the plan, a bar with rate and time left, the field as it forms, the load of the workers."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from mandeldask.image import palette, palette_index
from mandeldask.job import (
    Event,
    Expected,
    Notice,
    Orbit,
    Plan,
    Preparing,
    Progress,
    Started,
    Summary,
    TileDone,
    TileFailed,
)
from mandeldask.progress import Bar, State
from mandeldask.telemetry import Preview
from mandeldask.text import command, data_size, duration, plural, printable, short_path, si
from mandeldask.tile import Record

MAX_FAILURES = 5  # shown one by one; the store keeps more
MAX_WORKERS = 10  # shown one by one
MOSAIC_WIDTH, MOSAIC_HEIGHT = 48, 18  # characters, at most
LINES_BESIDE = 15  # of plan and summary: a mosaic is not to push them away
LOAD_WIDTH = 48  # beside the mosaic
LEAST_WIDTH, LEAST_HEIGHT = 76, 24  # of a terminal with a mosaic
WAITING, FAILED = "·", "×"
UPPER, LOWER = "▀", "▄"
COLOURS = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in palette()]


class Screen(Bar):
    """An observer of a run that prints to stderr: a bar, with the field as it forms below it."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        super().__init__(console=console, quiet=quiet)
        self.kernel = ""
        self.introduced = False  # whether the cluster was told of
        self._begin(None)

    def _begin(self, plan: Plan | None) -> None:
        """Nothing is known of a run but its plan."""
        self.plan = plan
        self.mosaic: Mosaic | None = None
        self.progress: Progress | None = None
        self.asked = 0.0  # when workers were asked for tiles: `Summary.seconds` begin there too
        self.orbit: Orbit | None = None  # while it is made
        self.done = self.failures = 0
        self.load = _Load()

    def __call__(self, event: Event) -> None:
        match event:
            case Preparing(kernel, reason):
                self.kernel = kernel if reason == "as asked" else f"{kernel}: {reason}"
            case Notice(text, about):
                self.orbit = None
                self.introduced |= about == "cluster"
                self.line(about, text)
            case Plan():
                self._plan(event)
            case Started():
                self._started(event)
            case Orbit():
                self.orbit = event
            case Expected():
                self.line("expected", event.words)
            case TileDone(record):
                self._done(record)
            case TileFailed():
                self._failed(event)
            case Progress():
                self.progress = event
                self.asked = self.asked or time.monotonic()
            case Summary():
                self._summary(event)

    def _plan(self, plan: Plan) -> None:
        self._begin(plan)
        facts = plan.facts | {"kernel": self.kernel}
        facts["store"] += f", at most {data_size(plan.bytes)} before compression"
        facts["cluster"] = f"{plan.cluster}; a tile needs {data_size(plan.tile_memory)}"
        for label, text in facts.items():
            self.line("workers" if label == "cluster" and self.introduced else label, text)

    def _started(self, event: Started) -> None:
        assert self.plan is not None
        self.line("dashboard", event.dashboard or "switched off")
        room = self.console.width >= LEAST_WIDTH and self.console.height >= LEAST_HEIGHT
        if self.console.is_terminal and room and not self.console.quiet:
            width = min(MOSAIC_WIDTH, self.console.width - LOAD_WIDTH)
            self.mosaic = Mosaic(self.plan.grid, width, min(MOSAIC_HEIGHT, self.console.height - LINES_BESIDE))
            self.mosaic.samples = self.plan.preview()  # what earlier runs have done
        self.start()

    def _done(self, record: Record) -> None:
        self.done += 1
        self.load.add(record)
        if self.mosaic:
            self.mosaic.add(record)

    def below(self) -> RenderableType | None:
        """The mosaic, and beside it the load of the workers."""
        if self.mosaic is None or self.plan is None:
            return None
        table = Table.grid(padding=(0, 3))
        load = self.load.table(self.plan.cluster.threads / self.plan.cluster.workers)
        table.add_row("", Group(*self.mosaic.lines()), load)
        return Padding(table, (0, 0, 1, 0))

    def look(self) -> State:
        """Tiles, or steps of the reference orbit, and what there is to say of them."""
        if self.orbit:
            return self.orbit.done, self.orbit.of, self.orbit.words
        pending = self.plan.pending if self.plan else 0
        return self.done, max(1, pending), self._words(pending)

    def _words(self, pending: int) -> str:
        progress = self.progress
        if self.done == pending:
            levels = progress.levels if progress else self.plan.levels if self.plan else 0
            return f"{self.done}/{plural(pending, 'tile')}; {plural(levels, 'pyramid tile')} to build"
        if not self.done:
            waited = f" after {duration(round(time.monotonic() - self.asked))}" if self.asked else ""
            return f"no tile finished yet{waited}"
        return ", ".join(filter(None, (f"{self.done}/{plural(pending, 'tile')}", progress.rate if progress else "")))

    def _failed(self, event: TileFailed) -> None:
        self.failures += 1
        if self.mosaic:
            self.mosaic.fail(event.tile)
        if self.failures <= MAX_FAILURES or event.final:
            then = "given up" if event.final else "to be tried again"
            where = f"tile {event.tile[0]},{event.tile[1]}, attempt {event.attempt}"
            self.line("failed", f"{where}, {then}: {event.error}")

    def _summary(self, s: Summary) -> None:
        assert self.plan is not None
        self.stop()
        picture = self.below()
        if picture and s.computed:
            self.console.print(Group("", picture))
        if s.computed:
            self.line(
                "done",
                f"{plural(s.computed, 'tile')}{_shared(s)} in {duration(s.seconds)}: {si(s.iterations)} iterations, "
                f"{si(s.iterations_per_second)} iterations/s, {s.efficiency:.0%} of the workers' time in the kernel",
            )
        else:
            built = f"{plural(s.levels, 'pyramid tile')} built; " if s.levels else ""
            self.line("done", f"{built}every tile was computed already")
        if s.failed:
            again = f"`{command('resume', short_path(s.store))}` tries them again"
            self.line("failed", f"{plural(s.failed, 'tile')}; {again}")
        else:
            max_iter = self.plan.store.description.max_iter
            self.line("set", s.set_in_words(f" within {max_iter} iterations"))
        if s.proofs:
            self.line("proof", str(s.proofs))
        self.line("store", short_path(s.store))


def _shared(s: Summary) -> str:
    """How many tiles each kernel has computed; "" where it was one."""
    each = ", ".join(f"{n} by {kernel}" for kernel, n in sorted(s.kernels.items()))
    return f" ({each})" if len(s.kernels) > 1 else ""


class Mosaic:
    """A field in block characters, two samples a character, at most `width` characters wide and `height` high."""

    def __init__(self, grid: Preview, width: int, height: int) -> None:
        self.grid = grid
        self.samples = np.zeros(grid.size, np.int32)
        self.failed = np.zeros(grid.tiles, np.bool_)
        fitting = zip(_fit(grid.shape, 2 * height, width), grid.size, strict=True)
        self.shown = [(2 * np.arange(m) + 1) * n // (2 * m) for m, n in fitting]  # rows and columns of the samples

    def add(self, record: Record) -> None:
        self.failed[record.tile] = False
        cells = self.grid.cells(record.tile)
        self.samples[cells] = self.grid.decode(record.preview, cells)

    def fail(self, tile: tuple[int, int]) -> None:
        self.failed[tile] = True

    def lines(self) -> list[Text]:
        """The picture, y upwards, a text for each line."""
        samples = self.samples[np.ix_(*self.shown)][::-1]
        tiles = [index * self.grid.stride // side for index, side in zip(self.shown, self.grid.tile, strict=True)]
        failed = self.failed[np.ix_(*tiles)][::-1]
        index = palette_index(samples[samples > 0], self.grid.max_iter)(samples)
        pairs = zip(index[::2], index[1::2], failed[::2] | failed[1::2], strict=True)
        return [_line(*pair) for pair in pairs]


def _fit(shape: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
    """The largest (rows, columns) of the shape's proportions within bounds; rows are even, for two share a line."""
    scale = min(rows / shape[0], columns / shape[1], 1.0)
    return 2 * max(1, round(shape[0] * scale / 2)), max(1, round(shape[1] * scale))


def _line(upper: NDArray[np.uint8], lower: NDArray[np.uint8], failed: NDArray[np.bool_]) -> Text:
    line = Text()
    for a, b, wrong in zip(upper.tolist(), lower.tolist(), failed.tolist(), strict=True):
        if wrong:
            line.append(FAILED, "bold red")
        elif not (a or b):
            line.append(WAITING, "dim")
        else:
            line.append(UPPER if a else LOWER, f"{COLOURS[a or b]} on {COLOURS[b]}" if a and b else COLOURS[a or b])
    return line


class _Load:
    """How many tiles each worker has computed, and the share of its time in the kernel."""

    def __init__(self) -> None:
        self.tiles: Counter[str] = Counter()  # by worker
        self.seconds: dict[str, float] = defaultdict(float)  # of kernel, by worker
        self.first: dict[str, float] = {}  # when its first task began, Unix time, by worker

    def add(self, record: Record) -> None:
        self.first[record.worker] = min(self.first.get(record.worker, math.inf), record.started)
        self.tiles[record.worker] += 1
        self.seconds[record.worker] += record.seconds

    def table(self, threads: float) -> RenderableType:
        """A row for each worker, of so many threads in the mean."""
        if not self.tiles:
            return Text("no tile finished yet", "dim")
        table = Table.grid(*(Column(no_wrap=True, overflow="ellipsis") for _ in range(3)), padding=(0, 1))
        for worker, tiles in sorted(self.tiles.items())[:MAX_WORKERS]:
            elapsed = max(1e-3, time.time() - self.first[worker])
            busy = min(1.0, self.seconds[worker] / elapsed / threads)
            name = printable(worker.rpartition("/")[2])
            table.add_row(Text(name), plural(tiles, "tile"), f"{busy:.0%} in the kernel")
        if len(self.tiles) > MAX_WORKERS:
            table.add_row(f"and {len(self.tiles) - MAX_WORKERS} more")
        return table
