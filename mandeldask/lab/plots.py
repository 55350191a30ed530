"""The report's plots, from the lab's results as JSON has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker, Range1d, Whisker
from bokeh.palettes import Colorblind8
from bokeh.plotting import figure

from mandeldask.kernels import KERNELS
from mandeldask.lab.workload import lesson_view

COLOURS = {
    "lesson": Colorblind8[5],
    "numpy": Colorblind8[0],
    "numpy-compact": Colorblind8[4],
    "numba": Colorblind8[3],
}
IDEAL = "#777777"
WORKERS = Colorblind8
Row = dict[str, Any]


Legend = list[tuple[str, str, str]]  # text, colour, and box, solid, dotted or dashed


def kernel_legend(rows: list[Row]) -> Legend:
    """The colours of `strategies`."""
    kernels = dict.fromkeys(row["kernel"] for row in rows if row["seconds"])
    return [("the lesson's loop" if k == "lesson" else f"kernel {k}", COLOURS[k], "box") for k in kernels]


def curve_legend(curves: list[Row]) -> Legend:
    """The lines of `speedups`, `efficiencies` and `block_sizes`."""
    return [("ideal", IDEAL, "dashed"), *((c["name"], *_look(c)) for c in curves)]


def _look(curve: Row) -> tuple[str, str]:
    """Colour and dash: the colour is the kernel, threads are dotted."""
    return COLOURS[curve["name"].split(",")[0]], "dotted" if "threads" in curve["name"] else "solid"


def strategies(rows: list[Row]) -> figure | None:
    """Time of each strategy on a logarithmic axis, with quartiles; the colour is the kernel."""
    rows = [row for row in rows if row["seconds"]][::-1]
    if not rows:
        return None
    low = min(row["seconds"]["low"] for row in rows) * 1e3
    high = max(row["seconds"]["high"] for row in rows) * 1e3
    names = [row["name"] for row in rows]
    plot = _figure(
        "Time, ms (logarithmic)",
        y_range=names,
        x_axis_type="log",
        x_range=Range1d(low / 2, high * 2),
        height=40 + 30 * len(rows),
    )
    for kernel in dict.fromkeys(row["kernel"] for row in reversed(rows)):
        mine = [row for row in rows if row["kernel"] == kernel]
        source = ColumnDataSource(
            {
                "name": [row["name"] for row in mine],
                "median": [row["seconds"]["median"] * 1e3 for row in mine],
                "low": [row["seconds"]["low"] * 1e3 for row in mine],
                "high": [row["seconds"]["high"] * 1e3 for row in mine],
            }
        )
        plot.hbar(
            y="name",
            left=low / 2,
            right="median",
            height=0.62,
            source=source,
            color=COLOURS[kernel],
        )
        plot.add_layout(Whisker(base="name", lower="low", upper="high", dimension="width", source=source))
    plot.ygrid.visible = False
    return plot


def speedups(curves: list[Row]) -> figure | None:
    """Speed-up over workers, against the ideal."""
    if not curves:
        return None
    counts = [p["x"] for p in curves[0]["points"]]
    plot = _figure("Strong scaling: speed-up", x_axis_label="workers")
    plot.line(counts, counts, color=IDEAL, line_dash="dashed")
    _curves(plot, curves, lambda p: p["speedup"])
    return _workers_axis(plot, counts)


def efficiencies(curves: list[Row]) -> figure | None:
    """Weak scaling: the efficiency with as much work for each worker, against the ideal 1."""
    if not curves:
        return None
    counts = [p["x"] for p in curves[0]["points"]]
    plot = _figure("Weak scaling: efficiency", x_axis_label="workers, and times the rows")
    plot.line(counts, [1] * len(counts), color=IDEAL, line_dash="dashed")
    _curves(plot, curves, lambda p: p["speedup"])  # with as much work for each, the ratio of times is the efficiency
    plot.y_range.start = 0
    return _workers_axis(plot, counts)


def block_sizes(curves: list[Row], workers: int) -> figure | None:
    """Speed-up against the kernel alone over the side of a block."""
    if not curves:
        return None
    plot = _figure("Times as fast as the kernel alone", x_axis_label="side of a block, samples", x_axis_type="log")
    sides = sorted({p["x"] for c in curves for p in c["points"]})
    plot.line([sides[0], sides[-1]], [workers] * 2, color=IDEAL, line_dash="dashed")
    _curves(plot, curves, lambda p: p["speedup"])
    plot.xaxis.ticker = FixedTicker(ticks=[2**k for k in range(sides[0].bit_length() - 1, sides[-1].bit_length())])
    plot.y_range.start = 0
    return plot


def timeline(balance: Row, longest: float) -> figure:
    """Who computed a block when: a bar a block, a row a worker."""
    rows = [f"worker {i}" for i in range(_workers(balance))]
    plot = _figure(
        f"{balance['name']}: ms", y_range=rows[::-1], x_range=Range1d(0, longest * 1e3), height=90 + 26 * len(rows)
    )
    pieces = balance["pieces"]
    plot.hbar(
        y=[rows[p["worker"]] for p in pieces],
        left=[p["start"] * 1e3 for p in pieces],
        right=[p["end"] * 1e3 for p in pieces],
        height=0.7,
        color=[WORKERS[p["worker"] % len(WORKERS)] for p in pieces],
        line_color="white",
    )
    plot.ygrid.visible = False
    return plot


def tiles(balance: Row) -> figure:
    """Which worker computed which block, over the set in grey."""
    pieces = balance["pieces"]
    rows = max(p["rows"][1] for p in pieces)
    columns = max(p["columns"][1] for p in pieces)
    plot = _figure(
        "", x_range=Range1d(0, columns), y_range=Range1d(0, rows), height=210, width=210, sizing_mode="fixed"
    )
    plot.image(image=[_grey_set()], x=0, y=0, dw=columns, dh=rows, palette="Greys256")
    plot.quad(
        left=[p["columns"][0] for p in pieces],
        right=[p["columns"][1] for p in pieces],
        bottom=[p["rows"][0] for p in pieces],
        top=[p["rows"][1] for p in pieces],
        fill_color=[WORKERS[p["worker"] % len(WORKERS)] for p in pieces],
        fill_alpha=0.45,
        line_color="white",
    )
    plot.axis.visible = plot.grid.visible = False
    return plot


def _workers(balance: Row) -> int:
    return int(max(balance["workers"], *(p["worker"] + 1 for p in balance["pieces"])))


def _grey_set(side: int = 150, max_iter: int = 60) -> Any:
    view = lesson_view(side)
    counts = KERNELS["numpy-compact"](max_iter)(view.block((0, side), (0, side)))
    return -np.log(counts)


def _curves(plot: figure, curves: list[Row], value: Any) -> None:
    """A line a curve, with quartiles."""
    for curve in curves:
        colour, dash = _look(curve)
        found = [value(p) for p in curve["points"]]
        data = {key: [f[key] for f in found] for key in ("median", "low", "high")}
        source = ColumnDataSource(data | {"x": [p["x"] for p in curve["points"]]})
        fill = colour if dash == "solid" else "white"
        plot.line("x", "median", source=source, color=colour, line_width=2, line_dash=dash)
        plot.scatter("x", "median", source=source, size=7, color=colour, fill_color=fill)
        plot.add_layout(Whisker(base="x", lower="low", upper="high", source=source, line_color=colour))


def _workers_axis(plot: figure, counts: list[int]) -> figure:
    plot.xaxis.ticker = FixedTicker(ticks=counts)
    return plot


def _figure(title: str, **options: Any) -> figure:
    options = {"height": 330, "sizing_mode": "stretch_width", "toolbar_location": None, "tools": "", **options}
    plot = figure(title=title, **options)
    plot.outline_line_color = None
    plot.title.text_font_size = "11pt"
    plot.title.text_font_style = "normal"
    return plot
