"""The plots of the page: the field with all that is drawn over it, and the rate over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    CustomJSHover,
    CustomJSTickFormatter,
    DataRange1d,
    FixedTicker,
    HoverTool,
)
from bokeh.plotting import figure
from numpy.typing import NDArray

from mandeldask.dashboard import hooks
from mandeldask.dashboard.panel import SIGNS
from mandeldask.dashboard.state import DONE, FAILED, RETRY, JobState, RunningTile
from mandeldask.dashboard.views import NOTHING, View
from mandeldask.telemetry import Tile

MAX_LINES = 64  # between rows or columns of tiles
MAX_LABELLED, MAX_ROWS = 400, 24  # tiles, and rows or columns of them, with something written on each
MAX_MARKS = 2000
MARK_COLOURS = {FAILED: "#c8322b", RETRY: "#b36b00", DONE: "#00000080"}
FACTS = ("state", "seconds", "mean", "minimum", "maximum", "worker")
EDGES = ("left", "right", "bottom", "top")
CLEAR: Any = {"background_fill_color": None, "border_fill_color": None, "outline_line_color": None}
KNOWN = "return value > 0 ? String(Number(value.toPrecision(4))) : '–'"
HOVER = {  # what is shown of the tile at the pointer, and the code that makes text of its value
    "$y": "return String(Math.floor(value / side[0]))",
    "$x": "return String(Math.floor(value / side[1]))",
    "@state": "return ['waiting', 'failed, to be tried again', 'failed', 'done'][value]",
    "@worker": "return value < 0 ? '–' : `${value}: ${workers[value]}`",
    **{f"@{name}": KNOWN for name in ("seconds", "minimum", "maximum", "mean")},
}
TOOLTIPS = [
    ("tile", "$y{custom},$x{custom}"),
    ("state", "@state{custom}"),
    ("worker", "@worker{custom}"),
    ("kernel seconds", "@seconds{custom}"),
    ("escape times", "@minimum{custom} to @maximum{custom}, mean @mean{custom}"),
]
TEXT: Any = {"value": "Helvetica, Arial, sans-serif"}
EDGE_COLUMNS: Any = {edge: edge for edge in EDGES}
EXTENT: Any = {"x": 0, "y": 0, "dw": "dw", "dh": "dh", "palette": [NOTHING] * 256}
LINE: Any = {**EDGE_COLUMNS, "fill_color": None, "line_width": 2}
FILL: Any = {**EDGE_COLUMNS, "top": "level", "fill_alpha": 0.45, "line_color": None}
HATCH: Any = {**EDGE_COLUMNS, "hatch_pattern": "/", "hatch_scale": 9, "hatch_weight": 1}
SIGN: Any = {"x": "x", "y": "y", "text": "text", "text_font": TEXT, "text_font_size": "12px", "text_color": "white"}
SIGN |= {"text_align": "center", "text_baseline": "middle", "background_fill_color": "colour", "padding": 2}
SOURCES = {  # the columns of each
    "ground": EDGES,
    "image": ("image", "dw", "dh"),
    "tiles": (*FACTS, "dw", "dh"),
    "running": (*EDGES, "level"),
    "labels": ("x", "y", "text", "colour"),
    "chosen": EDGES,
}
GLYPHS = [  # from below, and the source of each
    ("ground", "quad", HATCH),
    ("image", "image", EXTENT | {"image": "image"}),
    ("tiles", "image", EXTENT | {"image": "state"}),  # not seen: for the pointer
    ("running", "quad", FILL | {"fill_color": "#f28e2b"}),
    ("running", "quad", LINE | {"line_color": "#b4540a"}),
    ("labels", "text", SIGN),
    ("chosen", "quad", LINE | {"line_color": "#d81b60", "line_dash": "dashed"}),
]
Data = Mapping[str, Sequence[Any] | NDArray[Any]]


class FieldFigure:
    """The field in one image, and what is drawn over it."""

    def __init__(self) -> None:
        self.plot = figure(
            name="frame", sizing_mode="stretch_both", match_aspect=True, output_backend="canvas", min_border=0,
            tools="pan,wheel_zoom,box_zoom,reset,save", active_scroll="wheel_zoom", toolbar_location="right",
            x_range=DataRange1d(range_padding=0.01), y_range=DataRange1d(range_padding=0.01),
            x_axis_location=None, y_axis_location=None, **CLEAR,
        )  # fmt: skip
        self.plot.toolbar.logo = None
        self.plot.grid.level = "overlay"
        self.plot.grid.grid_line_color, self.plot.grid.grid_line_alpha = "#ffffff", 0.35
        self.sources = {
            name: ColumnDataSource(data={column: [] for column in columns}, name=name)
            for name, columns in SOURCES.items()
        }
        drawn = [getattr(self.plot, glyph)(source=self.sources[name], **options) for name, glyph, options in GLYPHS]
        ground, image, tiles = drawn[:3]
        ground.data_source.data = {"left": [0], "right": [1], "bottom": [0], "top": [1]}
        self.ground, self.mapper = ground.glyph, image.glyph.color_mapper
        self.mapper.low, self.mapper.high = -0.5, 255.5
        self.plot.x_range.renderers = self.plot.y_range.renderers = [ground]  # the axes hold it, whatever else is drawn
        self.hovers = {field: CustomJSHover(code=code) for field, code in HOVER.items()}
        self.plot.add_tools(HoverTool(renderers=[tiles], tooltips=TOOLTIPS, formatters=self.hovers))

    def open(self, job: JobState) -> None:
        """Another job: its extent, and the lines between its tiles."""
        rows, columns = job.grid.shape
        self.sources["ground"].data = {"left": [0], "right": [columns], "bottom": [0], "top": [rows]}
        lines = max(job.grid.tiles) <= MAX_LINES
        for grid, n, side in zip(self.plot.grid[::-1], job.grid.tiles, job.grid.tile, strict=True):
            grid.ticker = FixedTicker(ticks=[k * side for k in range(1, n)] if lines else [])

    def draw(self, job: JobState, view: View) -> None:
        """Draw a job."""
        if self.mapper.palette != view.palette:
            self.mapper.palette = list(view.palette)
        self.plot.grid.visible = view.label is not None
        rows, columns = (n * job.grid.stride for n in job.grid.size)
        self.sources["image"].data = {"image": [view.image(job)], "dw": [columns], "dh": [rows]}
        rows, columns = (n * side for n, side in zip(job.grid.tiles, job.grid.tile, strict=True))
        facts = {name: [np.ascontiguousarray(job.tiles[name])] for name in FACTS}
        self.sources["tiles"].data = {**facts, "dw": [columns], "dh": [rows]}
        args = {"side": job.grid.tile, "workers": list(job.workers)}
        for hover in self.hovers.values():
            hover.args = args
        self._label(job, view)

    def _label(self, job: JobState, view: View) -> None:
        """Signs on the tiles that failed; on those done, where they are few, what the view writes on them."""
        state = job.tiles["state"]
        failed = (state == FAILED) | (state == RETRY)
        few = state.size <= MAX_LABELLED and max(state.shape) <= MAX_ROWS
        write = view.label if few else None
        at = np.argwhere(failed | (state == DONE) if write else failed)[:MAX_MARKS]
        texts, colours = [], []
        for tile in job.tiles[*at.T]:
            kind = int(tile["state"])
            texts.append(write(tile) if write and kind == DONE else SIGNS[kind].sign)
            colours.append(MARK_COLOURS[kind])
        edges = _edges(job, at)
        x, y = (edges["left"] + edges["right"]) / 2, (edges["bottom"] + edges["top"]) / 2
        self.sources["labels"].data = {"x": x, "y": y, "text": texts, "colour": colours}

    def draw_running(self, job: JobState, running: Sequence[RunningTile]) -> None:
        """Outline the tiles on workers, each filled to one half in the time that the median tile takes."""
        known = job.tiles["seconds"][np.isfinite(job.tiles["seconds"])]
        usual = max(0.05, float(np.median(known))) if known.size else 1.0
        edges = _edges(job, [tile.tile for tile in running])
        share = 1 - 0.5 ** (np.array([tile.seconds or 0.0 for tile in running]) / usual)
        _replace(self.sources["running"], edges | {"level": edges["bottom"] + share * (edges["top"] - edges["bottom"])})

    def choose(self, job: JobState, tile: Tile | None) -> None:
        """Outline the tile that is looked at, if any."""
        _replace(self.sources["chosen"], _edges(job, [tile] if tile else []))


def rate_plot(points: ColumnDataSource) -> figure:
    """Iterations a second over the seconds of a run."""
    rate = figure(
        height=130, sizing_mode="stretch_width", tools="", toolbar_location=None, margin=(10, 0, 0, 0),
        x_axis_label="seconds since the start", y_axis_label="iterations/s", min_border_left=4,
        x_range=DataRange1d(start=0), y_range=DataRange1d(start=0), **CLEAR,
    )  # fmt: skip
    rate.line("seconds", "rate", source=points, line_width=2, line_color="#dd7a2b")
    rate.yaxis.formatter = CustomJSTickFormatter(code=hooks.asset("si.js"))
    rate.yaxis.ticker.desired_num_ticks = 3
    rate.xgrid.visible = False
    rate.axis.minor_tick_line_color = None
    rate.axis.axis_label_text_font_style = "normal"
    return rate


def theme(field: FieldFigure, rate: figure) -> CustomJS:
    """What gives the plots their colours, light or dark."""
    models = {"axes": list(rate.axis), "grids": list(rate.ygrid), "ground": field.ground}
    return CustomJS(args=models, code=hooks.asset("theme.js"))


def _replace(source: ColumnDataSource, data: Data) -> None:
    """Send new columns, unless there is nothing to see now as before."""
    first = next(iter(data))
    if len(data[first]) or len(source.data[first]):
        source.data = dict(data)


def _edges(job: JobState, tiles: Sequence[Tile] | NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Where tiles lie."""
    low = np.reshape(np.array(tiles, int), (-1, 2)) * job.grid.tile
    high = np.minimum(low + job.grid.tile, job.grid.shape)
    return dict(zip(EDGES, (low[:, 1], high[:, 1], low[:, 0], high[:, 0]), strict=True))
