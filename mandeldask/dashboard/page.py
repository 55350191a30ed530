"""The page: the field as it forms, and beside it the figures, as HTML of panel.html."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.events import DocumentReady, Tap
from bokeh.layouts import column
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    CustomJSTickFormatter,
    DataRange1d,
    Div,
    InlineStyleSheet,
    RadioButtonGroup,
    Select,
    TextInput,
)
from bokeh.plotting import figure
from distributed import Scheduler
from jinja2 import Environment
from numpy.typing import NDArray

from mandeldask.dashboard import hooks
from mandeldask.dashboard.figure import CLEAR, COLOURINGS, RUNNING, SIGNS, WORKER_COLOURS, FieldFigure
from mandeldask.dashboard.state import DONE, FAILED, RETRY, JobState, RunningTile, running_tiles
from mandeldask.telemetry import TOPIC, Tile
from mandeldask.text import duration, plural, short_time, si

REFRESH_MILLISECONDS = 500
LATEST = "latest"
DIVS = ("heading", "figures", "facts", "workers", "failures", "legend")
MAX_WORKERS = 40  # in the table
MAX_FAILURES = 20  # in the list
NOT_KNOWN = "not known"  # a driver that was killed had not written it down
ENVIRONMENT = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.filters["si"] = si
ENVIRONMENT.globals["plural"] = plural
HTML: Any = ENVIRONMENT.from_string(hooks.asset("panel.html")).module  # its macros; what they give is marked as HTML


def page_document(scheduler: Scheduler, extra: dict[str, Any], doc: Document) -> None:
    """One visitor's page; Dask calls this for each."""
    page = _JobPage(scheduler)
    doc.title = "Dask: mandeldask"
    doc.template = hooks.template()
    doc.template_variables.update(extra)
    for root in page.roots:
        doc.add_root(root)
    doc.js_on_event(DocumentReady, page.theme)
    page.update()
    doc.add_periodic_callback(page.update, REFRESH_MILLISECONDS)


