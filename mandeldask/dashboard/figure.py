"""The field as the page draws it: ways to colour it, and what is drawn over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, CustomJSHover, DataRange1d, FixedTicker, HoverTool
from bokeh.palettes import Category20_20, Cividis256, Viridis256
from bokeh.plotting import figure
from numpy.typing import NDArray

from mandeldask.dashboard import hooks
from mandeldask.dashboard.state import DONE, FAILED, RETRY, WAITING, JobState, RunningTile
from mandeldask.image import palette, palette_index
from mandeldask.telemetry import Tile
from mandeldask.text import short_time, si

RUNNING = DONE + 1


class _Sign(NamedTuple):
    """How a state is written."""

    words: str
    sign: str
    style: str  # class of panel.css


SIGNS = {
    DONE: _Sign("done", "■", "done"),
    RUNNING: _Sign("on a worker", "▭", "running"),
    WAITING: _Sign("waiting", "╱", "waiting"),
    RETRY: _Sign("failed, will be retried", "↻", "retry"),
    FAILED: _Sign("failed", "✕", "failed"),
}
NOTHING = "#00000000"  # index 0: what lies below shows
STATE_COLOURS = {RETRY: "#e69f00", FAILED: "#c8322b", DONE: "#2f9e75"}
WORKER_COLOURS = tuple(Category20_20)
TONES = len(palette()) - 2  # without those of samples not computed, or not escaped
SCALE_SAMPLES = 2**15  # that the colours are laid out for
MAX_LINES = 64  # between rows or columns of tiles
MAX_LABELLED, MAX_LABELLED_ROWS = 400, 24  # tiles, and rows or columns of them, with something written on each
MAX_MARKS = 2000
MIN_GAP = 0.12  # of a scale between two ticks, for their texts
MARK_COLOURS = {FAILED: "#c8322b", RETRY: "#b36b00", DONE: "#00000080"}
FACTS = ("state", "seconds", "mean", "minimum", "maximum", "worker")
EDGES = ("left", "right", "bottom", "top")
CLEAR: Any = {"background_fill_color": None, "border_fill_color": None, "outline_line_color": None}
KNOWN = "return value > 0 ? String(Number(value.toPrecision(4))) : '–'"
HOVER = {  # what is shown of the tile at the pointer, and the code that makes text of its value
    "$y": "return String(Math.floor(value / side[0]))",
    "$x": "return String(Math.floor(value / side[1]))",
    "@state": f"return {[SIGNS[state].words for state in (WAITING, RETRY, FAILED, DONE)]}[value]",
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
    "values": ("x", "y", "text", "colour"),
    "labels": ("x", "y", "text", "colour"),
    "chosen": EDGES,
}
GLYPHS = [  # from below, and the source of each
    ("ground", "quad", HATCH),
    ("image", "image", EXTENT | {"image": "image"}),
    ("tiles", "image", EXTENT | {"image": "state"}),  # not seen: for the pointer
    ("running", "quad", FILL | {"fill_color": "#f28e2b"}),
    ("running", "quad", LINE | {"line_color": "#b4540a"}),
    ("values", "text", SIGN),
    ("labels", "text", SIGN),
    ("chosen", "quad", LINE | {"line_color": "#d81b60", "line_dash": "dashed"}),
]


class _Tick(NamedTuple):
    """A mark on a scale of colours."""

    at: float  # 0 to 1, from its first colour to its last
    text: str


Paint = tuple[NDArray[np.uint8], Sequence[_Tick]]


@dataclass(frozen=True)
class _Colouring:
    """A way to colour a job: an index into its palette for each tile, or for each sample of the preview."""

    palette: Sequence[str]  # 256
    paint: Callable[[JobState], Paint]  # the indices, and the ticks of their scale if it has one
    words: str  # what the colours mean
    last: str = ""  # what the last colour means, if it is not of the scale
    label: Callable[[np.void], str] | None = None  # what is written on a finished tile; None: samples are coloured

    def image(self, job: JobState) -> Paint:
        """The palette indices over the preview, and the ticks."""
        index, ticks = self.paint(job)
        if self.label is None:
            return index, ticks
        rows, columns = (
            np.arange(n) * job.grid.stride // side for n, side in zip(job.grid.size, job.grid.tile, strict=True)
        )
        return index[np.ix_(rows, columns)], ticks


def _ticks(
    low: float, high: float, place: Callable[[NDArray[Any]], NDArray[Any]], text: Callable[[float], str]
) -> list[_Tick]:
    """Both ends of a scale, and up to three round numbers between them; `place` gives where a number lies."""
    if high <= low:
        return [_Tick(0.0, text(low))]
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if high - low <= 5 * m * power)
    steps = np.arange(low // step + 1, high / step) * step
    decades = np.multiply.outer(10.0 ** np.arange(10), np.arange(1, 10)).ravel()
    between = np.unique(np.concatenate([steps, decades]))
    values = np.array([low, *between[(between > low) & (between < high)], high])
    at = place(values)
    chosen = [0]
    for share in (0.25, 0.5, 0.75):
        k = int(np.abs(at - share).argmin())
        if at[k] - at[chosen[-1]] > MIN_GAP and at[-1] - at[k] > MIN_GAP:
            chosen.append(k)
    return [_Tick(float(at[k]), text(float(values[k]))) for k in (*chosen, -1)]


def _picture(job: JobState) -> Paint:
    known = job.preview[job.preview > 0]
    known = known[:: 1 + known.size // SCALE_SAMPLES]
    index = palette_index(known, job.job.max_iter)
    escaped = np.unique(known[known < job.job.max_iter])
    if not escaped.size:
        return index(job.preview), ()

    def place(values: NDArray[Any]) -> NDArray[Any]:
        return (index(np.rint(values).astype(np.int32)) - 1) / (TONES - 1)

    last = min(int(np.searchsorted(index(escaped), TONES)), escaped.size - 1)
    low, high = int(escaped[0]), int(escaped[last])
    ticks = _ticks(low, high, place, "{:.0f}".format)
    more = "+" if escaped[-1] > high else ""  # a few deep samples have the last colour too
    return index(job.preview), [*ticks[:-1], _Tick(ticks[-1].at, ticks[-1].text + more)]


def _measure(column: str, colours: Sequence[str], words: str, text: Callable[[float], str]) -> _Colouring:
    """Tiles by a number: seconds from 0 up, mean escape times on a logarithmic scale."""

    def paint(job: JobState) -> Paint:
        values = job.tiles[column]
        known = values[np.isfinite(values)]
        if not known.size:
            return np.zeros(values.shape, np.uint8), ()
        low, high = 0.0 if column == "seconds" else float(known.min()), float(known.max())

        def place(values: NDArray[Any]) -> NDArray[Any]:
            if column == "mean":
                return np.log(values / low) / max(math.log(high / low), 1e-9)
            return values / max(high, 1e-9)

        index = np.where(np.isnan(values), 0, 1 + np.rint(np.nan_to_num(place(values)) * (TONES - 1)))
        return index.astype(np.uint8), _ticks(low, high, place, text)

    def label(tile: np.void) -> str:
        return text(float(tile[column])) if np.isfinite(tile[column]) else ""

    return _Colouring([NOTHING, *colours[:255]], paint, words, label=label)


COLOURINGS = {
    "picture": _Colouring(
        [NOTHING, *(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in palette()[1:])],
        _picture,
        "escape time",
        last="not escaped within {} iterations",
    ),
    "state": _Colouring(
        [STATE_COLOURS.get(state, NOTHING) for state in range(256)],
        lambda job: (job.tiles["state"], ()),
        "each tile by its state",
        label=lambda _: "✓",
    ),
    "worker": _Colouring(
        [NOTHING, *(WORKER_COLOURS[k % len(WORKER_COLOURS)] for k in range(255))],
        lambda job: (np.where(job.tiles["worker"] >= 0, 1 + job.tiles["worker"] % 240, 0).astype(np.uint8), ()),
        "each tile by the worker that computed it, with its number in the table of workers",
        label=lambda tile: str(tile["worker"]) if tile["worker"] >= 0 else "",
    ),
    "seconds": _measure("seconds", Viridis256, "kernel time of each tile", short_time),
    "mean escape time": _measure("mean", Cividis256, "mean escape time of each tile", si),
}


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
        self.plot.grid.visible = False
        self.plot.grid.grid_line_color, self.plot.grid.grid_line_alpha = "#ffffff", 0.35
        self.sources = {
            name: ColumnDataSource(data={column: [] for column in columns}, name=name)
            for name, columns in SOURCES.items()
        }
        drawn = [getattr(self.plot, glyph)(source=self.sources[name], **options) for name, glyph, options in GLYPHS]
        ground, image, tiles, _, _, self.values, *_ = drawn
        ground.data_source.data = {"left": [0], "right": [1], "bottom": [0], "top": [1]}
        self.ground, self.mapper = ground.glyph, image.glyph.color_mapper
        self.mapper.low, self.mapper.high = -0.5, 255.5
        self.plot.x_range.renderers = self.plot.y_range.renderers = [ground]  # the axes hold it, whatever else is drawn
        self.hovers = {field: CustomJSHover(code=code) for field, code in HOVER.items()}
        self.plot.add_tools(HoverTool(renderers=[tiles], tooltips=TOOLTIPS, formatters=self.hovers))
        self.fit = CustomJS(args={"plot": self.plot, "values": self.values, "side": (1, 1)}, code=hooks.asset("fit.js"))
        self.plot.js_on_change("inner_width", self.fit)
        self.plot.x_range.js_on_change("end", self.fit)
        self.sources["values"].js_on_change("data", self.fit)

    def open(self, job: JobState) -> None:
        """Another job: its extent, and the lines between its tiles."""
        rows, columns = job.grid.shape
        self.sources["ground"].data = {"left": [0], "right": [columns], "bottom": [0], "top": [rows]}
        self.fit.args = {**self.fit.args, "side": job.grid.tile}
        lines = max(job.grid.tiles) <= MAX_LINES
        for grid, n, side, length in zip(
            self.plot.grid[::-1], job.grid.tiles, job.grid.tile, (columns, rows), strict=True
        ):
            grid.cross_bounds = (0, length)
            grid.ticker = FixedTicker(ticks=[k * side for k in range(1, n)] if lines else [])

    def draw(self, job: JobState, colouring: _Colouring) -> Sequence[_Tick]:
        """Draw a job; gives the ticks of its colours."""
        if self.mapper.palette != colouring.palette:
            self.mapper.palette = list(colouring.palette)
        self.plot.grid.visible = colouring.label is not None
        rows, columns = (n * job.grid.stride for n in job.grid.size)
        index, ticks = colouring.image(job)
        self.sources["image"].data = {"image": [index], "dw": [columns], "dh": [rows]}
        rows, columns = (n * side for n, side in zip(job.grid.tiles, job.grid.tile, strict=True))
        facts = {name: [np.nan_to_num(job.tiles[name])] for name in FACTS}
        self.sources["tiles"].data = {**facts, "dw": [columns], "dh": [rows]}
        args = {"side": job.grid.tile, "workers": list(job.workers)}
        for hover in self.hovers.values():
            hover.args = args
        self._label(job, colouring.label)
        return ticks

    def _label(self, job: JobState, label: Callable[[np.void], str] | None) -> None:
        """Signs on the tiles that failed; a label on those done, where they are few."""
        state = job.tiles["state"]
        few = state.size <= MAX_LABELLED and max(state.shape) <= MAX_LABELLED_ROWS
        self._write("labels", job, (state == FAILED) | (state == RETRY), lambda tile: SIGNS[int(tile["state"])].sign)
        self._write("values", job, (state == DONE) & bool(label and few), label or str)

    def _write(self, source: str, job: JobState, where: NDArray[np.bool_], text: Callable[[np.void], str]) -> None:
        at = np.argwhere(where)[:MAX_MARKS]
        tiles, edges = job.tiles[*at.T], _edges(job, at)
        x, y = (edges["left"] + edges["right"]) / 2, (edges["bottom"] + edges["top"]) / 2
        colours = [MARK_COLOURS[int(tile["state"])] for tile in tiles]
        _replace(self.sources[source], {"x": x, "y": y, "text": [*map(text, tiles)], "colour": colours})

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


def _replace(source: ColumnDataSource, data: Mapping[str, Any]) -> None:
    """Send new columns, unless there is nothing to see now as before."""
    first = next(iter(data))
    if len(data[first]) or len(source.data[first]):
        source.data = dict(data)


def _edges(job: JobState, tiles: Sequence[Tile] | NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Where tiles lie."""
    low = np.reshape(np.array(tiles, int), (-1, 2)) * job.grid.tile
    high = np.minimum(low + job.grid.tile, job.grid.shape)
    return dict(zip(EDGES, (low[:, 1], high[:, 1], low[:, 0], high[:, 0]), strict=True))
