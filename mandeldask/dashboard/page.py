"""The page: one image, patched in place as tiles come in, and beside it the figures."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.events import DocumentReady, Tap
from bokeh.layouts import column, row
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    CustomJSHover,
    CustomJSTickFormatter,
    DataRange1d,
    Div,
    FixedTicker,
    HoverTool,
    InlineStyleSheet,
    LinearColorMapper,
    RadioButtonGroup,
    Select,
    TextInput,
)
from bokeh.plotting import figure
from distributed import Scheduler

from mandeldask.dashboard import hooks, panel, style
from mandeldask.dashboard.flight import Flight, in_flight
from mandeldask.dashboard.state import AGAIN, DONE, FAILED, JobState
from mandeldask.dashboard.views import (
    NOTHING,
    PICTURE,
    VIEWS,
    WORKER_COLOURS,
    colours,
    indices,
    legend,
    scale_of,
    words,
)

REFRESH_MILLISECONDS = 250
PANEL_SECONDS = 1.0  # between two looks at the workers
MAX_LINES = 64  # between rows or columns of tiles
PATCHES = 32  # tiles; beyond, the image is sent anew
LATEST = "latest"
WAITING_TEXT = (
    '<div class="empty">No job has been heard of yet. It will appear here once<br><code>mandeldask run</code> starts '
    "one on this cluster.</div>"
)
FACTS = ("state", "seconds", "mean", "minimum", "maximum", "worker")
logger = logging.getLogger(__name__)
STATE_NAMES = ["waiting", "failed, to be tried again", "failed", "done"]


def page_document(scheduler: Scheduler, extra: dict[str, Any], doc: Document) -> None:
    """One visitor's page; Dask calls this for each."""
    page = Page(scheduler)
    doc.title = "Dask: mandeldask"
    doc.template = hooks.template(style.TEMPLATE)
    doc.template_variables.update(extra)
    for root in page.roots:
        doc.add_root(root)
    doc.js_on_event(DocumentReady, page.theme)
    page.update()
    doc.add_periodic_callback(page.update, REFRESH_MILLISECONDS)


