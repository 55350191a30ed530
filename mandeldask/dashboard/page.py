"""The page: the field as it forms, and beside it the figures."""

from __future__ import annotations

import time
from typing import Any

from bokeh.document import Document
from bokeh.events import DocumentReady, Tap
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, Div, InlineStyleSheet, RadioButtonGroup, Select, TextInput
from distributed import Scheduler

from mandeldask.dashboard import hooks, panel
from mandeldask.dashboard.figure import FieldFigure, rate_plot, theme
from mandeldask.dashboard.state import JobState, running_tiles
from mandeldask.dashboard.views import VIEWS
from mandeldask.telemetry import TOPIC, Tile

REFRESH_MILLISECONDS = 500
LATEST = "latest"
DIVS = ("heading", "figures", "facts", "workers", "failures", "legend")


def page_document(scheduler: Scheduler, extra: dict[str, Any], doc: Document) -> None:
    """One visitor's page; Dask calls this for each."""
    page = JobPage(scheduler)
    doc.title = "Dask: mandeldask"
    doc.template = hooks.template()
    doc.template_variables.update(extra)
    for root in page.roots:
        doc.add_root(root)
    doc.js_on_event(DocumentReady, page.theme)
    page.update()
    doc.add_periodic_callback(page.update, REFRESH_MILLISECONDS)


class JobPage:
    """The models of one visitor's page."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.job: JobState | None = None
        self.shown: object = None  # what the field shows
        look: Any = {"stylesheets": [InlineStyleSheet(css=hooks.asset("panel.css"))]}
        self.choice = Select(title="Job", name="job", value=LATEST, width=220, **look)
        self.view = RadioButtonGroup(name="view", labels=list(VIEWS), active=0, margin=(22, 5, 5, 5), **look)
        self.tile = TextInput(title="Look at tile", name="tile", placeholder="row,column or click", width=150, **look)
        for widget, what in ((self.choice, "value"), (self.view, "active"), (self.tile, "value")):
            widget.on_change(what, lambda attr, old, new: self.update())  # noqa: ARG005 (Bokeh's)
        self.field = FieldFigure()
        self.field.plot.on_event(Tap, self._tap)
        self.points = ColumnDataSource(data={"seconds": [0], "rate": [0]}, name="rate")
        rate = rate_plot(self.points)
        self.theme = theme(self.field, rate)
        self.divs = {
            name: Div(name=name, visible=False, sizing_mode="stretch_width", disable_math=True, **look) for name in DIVS
        }
        heading, figures, *rest, legend = self.divs.values()
        self.roots = [
            row(self.choice, self.view, self.tile, name="head", sizing_mode="stretch_width"),
            self.field.plot,
            legend,
            column(heading, figures, rate, *rest, name="side", sizing_mode="stretch_width"),
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
            self._show({"heading": str(panel.HTML.waiting())})
            return
        if job is not self.job:
            self.job = job
            self.field.open(job)
            self.tile.value = ""
        view = self.view.labels[self.view.active or 0]
        if self.shown != (job, view, job.stamp):
            self.field.draw(job, VIEWS[view])
            seconds, rates = zip((0.0, 0.0), *job.points, strict=True)
            self.points.data = {"seconds": list(seconds), "rate": list(rates)}
        self.shown = job, view, job.stamp
        running = running_tiles(self.scheduler, job)
        tile = _parse(self.tile.value, job)
        self.field.draw_running(job, running)
        self.field.choose(job, tile)
        parts = panel.parts(self.scheduler, job, view, running, tile)
        if self.tile.value and not tile:
            rows, columns = job.grid.tiles
            parts["facts"] = str(panel.HTML.no_tile(self.tile.value, rows, columns))
        self._show(parts)

    def _show(self, parts: dict[str, str]) -> None:
        for name, text in parts.items():
            if self.divs[name].text != text:
                self.divs[name].text, self.divs[name].visible = text, bool(text)

    def _tap(self, event: Tap) -> None:
        if self.job and event.x is not None and event.y is not None:
            tile = int(event.y // self.job.grid.tile[0]), int(event.x // self.job.grid.tile[1])
            self.tile.value = f"{tile[0]},{tile[1]}" if self.job.has(tile) else ""


def _title(job: JobState) -> str:
    return f"{job.job.name}, {time.strftime('%H:%M:%S', time.localtime(job.job.started))}"


def _parse(text: str, job: JobState) -> Tile | None:
    """The tile that a text names, if the job has it."""
    try:
        row, column = map(int, text.split(","))
    except ValueError:
        return None
    return (row, column) if job.has((row, column)) else None
