"""The plots of the page: the field with all that is drawn over it, and the rate over time."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    CustomJSHover,
    CustomJSTickFormatter,
    DataRange1d,
    FixedTicker,
    GlyphRenderer,
    HoverTool,
    LinearColorMapper,
)
from bokeh.plotting import figure

from mandeldask.dashboard import style
from mandeldask.dashboard.running_tiles import RunningTile
from mandeldask.dashboard.state import DONE, FAILED, RETRY, JobState
from mandeldask.dashboard.views import NOTHING, PICTURE, colours, indices, labels, scale_of
from mandeldask.telemetry import Tile

MAX_LINES = 64  # between rows or columns of tiles
MAX_MARKS = 2000
PATCHES = 32  # tiles; beyond, the image is sent anew
FACTS = ("state", "seconds", "mean", "minimum", "maximum", "worker")
STATE_NAMES = ["waiting", "failed, to be tried again", "failed", "done"]
EDGES = ("left", "right", "bottom", "top")
QUAD: Any = {edge: edge for edge in EDGES}
CLEAR: Any = {"background_fill_color": None, "border_fill_color": None, "outline_line_color": None}


def _source(*columns: str, name: str) -> ColumnDataSource:
    return ColumnDataSource(data={column: [] for column in columns}, name=name)


class FieldFigure:
    """The field in one image, patched in place as tiles come in, and what is drawn over it."""

    def __init__(self) -> None:
        self.plot = _field_plot()
        self.ground, self.facts = self._draw_ground(), _source(*FACTS, "dw", "dh", name="tiles")
        self.image = _source("image", "dw", "dh", name="image")
        self.mapper = LinearColorMapper(palette=colours(PICTURE), low=-0.5, high=255.5, nan_color=NOTHING)
        self.plot.image("image", x=0, y=0, dw="dw", dh="dh", source=self.image, color_mapper=self.mapper)
        hidden = LinearColorMapper(palette=[NOTHING], low=0, high=1, nan_color=NOTHING)
        facts = self.plot.image("state", x=0, y=0, dw="dw", dh="dh", source=self.facts, color_mapper=hidden)
        self.running = self._draw_running()
        self.marks = self._draw_marks()
        self.labels = self._draw_labels()
        self.chosen = _source(*EDGES, name="chosen")
        self.plot.quad(
            **QUAD, source=self.chosen, fill_color=None, line_color="#d81b60", line_width=2, line_dash="dashed"
        )
        self._add_hover(facts)
        self.view, self.stamp = "", -1
        self.scale: object = None

    def _draw_ground(self) -> GlyphRenderer[Any]:
        """The hatched ground of what is not computed yet; the axes hold it, whatever else is drawn."""
        ground = self.plot.quad(
            left=[0], right=[1], bottom=[0], top=[1], fill_color="#eceff2", line_color="#e2e5e9",
            hatch_pattern="/", hatch_scale=9, hatch_color="#d3d9df", hatch_weight=1,
        )  # fmt: skip
        self.plot.x_range.renderers = self.plot.y_range.renderers = [ground]
        return ground

    def _draw_running(self) -> ColumnDataSource:
        """An outline for each tile on a worker, filled from below up to `level`."""
        source = _source(*EDGES, "level", name="running")
        filled = QUAD | {"top": "level"}
        self.plot.quad(**filled, source=source, fill_color="#f28e2b", fill_alpha=0.45, line_color=None)
        self.plot.quad(**QUAD, source=source, fill_color=None, line_color="#b4540a", line_width=2)
        return source

    def _draw_marks(self) -> ColumnDataSource:
        """Signs of failed tiles, with a white rim."""
        source = _source("x", "y", "marker", "colour", name="marks")
        for size, width, colour in ((13, 3, "white"), (11, 2, "colour")):
            self.plot.scatter(
                "x", "y", marker="marker", source=source, size=size, line_width=width, line_color=colour,
                fill_color=None,
            )  # fmt: skip
        return source

    def _draw_labels(self) -> ColumnDataSource:
        source = _source("x", "y", "text", "colour", name="labels")
        self.plot.text(
            "x", "y", text="text", source=source, text_color="colour", text_align="center", text_baseline="middle",
            text_font_size="12px", text_font={"value": "Helvetica, Arial, sans-serif"},
        )  # fmt: skip
        return source

    def _add_hover(self, facts: GlyphRenderer[Any]) -> None:
        state = CustomJSHover(code=f"return {STATE_NAMES!r}[value] ?? 'waiting'")
        known = CustomJSHover(code="return value > 0 ? String(Number(value.toPrecision(4))) : '–'")
        self.worker_hover = CustomJSHover(
            args={"names": []}, code="return value < 0 ? '–' : `${value}: ${names[value]}`"
        )
        self.row_hover, self.column_hover = (
            CustomJSHover(args={"side": 1}, code="return String(Math.floor(value / side))") for _ in range(2)
        )
        numbers = {f"@{name}": known for name in ("seconds", "minimum", "maximum", "mean")}
        places = {"$y": self.row_hover, "$x": self.column_hover}
        tooltips = [
            ("tile", "$y{custom},$x{custom}"),
            ("state", "@state{custom}"),
            ("worker", "@worker{custom}"),
            ("kernel seconds", "@seconds{custom}"),
            ("escape times", "@minimum{custom} to @maximum{custom}, mean @mean{custom}"),
        ]
        formatters = {**places, "@state": state, "@worker": self.worker_hover, **numbers}
        self.plot.add_tools(HoverTool(renderers=[facts], tooltips=tooltips, formatters=formatters))

    def open(self, job: JobState) -> None:
        """Another job: its extent."""
        self.view, self.stamp, self.scale = "", -1, None
        rows, columns = job.grid.shape
        self.ground.data_source.data = {"left": [0], "right": [columns], "bottom": [0], "top": [rows]}
        self.row_hover.args, self.column_hover.args = ({"side": side} for side in job.grid.tile)

    def draw(self, job: JobState, view: str) -> None:
        """Draw what has changed of a job since the last time; patch where few tiles have, else send all anew."""
        changed = np.argwhere(job.stamps > self.stamp)
        scale = scale_of(job, view)
        if view != self.view or scale != self.scale or len(changed) > PATCHES:
            self._send(job, view)
        elif len(changed):
            self._patch(job, view, [(int(i), int(j)) for i, j in changed])
        names = list(job.workers)
        if self.worker_hover.args["names"] != names:
            self.worker_hover.args = {"names": names}
        self._mark_failures(job)
        self._draw_lines(job, view)
        self._label(job, view)
        self.view, self.stamp, self.scale = view, job.stamp, scale

    def _send(self, job: JobState, view: str) -> None:
        if view != self.view:
            self.mapper.palette = colours(view)
        rows, columns = (n * job.grid.stride for n in job.grid.size)
        self.image.data = {"image": [indices(job, view)], "dw": [columns], "dh": [rows]}
        rows, columns = (n * side for n, side in zip(job.grid.tiles, job.grid.tile, strict=True))
        facts = {name: [np.ascontiguousarray(getattr(job, name))] for name in FACTS}
        self.facts.data = {**facts, "dw": [columns], "dh": [rows]}

    def _patch(self, job: JobState, view: str, tiles: list[Tile]) -> None:
        parts = [(cells, indices(job, view, *cells).ravel()) for cells in map(job.grid.cells, tiles)]
        self.image.patch({"image": [((0, *cells), part) for cells, part in parts if part.size]})
        here = [((0, slice(i, i + 1), slice(j, j + 1)), (i, j)) for i, j in tiles]
        self.facts.patch({name: [(at, np.atleast_1d(getattr(job, name)[tile])) for at, tile in here] for name in FACTS})

    def _mark_failures(self, job: JobState) -> None:
        tiles = np.argwhere((job.state == FAILED) | (job.state == RETRY))[:MAX_MARKS]
        final = job.state[*tiles.T] == FAILED
        y, x = _centres(job, tiles)
        marker, colour = np.where(final, "x", "circle"), np.where(final, "#c8322b", "#b36b00")
        _replace(self.marks, {"x": x, "y": y, "marker": marker, "colour": colour})

    def _draw_lines(self, job: JobState, view: str) -> None:
        """Lines between the tiles, where they are looked at as such and are large enough."""
        lines = view != PICTURE and max(job.grid.tiles) <= MAX_LINES
        grids = self.plot.ygrid[0], self.plot.xgrid[0]
        for grid, n, side in zip(grids, job.grid.tiles, job.grid.tile, strict=True):
            ticks = [k * side for k in range(1, n)] if lines else []
            if grid.ticker.ticks != ticks:
                grid.ticker.ticks, grid.visible = ticks, lines

    def _label(self, job: JobState, view: str) -> None:
        told = labels(job, view) or {"row": [], "column": [], "text": [], "colour": []}
        y, x = _centres(job, np.column_stack([told["row"], told["column"]]))
        _replace(self.labels, {"x": x, "y": y, "text": told["text"], "colour": told["colour"]})

    def draw_running(self, job: JobState, running: list[RunningTile]) -> None:
        """Outline the tiles on workers, each filled as far as its time is of what tiles take here."""
        usual = _usual_seconds(job)
        data: dict[str, list[float]] = {name: [] for name in (*EDGES, "level")}
        for tile in running:
            if job.state[tile.tile] != DONE:
                left, right, bottom, top = _edges(job, tile.tile)
                share = 0.0 if tile.seconds is None else 1 - 0.5 ** (tile.seconds / usual)
                level = bottom + share * (top - bottom)
                for name, value in zip(data, (left, right, bottom, top, level), strict=True):
                    data[name].append(value)
        _replace(self.running, data)

    def choose(self, job: JobState, tile: Tile | None) -> None:
        """Outline the tile that is looked at, if any."""
        edges = zip(EDGES, _edges(job, tile), strict=True) if tile else ()
        data: dict[str, list[float]] = {edge: [] for edge in EDGES} | {edge: [value] for edge, value in edges}
        if data != dict(self.chosen.data):
            self.chosen.data = data


def _field_plot() -> figure:
    plot = figure(
        name="frame", sizing_mode="stretch_both", match_aspect=True, output_backend="canvas", min_border=0,
        tools="pan,wheel_zoom,box_zoom,reset,save", active_scroll="wheel_zoom", toolbar_location="right",
        x_range=DataRange1d(range_padding=0.01), y_range=DataRange1d(range_padding=0.01),
        x_axis_location=None, y_axis_location=None, **CLEAR,
    )  # fmt: skip
    plot.grid.visible = False
    plot.xgrid.ticker, plot.ygrid.ticker = FixedTicker(ticks=[]), FixedTicker(ticks=[])
    plot.grid.level = "overlay"
    plot.grid.grid_line_color, plot.grid.grid_line_alpha = "#ffffff", 0.35
    plot.toolbar.logo = None
    return plot


def rate_plot(points: ColumnDataSource) -> figure:
    """Iterations a second over the seconds of a run."""
    rate = figure(
        height=130, sizing_mode="stretch_width", tools="", toolbar_location=None, margin=(10, 0, 0, 0),
        x_axis_label="seconds since the start", y_axis_label="iterations/s", min_border_left=4,
        x_range=DataRange1d(start=0), y_range=DataRange1d(start=0), **CLEAR,
    )  # fmt: skip
    rate.line("seconds", "rate", source=points, line_width=2, line_color="#dd7a2b")
    hover = CustomJSHover(code=style.SI_CODE.replace("tick", "value"))
    tooltips = [("seconds", "@seconds{0}"), ("iterations/s", "@rate{custom}")]
    rate.add_tools(HoverTool(tooltips=tooltips, formatters={"@rate": hover}, mode="vline"))
    rate.yaxis.formatter = CustomJSTickFormatter(code=style.SI_CODE)
    rate.xgrid.visible = False
    rate.axis.minor_tick_line_color = None
    rate.axis.axis_label_text_font_style = "normal"
    rate.yaxis.ticker.desired_num_ticks = 3
    return rate


def theme(field: FieldFigure, rate: figure) -> CustomJS:
    """What gives the plots their colours, light or dark."""
    models = {"axes": list(rate.axis), "grids": list(rate.ygrid), "ground": field.ground.glyph}
    return CustomJS(args=models, code=style.THEME_CODE)


def _replace(source: ColumnDataSource, data: dict[str, Any]) -> None:
    """Send new columns, unless there is nothing to see now as before."""
    first = next(iter(data))
    if len(data[first]) or len(source.data[first]):
        source.data = data


def _edges(job: JobState, tile: Tile) -> tuple[float, float, float, float]:
    """left, right, bottom, top."""
    (bottom, left), (rows, columns) = (i * s for i, s in zip(tile, job.grid.tile, strict=True)), job.grid.shape
    return left, min(left + job.grid.tile[1], columns), bottom, min(bottom + job.grid.tile[0], rows)


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