class Page:
    """The models of one page, and what of the state it has shown."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        widgets, sheet = InlineStyleSheet(css=style.WIDGETS), InlineStyleSheet(css=style.PANEL)
        self.choice = Select(title="Job", name="job", value=LATEST, options=[LATEST], width=260, stylesheets=[widgets])
        self.view = RadioButtonGroup(
            name="view", labels=list(VIEWS), active=0, stylesheets=[widgets], margin=(22, 5, 5, 5)
        )
        self.tile = TextInput(
            title="Look at tile", name="tile", placeholder="row,column or click", width=150, stylesheets=[widgets]
        )
        self.divs = {
            name: Div(name=name, stylesheets=[sheet], sizing_mode="stretch_width", disable_math=True)
            for name in ("heading", "figures", "facts", "workers", "failures", "legend")
        }
        self._make_figure()
        self._make_rate()
        for widget, what in ((self.choice, "value"), (self.view, "active"), (self.tile, "value")):
            widget.on_change(what, lambda attr, old, new: self.update())  # noqa: ARG005
        self.figure.on_event(Tap, self._tap)
        side = [self.divs[name] for name in ("heading", "figures")]
        side += [self.rate, *(self.divs[name] for name in ("facts", "workers", "failures"))]
        self.roots = [
            row(self.choice, self.view, self.tile, name="head", sizing_mode="stretch_width"),
            self.figure,
            self.divs["legend"],
            column(*side, name="side", sizing_mode="stretch_width"),
        ]
        self.job: JobState | None = None
        self.run = self.broken = ""
        self.shown_view = ""
        self.shown_stamp = -1
        self.shown_scale: object = None
        self.panel_due = 0.0

    def _make_figure(self) -> None:
        self.ground = ColumnDataSource(data={"left": [0], "right": [1], "bottom": [0], "top": [1]})
        self.image = ColumnDataSource(data={"image": [], "dw": [], "dh": []}, name="image")
        self.facts = ColumnDataSource(data={name: [] for name in (*FACTS, "dw", "dh")}, name="tiles")
        self.flights = ColumnDataSource(
            data={k: [] for k in ("left", "right", "bottom", "top", "level")}, name="flights"
        )
        self.marks = ColumnDataSource(data={"x": [], "y": [], "marker": [], "colour": []}, name="marks")
        self.words = ColumnDataSource(data={"x": [], "y": [], "text": [], "colour": []}, name="words")
        self.chosen = ColumnDataSource(data={"left": [], "right": [], "bottom": [], "top": []})
        self.mapper = LinearColorMapper(palette=colours(PICTURE), low=-0.5, high=255.5, nan_color=NOTHING)
        fig = self.figure = figure(
            name="frame",
            sizing_mode="stretch_both",
            match_aspect=True,
            tools="pan,wheel_zoom,box_zoom,reset,save",
            active_scroll="wheel_zoom",
            toolbar_location="right",
            x_range=DataRange1d(range_padding=0.01),
            y_range=DataRange1d(range_padding=0.01),
            x_axis_location=None,
            y_axis_location=None,
            background_fill_color=None,
            border_fill_color=None,
            outline_line_color=None,
            min_border=0,
            output_backend="canvas",
        )
        fig.grid.visible = False
        fig.xgrid.ticker, fig.ygrid.ticker = FixedTicker(ticks=[]), FixedTicker(ticks=[])
        fig.grid.level = "overlay"
        fig.grid.grid_line_color, fig.grid.grid_line_alpha = "#ffffff", 0.35
        fig.toolbar.logo = None
        quad = {"left": "left", "right": "right", "bottom": "bottom", "top": "top"}
        ground = fig.quad(
            **quad,
            source=self.ground,
            fill_color="#eceff2",
            line_color="#e2e5e9",
            hatch_pattern="/",
            hatch_scale=9,
            hatch_color="#d3d9df",
            hatch_weight=1,
        )
        fig.x_range.renderers = fig.y_range.renderers = [ground]
        fig.image("image", x=0, y=0, dw="dw", dh="dh", source=self.image, color_mapper=self.mapper)
        hidden = LinearColorMapper(palette=[NOTHING], low=0, high=1, nan_color=NOTHING)
        facts = fig.image("state", x=0, y=0, dw="dw", dh="dh", source=self.facts, color_mapper=hidden)
        fig.quad(
            left="left",
            right="right",
            bottom="bottom",
            top="level",
            source=self.flights,
            fill_color="#f28e2b",
            fill_alpha=0.45,
            line_color=None,
        )
        fig.quad(**quad, source=self.flights, fill_color=None, line_color="#b4540a", line_width=2)
        fig.scatter(
            "x", "y", marker="marker", source=self.marks, size=13, line_width=3, line_color="white", fill_color=None
        )
        fig.scatter(
            "x", "y", marker="marker", source=self.marks, size=11, line_width=2, line_color="colour", fill_color=None
        )
        fig.text(
            "x",
            "y",
            text="text",
            source=self.words,
            text_align="center",
            text_baseline="middle",
            text_font_size="12px",
            text_font={"value": "Helvetica, Arial, sans-serif"},
            text_color="colour",
        )
        fig.quad(**quad, source=self.chosen, fill_color=None, line_color="#d81b60", line_width=2, line_dash="dashed")
        self.state_hover = CustomJSHover(code=f"return {STATE_NAMES!r}[value] ?? 'waiting'")
        self.worker_hover = CustomJSHover(
            args={"names": []}, code="return value < 0 ? '–' : `${value}: ${names[value]}`"
        )
        self.known = CustomJSHover(code="return value > 0 ? String(Number(value.toPrecision(4))) : '–'")
        self.row_hover = CustomJSHover(args={"side": 1}, code="return String(Math.floor(value / side))")
        self.column_hover = CustomJSHover(args={"side": 1}, code="return String(Math.floor(value / side))")
        hover = HoverTool(
            renderers=[facts],
            tooltips=[
                ("tile", "$y{custom},$x{custom}"),
                ("state", "@state{custom}"),
                ("worker", "@worker{custom}"),
                ("kernel seconds", "@seconds{custom}"),
                ("escape times", "@minimum{custom} to @maximum{custom}, mean @mean{custom}"),
            ],
            formatters={
                "$y": self.row_hover,
                "$x": self.column_hover,
                "@state": self.state_hover,
                "@worker": self.worker_hover,
                **{f"@{name}": self.known for name in ("seconds", "minimum", "maximum", "mean")},
            },
        )
        fig.add_tools(hover)
        self.ground_glyph = ground.glyph

    def _make_rate(self) -> None:
        self.points = ColumnDataSource(data={"seconds": [0], "rate": [0]}, name="rate")
        rate = self.rate = figure(
            height=130,
            sizing_mode="stretch_width",
            tools="",
            toolbar_location=None,
            margin=(10, 0, 0, 0),
            background_fill_color=None,
            border_fill_color=None,
            outline_line_color=None,
            min_border_left=4,
            x_axis_label="seconds since the start",
            y_axis_label="iterations/s",
            x_range=DataRange1d(start=0),
            y_range=DataRange1d(start=0),
        )
        rate.line("seconds", "rate", source=self.points, line_width=2, line_color="#dd7a2b")
        rate_hover = CustomJSHover(code=style.SI_CODE.replace("tick", "value"))
        rate.add_tools(
            HoverTool(
                tooltips=[("seconds", "@seconds{0}"), ("iterations/s", "@rate{custom}")],
                formatters={"@rate": rate_hover},
                mode="vline",
            )
        )
        rate.yaxis.formatter = CustomJSTickFormatter(code=style.SI_CODE)
        rate.xgrid.visible = False
        rate.axis.minor_tick_line_color = None
        rate.axis.axis_label_text_font_style = "normal"
        rate.yaxis.ticker.desired_num_ticks = 3
        self.theme = CustomJS(
            args={"axes": list(rate.axis), "grids": list(rate.ygrid), "ground": self.ground_glyph},
            code=style.THEME_CODE,
        )

    def update(self) -> None:
        """Show what has changed since the last time."""
        plugin = self.scheduler.plugins.get("mandeldask")
        jobs: dict[str, JobState] = plugin.board.jobs if plugin else {}
        options = [(LATEST, "the latest"), *((key, _label(job)) for key, job in reversed(jobs.items()))]
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
            self._open(job)
        view = VIEWS[self.view.active or 0]
        flights = [f for f in in_flight(self.scheduler, job.job.id) if self._is_tile(job, f.tile)]
        if job.stamp != self.shown_stamp or view != self.shown_view:
            self._draw(job, view)
        self._draw_flights(job, flights)
        if time.monotonic() >= self.panel_due or job.stamp != self.shown_stamp or view != self.shown_view:
            self._tell(job, view, flights)
            self.panel_due = time.monotonic() + PANEL_SECONDS
        self.shown_view, self.shown_stamp = view, job.stamp

    def _open(self, job: JobState) -> None:
        """Another job: its extent."""
        self.job, self.run = job, ""
        self.shown_stamp, self.shown_view, self.shown_scale = -1, "", None
        rows, columns = job.grid.shape
        self.ground.data = {"left": [0], "right": [columns], "bottom": [0], "top": [rows]}
        self.row_hover.args = {"side": job.grid.tile[0]}
        self.column_hover.args = {"side": job.grid.tile[1]}
        self.tile.value = ""

    def _draw(self, job: JobState, view: str) -> None:
        """The image and what hovering tells: patched where few tiles have changed, else sent anew."""
        changed = np.argwhere(job.stamps > self.shown_stamp)
        scale = scale_of(job, view)
        if view != self.shown_view or scale != self.shown_scale or len(changed) > PATCHES:
            rows, columns = (n * job.grid.stride for n in job.grid.preview)
            if view != self.shown_view:
                self.mapper.palette = colours(view)
            self.image.data = {"image": [indices(job, view)], "dw": [columns], "dh": [rows]}
            rows, columns = (n * side for n, side in zip(job.grid.tiles, job.grid.tile, strict=True))
            facts = {name: [np.ascontiguousarray(getattr(job, name))] for name in FACTS}
            self.facts.data = {**facts, "dw": [columns], "dh": [rows]}
        elif len(changed):
            tiles = [(int(i), int(j)) for i, j in changed]
            parts = [(job.grid.cells(tile), tile) for tile in tiles]
            image = [((0, *c), indices(job, view, *c).ravel()) for c, _ in parts if indices(job, view, *c).size]
            self.image.patch({"image": image})
            here = [((0, slice(i, i + 1), slice(j, j + 1)), (i, j)) for i, j in tiles]
            self.facts.patch(
                {name: [(at, np.atleast_1d(getattr(job, name)[tile])) for at, tile in here] for name in FACTS}
            )
        self.shown_scale = scale
        if self.worker_hover.args["names"] != job.workers:
            self.worker_hover.args = {"names": list(job.workers)}
        self._draw_marks(job, view)

    def _draw_marks(self, job: JobState, view: str) -> None:
        tiles = np.argwhere((job.state == FAILED) | (job.state == AGAIN))[:2000]
        final = job.state[*tiles.T] == FAILED
        y, x = _centres(job, tiles)
        data = {
            "x": x,
            "y": y,
            "marker": np.where(final, "x", "circle"),
            "colour": np.where(final, "#c8322b", "#b36b00"),
        }
        if len(x) or len(self.marks.data["x"]):
            self.marks.data = data
        self._draw_lines(job, view)
        said = words(job, view)
        if said or len(self.words.data["x"]):
            said = said or {"row": [], "column": [], "text": [], "colour": []}
            y, x = _centres(job, np.column_stack([said["row"], said["column"]]))
            self.words.data = {"x": x, "y": y, "text": said["text"], "colour": said["colour"]}

    def _draw_lines(self, job: JobState, view: str) -> None:
        """Lines between the tiles, where they are looked at as such and are large enough."""
        lines = view != PICTURE and max(job.grid.tiles) <= MAX_LINES
        grids = self.figure.ygrid[0], self.figure.xgrid[0]
        for grid, n, side in zip(grids, job.grid.tiles, job.grid.tile, strict=True):
            ticks = [k * side for k in range(1, n)] if lines else []
            if grid.ticker.ticks != ticks:
                grid.ticker.ticks, grid.visible = ticks, lines

    def _draw_flights(self, job: JobState, flights: list[Flight]) -> None:
        """An outline for each tile on a worker, filled as far as its time is of what tiles take here."""
        usual = _usual_seconds(job)
        data: dict[str, list[float]] = {name: [] for name in ("left", "right", "bottom", "top", "level")}
        for flight in flights:
            if job.state[flight.tile] == DONE:
                continue
            bottom, left, top, right = _edges(job, flight.tile)
            share = 0.0 if flight.seconds is None else 1 - 0.5 ** (flight.seconds / usual)
            for name, value in zip(data, (left, right, bottom, top, bottom + share * (top - bottom)), strict=True):
                data[name].append(value)
        if data["left"] or len(self.flights.data["left"]):
            self.flights.data = data

    def _tell(self, job: JobState, view: str, flights: list[Flight]) -> None:
        _set(self.divs["heading"], panel.heading(job))
        _set(self.divs["figures"], panel.figures(job, flights))
        _set(self.divs["workers"], panel.workers(self.scheduler, job, flights, WORKER_COLOURS))
        _set(self.divs["failures"], panel.failures(job))
        _set(self.divs["legend"], legend(job, view))
        tile = _parse(self.tile.value)
        known = tile is not None and self._is_tile(job, tile)
        if tile is None or not known:
            rows, columns = job.grid.tiles
            wrong = f"there is no tile {self.tile.value}: rows 0 to {rows - 1}, columns 0 to {columns - 1}"
            _set(self.divs["facts"], f'<div class="quiet">{panel.text(wrong)}</div>' if self.tile.value else "")
            self.chosen.data = {name: [] for name in self.chosen.data}
        else:
            _set(self.divs["facts"], f"<h3>Tile {tile[0]},{tile[1]}</h3>{panel.tile_facts(job, tile, flights)}")
            bottom, left, top, right = _edges(job, tile)
            self.chosen.data = {"left": [left], "right": [right], "bottom": [bottom], "top": [top]}
        if self.run != job.job.run or len(self.points.data["rate"]) != 1 + len(job.points):
            self.run = job.job.run
            points = [(0.0, 0.0), *job.points]
            self.points.data = {"seconds": [p[0] for p in points], "rate": [p[1] for p in points]}

    def _tap(self, event: Tap) -> None:
        if self.job and event.x is not None and event.y is not None:
            tile = int(event.y // self.job.grid.tile[0]), int(event.x // self.job.grid.tile[1])
            self.tile.value = f"{tile[0]},{tile[1]}" if self._is_tile(self.job, tile) else ""
            self.panel_due = 0.0

    @staticmethod
    def _is_tile(job: JobState, tile: tuple[int, int]) -> bool:
        return all(0 <= i < n for i, n in zip(tile, job.grid.tiles, strict=True))


def _set(div: Div, text: str) -> None:
    if div.text != text:
        div.text, div.visible = text, bool(text)


def _label(job: JobState) -> str:
    started = time.strftime("%H:%M:%S", time.localtime(job.job.started))
    return f"{job.job.name}, {started}"


def _parse(text: str) -> tuple[int, int] | None:
    try:
        row, column = text.split(",")
        return int(row), int(column)
    except ValueError:
        return None


def _edges(job: JobState, tile: tuple[int, int]) -> tuple[float, float, float, float]:
    """bottom, left, top, right."""
    (bottom, left), (rows, columns) = (i * s for i, s in zip(tile, job.grid.tile, strict=True)), job.grid.shape
    return bottom, left, min(bottom + job.grid.tile[0], rows), min(left + job.grid.tile[1], columns)


def _centres(job: JobState, tiles: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """The y and x of the centres of tiles, shape (n, 2)."""
    side, shape = np.array(job.grid.tile), np.array(job.grid.shape)
    low = np.asarray(tiles).reshape(-1, 2) * side
    y, x = ((low + np.minimum(low + side, shape)) / 2).T
    return y, x


def _usual_seconds(job: JobState) -> float:
    """The median of the tiles done; a straggler is seen to be one."""
    known = job.seconds[np.isfinite(job.seconds)]
    return max(0.05, float(np.median(known))) if known.size else 1.0
