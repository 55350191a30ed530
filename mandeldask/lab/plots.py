"""The report's plots, from the lab's results as JSON has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker, Range1d, Span, Whisker
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


def strategies(rows: list[Row]) -> figure | None:
    """Time of each strategy on a logarithmic axis, with quartiles; the colour is the kernel."""
    rows = [row for row in rows if row["seconds"]][::-1]
    if not rows:
        return None
    low = min(row["seconds"]["low"] for row in rows) * 1e3
    high = max(row["seconds"]["high"] for row in rows) * 1e3
    names = [row["title"] for row in rows]
    plot = _figure(
        "Time, ms (shorter is faster)",
        y_range=names,
        x_axis_type="log",
        x_range=Range1d(low / 2, high * 2),
        height=40 + 30 * len(rows),
    )
    for kernel in dict.fromkeys(row["kernel"] for row in reversed(rows)):
        mine = [row for row in rows if row["kernel"] == kernel]
        source = ColumnDataSource(
            {
                "name": [row["title"] for row in mine],
                "median": [row["seconds"]["median"] * 1e3 for row in mine],
                "low": [row["seconds"]["low"] * 1e3 for row in mine],
                "high": [row["seconds"]["high"] * 1e3 for row in mine],
            }
        )
        title = "the lesson's loop" if kernel == "lesson" else f"kernel {kernel}"
        plot.hbar(
            y="name",
            left=low / 2,
            right="median",
            height=0.62,
            source=source,
            color=COLOURS[kernel],
            legend_label=title,
        )
        plot.add_layout(Whisker(base="name", lower="low", upper="high", dimension="width", source=source))
    plot.ygrid.visible = False
    _legend_below(plot)
    return plot


def speedups(curves: list[Row]) -> figure | None:
    """Speed-up over workers, against the ideal."""
    if not curves:
        return None
    counts = [p["x"] for p in curves[0]["points"]]
    plot = _figure("Strong scaling: times as fast as one worker", x_axis_label="workers")
    plot.line(counts, counts, color=IDEAL, line_dash="dashed", legend_label="ideal")
    _curves(plot, curves, lambda p: p["speedup"])
    return _workers_axis(plot, counts)


def efficiencies(curves: list[Row]) -> figure | None:
    """Weak scaling: the efficiency with as much work for each worker, against the ideal 1."""
    if not curves:
        return None
    counts = [p["x"] for p in curves[0]["points"]]
    plot = _figure("Weak scaling: efficiency", x_axis_label="workers, and times the rows")
    plot.line(counts, [1] * len(counts), color=IDEAL, line_dash="dashed", legend_label="ideal")
    _curves(plot, curves, lambda p: {k: v * p["x"] / p["x"] for k, v in p["speedup"].items() if k != "n"})
    plot.y_range.start = 0
    return _workers_axis(plot, counts)


def block_sizes(curves: list[Row], workers: int) -> figure | None:
    """Speed-up against the kernel alone over the side of a block."""
    if not curves:
        return None
    plot = _figure("Times as fast as the kernel alone", x_axis_label="side of a block, samples", x_axis_type="log")
    sides = sorted({p["x"] for c in curves for p in c["points"]})
    plot.line([sides[0], sides[-1]], [workers] * 2, color=IDEAL, line_dash="dashed", legend_label="ideal")
    _curves(plot, curves, lambda p: p["speedup"])
    plot.xaxis.ticker = FixedTicker(ticks=sides)
    plot.xaxis.major_label_orientation = 0.9
    plot.y_range.start = 0
    _legend_below(plot)
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
        balance["name"], x_range=Range1d(0, columns), y_range=Range1d(0, rows), height=260, match_aspect=True
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
    return max(balance["workers"], *(p["worker"] + 1 for p in balance["pieces"]))


def _grey_set(side: int = 150, max_iter: int = 60) -> Any:
    view = lesson_view(side)
    counts = KERNELS["numpy-compact"](max_iter)(view.block((0, side), (0, side)))
    return -np.log(counts)


def _curves(plot: figure, curves: list[Row], value: Any) -> None:
    """A line a curve with quartiles: the colour is the kernel, threads are dotted with hollow marks."""
    for curve in curves:
        kernel, threads = curve["name"].split(",")[0], "threads" in curve["name"]
        found = [value(p) for p in curve["points"]]
        data = {"x": [p["x"] for p in curve["points"]]} | {
            key: [f[key] for f in found] for key in ("median", "low", "high")
        }
        source, colour = ColumnDataSource(data), COLOURS[kernel]
        plot.line(
            "x", "median", source=source, color=colour, line_width=2, legend_label=curve["name"],
            line_dash="dotted" if threads else "solid",
        )  # fmt: skip
        plot.scatter(
            "x", "median", source=source, size=7, color=colour, fill_color="white" if threads else colour,
            legend_label=curve["name"],
        )  # fmt: skip
        plot.add_layout(Whisker(base="x", lower="low", upper="high", source=source, line_color=colour))


def _workers_axis(plot: figure, counts: list[int]) -> figure:
    plot.xaxis.ticker = FixedTicker(ticks=counts)
    plot.add_layout(Span(location=0, dimension="width", line_alpha=0))
    _legend_below(plot)
    return plot


def _legend_below(plot: figure) -> None:
    legend = plot.legend[0]
    legend.orientation = "horizontal"
    legend.ncols = 2
    legend.border_line_color = None
    legend.label_text_font_size = "9pt"
    plot.add_layout(legend, "below")


def _figure(title: str, **options: Any) -> figure:
    options = {"height": 330, "sizing_mode": "stretch_width", "toolbar_location": None, "tools": "", **options}
    plot = figure(title=title, **options)
    plot.outline_line_color = None
    plot.title.text_font_size = "11pt"
    plot.title.text_font_style = "normal"
    return plot