class _JobPage:
    """The models of one visitor's page."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.job: JobState | None = None
        self.shown: object = None  # what the field shows
        look: Any = {"stylesheets": [InlineStyleSheet(css=hooks.asset("panel.css"))], "margin": 0}
        self.choice = Select(title="Job", name="job", value=LATEST, width=200, **look)
        self.tile = TextInput(title="Look at tile", name="tile", placeholder="row,column or click", width=180, **look)
        self.view = RadioButtonGroup(name="view", labels=list(COLOURINGS), active=0, **look)
        for widget, what in ((self.choice, "value"), (self.view, "active"), (self.tile, "value")):
            widget.on_change(what, lambda attr, old, new: self.update())  # noqa: ARG005 (Bokeh's)
        self.field = FieldFigure()
        self.field.plot.on_event(Tap, self._tap)
        self.points = ColumnDataSource(data={"seconds": [0], "rate": [0]}, name="rate")
        self.rate = _rate_plot(self.points)
        coloured = {"axes": list(self.rate.axis), "grids": list(self.rate.ygrid), "ground": self.field.ground}
        self.theme = CustomJS(args=coloured, code=hooks.asset("theme.js"))  # light or dark
        self.divs = {
            name: Div(name=name, visible=False, sizing_mode="stretch_width", disable_math=True, **look) for name in DIVS
        }
        heading, figures, *rest, legend = self.divs.values()
        self.roots = [
            *(self.choice, self.tile, self.view, self.field.plot, legend),
            column(heading, figures, self.rate, *rest, name="side", sizing_mode="stretch_width"),
        ]

    def update(self) -> None:
        """Show how things are."""
        plugin = self.scheduler.plugins.get(TOPIC)
        jobs: dict[str, JobState] = plugin.jobs if plugin else {}
        options = [(LATEST, "the latest"), *((key, _title(job)) for key, job in reversed(jobs.items()))]
        if self.choice.options != options:
            self.choice.options = options
        job = jobs.get(self.choice.value) or next(reversed(jobs.values()), None)
        if job is None:
            self._show({"heading": HTML.waiting()})
            return
        if job is not self.job:
            self.job = job
            self.field.open(job)
            self.rate.visible = True
            self.tile.value = ""
        view = self.view.labels[self.view.active or 0]
        if self.shown != (job, view, job.stamp):
            colouring = COLOURINGS[view]
            ticks = self.field.draw(job, colouring)
            self._show({"legend": HTML.legend(colouring, ticks, job.job.max_iter)})
            seconds, rates = zip((0.0, 0.0), *job.points, strict=True)
            self.points.data = {"seconds": list(seconds), "rate": list(rates)}
        self.shown = job, view, job.stamp
        running = running_tiles(self.scheduler, job)
        tile = _parse(self.tile.value, job)
        self.field.draw_running(job, running)
        self.field.choose(job, tile)
        shown = _parts(self.scheduler, job, running, tile)
        if self.tile.value and not tile:
            shown["facts"] = HTML.no_tile(self.tile.value, *job.grid.tiles)
        self._show(shown)

    def _show(self, parts: dict[str, Any]) -> None:
        for name, part in parts.items():
            text = str(part).strip()
            if self.divs[name].text != text:
                self.divs[name].text, self.divs[name].visible = text, bool(text)

    def _tap(self, event: Tap) -> None:
        if self.job and event.x is not None and event.y is not None:
            tile = int(event.y // self.job.grid.tile[0]), int(event.x // self.job.grid.tile[1])
            self.tile.value = f"{tile[0]},{tile[1]}" if self.job.has(tile) else ""


def _rate_plot(points: ColumnDataSource) -> figure:
    """Iterations a second over the seconds of a run."""
    rate = figure(
        height=130, sizing_mode="stretch_width", tools="", toolbar_location=None, margin=(10, 0, 0, 0),
        x_axis_label="seconds since the start", y_axis_label="iterations/s", min_border_left=4,
        x_range=DataRange1d(start=0), y_range=DataRange1d(start=0), visible=False, **CLEAR,
    )  # fmt: skip
    rate.line("seconds", "rate", source=points, line_width=2, line_color="#dd7a2b")
    rate.yaxis.formatter = CustomJSTickFormatter(code=hooks.asset("si.js"))
    rate.yaxis.ticker.desired_num_ticks = 3
    rate.xgrid.visible = False
    rate.axis.minor_tick_line_color = None
    rate.axis.axis_label_text_font_style = "normal"
    return rate


def _title(job: JobState) -> str:
    return f"{job.job.name}, {time.strftime('%H:%M:%S', time.localtime(job.job.started))}"


def _parse(text: str, job: JobState) -> Tile | None:
    """The tile that a text names, if the job has it."""
    try:
        row, column = map(int, text.split(","))
    except ValueError:
        return None
    return (row, column) if job.has((row, column)) else None


def _parts(scheduler: Scheduler, job: JobState, running: Sequence[RunningTile], tile: Tile | None) -> dict[str, Any]:
    """The HTML of each part of the side."""
    failed = sorted(job.failures.values(), key=lambda f: (not f.final, f.tile))
    return {
        "heading": HTML.heading(job.job),
        "figures": _figures(job, running),
        "facts": HTML.facts(f"Tile {tile[0]},{tile[1]}", _tile_facts(job, tile, running)) if tile else "",
        "workers": _workers(scheduler, job, running),
        "failures": HTML.failures(failed, {True: SIGNS[FAILED], False: SIGNS[RETRY]}, MAX_FAILURES),
    }


def _figures(job: JobState, running: Sequence[RunningTile]) -> Any:
    """How far and how fast, and how many tiles are in each state."""
    state = job.tiles["state"].copy()
    for on_worker in running:
        state[on_worker.tile] = RUNNING
    counts = np.bincount(state.ravel(), minlength=RUNNING + 1)
    states = [(sign, counts[s]) for s, sign in SIGNS.items() if counts[s] or s not in (RETRY, FAILED)]
    return HTML.figures(job.done, state.size, _status(job), _left(job), job.progress, states)


def _left(job: JobState) -> str:
    if job.ended:
        return job.ended
    if job.done == job.tiles.size:
        return "finishing"
    if job.silent:
        return NOT_KNOWN
    if job.progress is None or job.progress.seconds_left is None:
        return "not known yet"
    return duration(max(1.0, round(job.progress.seconds_left - (time.monotonic() - job.heard))))


def _status(job: JobState) -> str:
    failed = int(np.count_nonzero(job.tiles["state"] == FAILED))
    if job.ended == "done":
        return f"incomplete: {plural(failed, 'tile')} failed" if failed else "finished"
    if job.ended == "stopped":
        return "interrupted; mandeldask resume continues it"
    if job.silent:
        return f"no update from the driver for {duration(round(job.silent))}; it may be gone"
    levels = job.progress.levels if job.progress else 0
    return f"running; {plural(levels, 'pyramid tile')} to build" if levels else "running"


def _workers(scheduler: Scheduler, job: JobState, running: Sequence[RunningTile]) -> Any:
    """The load by worker: tiles done, and the tile in progress. CPU and memory are on Dask's page of workers."""
    numbers = job.tiles["worker"]
    done = np.bincount(numbers[numbers >= 0], minlength=len(job.workers))
    now = {r.worker: r for r in sorted(running, key=lambda r: r.seconds or 0.0)}  # the longest of a worker stays
    present = list(scheduler.workers.values())
    rows = [_row(w, job.workers.get(w.address), done, now.get(w.address)) for w in present[:MAX_WORKERS]]
    gone = job.workers.keys() - {worker.address for worker in present}
    return HTML.workers(rows, len(present) - len(rows), len(gone))


