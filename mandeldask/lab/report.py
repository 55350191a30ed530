"""The lab's results as one page that needs nothing else: to look at, to print, to hand out."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from bokeh.palettes import Colorblind8

from mandeldask.errors import ConfigError
from mandeldask.image import check_path, picture
from mandeldask.lab import results
from mandeldask.lab.results import Results
from mandeldask.lab.workload import lesson_view

HERE = Path(__file__).parent
VERDICTS = {"true": "yes", "false": "no", "depends": "mixed", "not measurable here": "none"}  # and the style's class
COLOURS = {
    "lesson": Colorblind8[5],
    "numpy": Colorblind8[0],
    "numpy-compact": Colorblind8[4],
    "numba": Colorblind8[3],
}
IDEAL = "#777777"

Row = dict[str, Any]
Legend = list[tuple[str, str, str]]  # text, colour, and box, solid, dotted or dashed


def check_target(path: str) -> Path:
    """The page's path.

    Raises
    ------
    ConfigError
        It does not end in .html, or it or a table beside it cannot be written, or would replace another's file.
    """
    page = check_path(path, "a report", (".html",))
    tables = page.with_suffix(".json"), page.with_suffix(".md")
    for each in (page, *tables):
        if each.is_dir():
            raise ConfigError(f"a report and its tables are files; {each} is a directory: give another name")
        if not os.access(each if each.exists() else each.parent, os.W_OK):
            raise ConfigError(f"cannot write {each}: Permission denied. Give a path that can be written")
    for each in tables:
        if each.exists() and not _is_table(each):
            raise ConfigError(
                f"the tables of {page.name} go to {' and '.join(t.name for t in tables)} beside it, and {each} is "
                "something else: give the report another name"
            )
    return page


def _is_table(path: Path) -> bool:
    """Whether an earlier report wrote it."""
    try:
        if path.suffix == ".json":
            return bool(results.read(path))
        with path.open(encoding="utf-8") as file:
            return file.readline().rstrip() == results.HEADING
    except (ConfigError, OSError, ValueError):
        return False


def write(found: Results, path: str, source: str | None = None) -> list[str]:
    """Write the page, and its tables beside it as .json and .md; the paths written.

    Raises
    ------
    ConfigError
        As of `check_target`; the disk is full; the results were read from `source` and cannot be drawn.
    """
    page = check_target(path)
    try:
        texts = {
            page: html(found),
            page.with_suffix(".json"): json.dumps(found, indent=1) + "\n",
            page.with_suffix(".md"): results.markdown(found),
        }
    except Exception as error:  # whatever a file may lead to that has our format's name and not its content
        if source is None:
            raise
        raise results.not_results(source, f"it cannot be drawn ({type(error).__name__}: {error})") from None
    try:
        for each, text in texts.items():
            each.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename}: {error.strerror}") from None
    return [str(each) for each in texts]


def html(found: Results) -> str:
    """The page."""
    values = {
        "tables": {title: table(found) for title, table in results.TABLES.items()},
        "faults": results.faults(found),
        "problems": [f"{name}: {why}" for name, why in found["problems"].items()],
        "bars": _bars(found["strategies"]),
        "kernels": _kernel_legend(found["strategies"]),
        "curves": _curve_legend(found["strong"]),
        "blocks": _curve_legend(found["block_sizes"]),
        "charts": _charts(found),
        "timelines": _timelines(found["balance"]),
        "whole_set": _data_url("image/png", picture(lesson_view(150), max_iter=60, colormap="greys")._repr_png_()),
        "worker_colours": Colorblind8,
        "verdicts": VERDICTS,
        "style": (HERE / "report.css").read_text(encoding="utf-8"),
        "json": _data_url("application/json", json.dumps(found).encode()),
        "markdown": _data_url("text/markdown", results.markdown(found).encode()),
    }
    template = jinja2.Environment(autoescape=True).from_string((HERE / "report.html").read_text(encoding="utf-8"))
    return template.render(found=found, **values)


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _kernel_legend(rows: list[Row]) -> Legend:
    kernels = dict.fromkeys(row["kernel"] for row in rows if row["seconds"])
    return [("the lesson's loop" if k == "lesson" else f"kernel {k}", COLOURS[k], "box") for k in kernels]


def _curve_legend(curves: list[Row]) -> Legend:
    return [("ideal", IDEAL, "dashed"), *((c["name"], *_colour_and_dash(c)) for c in curves)]


def _colour_and_dash(curve: Row) -> tuple[str, str]:
    """The colour is the kernel; threads are dotted."""
    return COLOURS[curve["name"].split(",")[0]], "dotted" if "threads" in curve["name"] else "solid"


# Drawings: places in the units of an SVG, which the template draws


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` at places from `start` to `end`, on a linear or a logarithmic scale."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (self.end - self.start) * (value - low) / ((high - low) or 1), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels: 1, 2 and 5 times powers of ten, some five of them if linear."""
        powers = [10.0**k for k in range(-9, 10)]
        nice = [m * power for power in powers for m in (1, 2, 5)]
        step = next(n for n in nice if n >= (self.high - self.low) / 6)
        values = nice if self.log else [i * step for i in range(7)]
        return [(self.at(v), f"{v:g}") for v in values if self.low <= v <= self.high]


