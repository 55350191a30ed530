"""The page: the field as it forms, and beside it the figures."""

from __future__ import annotations

import logging
import time
from typing import Any

from bokeh.document import Document
from bokeh.events import DocumentReady, Tap
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, Div, InlineStyleSheet, RadioButtonGroup, Select, TextInput
from distributed import Scheduler

from mandeldask.dashboard import hooks, panel, style
from mandeldask.dashboard.figure import FieldFigure, rate_plot, theme
from mandeldask.dashboard.running_tiles import RunningTile, running_tiles
from mandeldask.dashboard.state import JobState
from mandeldask.dashboard.views import VIEWS, WORKER_COLOURS, legend
from mandeldask.telemetry import TOPIC, Tile

REFRESH_MILLISECONDS = 250
PANEL_SECONDS = 1.0  # between two looks at the workers
LATEST = "latest"
WAITING_TEXT = (
    '<div class="empty">No job has been heard of yet. It will appear here once<br><code>mandeldask run</code> starts '
    "one on this cluster.</div>"
)
DIVS = ("heading", "figures", "facts", "workers", "failures", "legend")
logger = logging.getLogger(__name__)


def page_document(scheduler: Scheduler, extra: dict[str, Any], doc: Document) -> None:
    """One visitor's page; Dask calls this for each."""
    page = JobPage(scheduler)
    doc.title = "Dask: mandeldask"
    doc.template = hooks.template(style.TEMPLATE)
    doc.template_variables.update(extra)
    for root in page.roots:
        doc.add_root(root)
    doc.js_on_event(DocumentReady, page.theme)
    page.update()
    doc.add_periodic_callback(page.update, REFRESH_MILLISECONDS)


class JobPage:
    """The models of one visitor's page, and what of the state it has shown."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.field = FieldFigure()
        self.points = ColumnDataSource(data={"seconds": [0], "rate": [0]}, name="rate")
        self.rate = rate_plot(self.points)
        self.theme = theme(self.field, self.rate)
        self._make_controls()
        sheet = InlineStyleSheet(css=style.PANEL)
        self.divs = {
            name: Div(name=name, stylesheets=[sheet], sizing_mode="stretch_width", disable_math=True) for name in DIVS
        }
        side = [self.divs["heading"], self.divs["figures"], self.rate]
        side += [self.divs[name] for name in ("facts", "workers", "failures")]
        self.roots = [
            row(self.choice, self.view, self.tile, name="head", sizing_mode="stretch_width"),
            self.field.plot,
            self.divs["legend"],
            column(*side, name="side", sizing_mode="stretch_width"),
        ]
        self.job: JobState | None = None
        self.run = self.broken = ""
        self.panel_due = 0.0

    def _make_controls(self) -> None:
        sheets = [InlineStyleSheet(css=style.WIDGETS)]
        self.choice = Select(title="Job", name="job", value=LATEST, options=[LATEST], width=260, stylesheets=sheets)
        self.view = RadioButtonGroup(
            name="view", labels=list(VIEWS), active=0, stylesheets=sheets, margin=(22, 5, 5, 5)
        )
        self.tile = TextInput(
            title="Look at tile", name="tile", placeholder="row,column or click", width=150, stylesheets=sheets
        )
        for widget, what in ((self.choice, "value"), (self.view, "active"), (self.tile, "value")):
            widget.on_change(what, lambda attr, old, new: self.update())  # noqa: ARG005 (Bokeh's)
        self.field.plot.on_event(Tap, self._tap)

    def update(self) -> None:
        """Show what has changed since the last time."""
        plugin = self.scheduler.plugins.get(TOPIC)
        jobs: dict[str, JobState] = plugin.board.jobs if plugin else {}
        options = [(LATEST, "the latest"), *((key, _title(job)) for key, job in reversed(jobs.items()))]
        if self.choice.options != options:
            self.choice.options = options
        job = jobs.get(self.choice.value) or next(reversed(jobs.values()), None)
        if job is None:
            _set(self.divs["heading"], WAITING_TEXT)
            return
        try:
            self._show(job)
        except Exception as error:  # the others are to be seen all the same
            if self.broken != job.job.id:
                self.broken = job.job.id
                logger.exception("a job cannot be shown")
            _set(self.divs["heading"], f'<div class="empty">This job cannot be shown: {panel.text(repr(error))}</div>')

    def _show(self, job: JobState) -> None:
        if job is not self.job:
            self.job, self.run = job, ""
            self.field.open(job)
            self.tile.value = ""
        view = VIEWS[self.view.active or 0]
        running = [r for r in running_tiles(self.scheduler, job.job.id) if _is_tile(job, r.tile)]
        changed = (view, job.stamp) != (self.field.view, self.field.stamp)
        if changed:
            job.lay_out_colours()
            self.field.draw(job, view)
        self.field.draw_running(job, running)
        if changed or time.monotonic() >= self.panel_due:
            self._show_panel(job, view, running)
            self.panel_due = time.monotonic() + PANEL_SECONDS

    def _show_panel(self, job: JobState, view: str, running: list[RunningTile]) -> None:
        _set(self.divs["heading"], panel.heading(job))
        _set(self.divs["figures"], panel.figures(job, running))
        _set(self.divs["workers"], panel.workers(self.scheduler, job, running, WORKER_COLOURS))
        _set(self.divs["failures"], panel.failures(job))
        _set(self.divs["legend"], legend(job, view))
        self._show_tile(job, running)
        if self.run != job.job.run or len(self.points.data["rate"]) != 1 + len(job.points):
            self.run = job.job.run
            seconds, rates = zip((0.0, 0.0), *job.points, strict=True)
            self.points.data = {"seconds": list(seconds), "rate": list(rates)}

    def _show_tile(self, job: JobState, running: list[RunningTile]) -> None:
        tile = _parse(self.tile.value)
        text = ""
        if tile and _is_tile(job, tile):
            text = f"<h3>Tile {tile[0]},{tile[1]}</h3>{panel.tile_facts(job, tile, running)}"
        elif self.tile.value:
            rows, columns = job.grid.tiles
            wrong = f"there is no tile {self.tile.value}: rows 0 to {rows - 1}, columns 0 to {columns - 1}"
            tile, text = None, f'<div class="quiet">{panel.text(wrong)}</div>'
        _set(self.divs["facts"], text)
        self.field.choose(job, tile)

    def _tap(self, event: Tap) -> None:
        if self.job and event.x is not None and event.y is not None:
            tile = int(event.y // self.job.grid.tile[0]), int(event.x // self.job.grid.tile[1])
            self.tile.value = f"{tile[0]},{tile[1]}" if _is_tile(self.job, tile) else ""
            self.panel_due = 0.0


def _is_tile(job: JobState, tile: Tile) -> bool:
    return all(0 <= i < n for i, n in zip(tile, job.grid.tiles, strict=True))


def _set(div: Div, text: str) -> None:
    if div.text != text:
        div.text, div.visible = text, bool(text)


def _title(job: JobState) -> str:
    started = time.strftime("%H:%M:%S", time.localtime(job.job.started))
    return f"{job.job.name}, {started}"


def _parse(text: str) -> Tile | None:
    try:
        row, column = text.split(",")
        return int(row), int(column)
    except ValueError:
        return None