def _row(worker: Any, number: int | None, done: NDArray[Any], running: RunningTile | None) -> tuple[Any, ...]:
    """A worker's colour and number, its address and name, its tiles and their share, and the tile in progress."""
    since = "" if running is None or running.seconds is None else f" · {running.seconds:.0f} s"
    now = f"{running.tile[0]},{running.tile[1]}{since}" if running else "–"
    if number is None:
        return "transparent", "", worker.address, worker.name, 0, 0, now
    share = 100 * int(done[number]) // max(1, int(done.max()))
    return WORKER_COLOURS[number % len(WORKER_COLOURS)], number, worker.address, worker.name, done[number], share, now


def _tile_facts(job: JobState, tile: Tile, running: Sequence[RunningTile]) -> list[tuple[str, str]]:
    """All that is known of one tile, with labels."""
    known = job.tiles[tile]
    facts = [("state", SIGNS[int(known["state"])].words)]
    if on_worker := next((r for r in running if r.tile == tile), None):
        since = "" if on_worker.seconds is None else f" for {duration(on_worker.seconds)}"
        facts = [("state", f"on worker {on_worker.worker}{since}")]
    if known["state"] == DONE:
        names = [name for name, number in job.workers.items() if number == known["worker"]]
        times = f"{known['minimum']} to {known['maximum']}, mean {known['mean']:.6g}"
        facts += [
            ("worker", names[0] if names else "from an earlier run"),
            ("kernel", short_time(float(known["seconds"])) if known["seconds"] > 0 else NOT_KNOWN),
            ("escape times", times if known["minimum"] else NOT_KNOWN),
        ]
    if tile in job.failures:
        facts.append(("error", job.failures[tile].error))
    first = [i * side for i, side in zip(tile, job.grid.tile, strict=True)]
    last = [min(f + side, n) - 1 for f, side, n in zip(first, job.grid.tile, job.grid.shape, strict=True)]
    return [*facts, ("samples", f"rows {first[0]} to {last[0]}, columns {first[1]} to {last[1]}")]