def _bars(rows: list[Row]) -> Row:
    """Time of each strategy on a logarithmic axis, with quartiles; the colour is the kernel."""
    timed = [row for row in rows if row["seconds"]]
    times = [{key: value * 1e3 for key, value in row["seconds"].items()} for row in timed]
    low, high = min((t["low"] for t in times), default=1), max((t["high"] for t in times), default=1)
    x = Axis(low / 2, high * 2, 170, 940, log=True)
    bars = [
        {"name": row["name"], "colour": COLOURS[row["kernel"]]} | {k: x.at(t[k]) for k in ("median", "low", "high")}
        for row, t in zip(timed, times, strict=True)
    ]
    return {"bars": bars, "ticks": x.ticks()}


def _charts(found: Results) -> dict[str, Row]:
    strong, weak, blocks = found["strong"], found["weak"], found["block_sizes"]
    workers = found["problem"]["workers"]
    charts = {
        "strong": (strong, "Strong scaling: speed-up", "workers", lambda n: n),
        # with as much work for each worker, the ratio of times is the efficiency
        "weak": (weak, "Weak scaling: efficiency", "workers, and times the rows", lambda _: 1),
        "blocks": (blocks, "Times as fast as the kernel alone", "side of a block, samples", lambda _: workers),
    }
    return {name: _chart(*chart, log=name == "blocks") for name, chart in charts.items() if chart[0]}


def _chart(curves: list[Row], title: str, label: str, ideal: Callable[[int], float], log: bool) -> Row:
    """Speed-ups over workers or block sizes: a line a curve, with quartiles, against the ideal."""
    values = sorted({p["x"] for c in curves for p in c["points"]})
    width = 960 if log else 600
    highest = max(max(p["speedup"]["high"], ideal(p["x"])) for c in curves for p in c["points"])
    x, y = Axis(values[0], values[-1], 60, width - 30, log), Axis(0, 1.05 * highest, 280, 30)

    def points(curve: Row) -> list[tuple[float, ...]]:
        spreads = [(p["x"], *(p["speedup"][key] for key in ("median", "low", "high"))) for p in curve["points"]]
        return [(x.at(value), *map(y.at, spread)) for value, *spread in spreads]

    marked = [2**k for k in range(32) if values[0] <= 2**k <= values[-1]] if log else values
    return {
        "title": title,
        "label": label,
        "width": width,
        "x": [(x.at(v), str(v)) for v in marked],
        "y": y.ticks(),
        "ideal": [(x.at(v), y.at(ideal(v))) for v in (values[0], values[-1])],
        "lines": [(*_colour_and_dash(c), points(c)) for c in curves],
    }


def _timelines(balances: list[Row]) -> list[Row]:
    longest = max((b["seconds"] for b in balances), default=0.0)
    return [_timeline(b, longest) for b in balances]


def _timeline(balance: Row, longest: float) -> Row:
    """Who computed a block when, and where it lies: a bar a block, a row a worker."""
    x = Axis(0, longest * 1e3, 70, 700)
    pieces = balance["pieces"]
    return {
        "title": f"{balance['name']}: ms",
        "workers": range(results.workers_in(balance)),
        "ticks": x.ticks(),
        "pieces": [p | {"first": x.at(p["start"] * 1e3), "last": x.at(p["end"] * 1e3)} for p in pieces],
        "shape": [max(p[axis][1] for p in pieces) for axis in ("rows", "columns")],
    }
