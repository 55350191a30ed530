"""The lab's results as one page that needs nothing else: to look at, to print, to hand out."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import jinja2
from bokeh.palettes import Colorblind8

from mandeldask import __version__
from mandeldask.errors import ConfigError
from mandeldask.image import check_path, picture
from mandeldask.lab import Row, Tell, claims, machine, strategies, tables
from mandeldask.lab.workload import Depth, lesson_view
from mandeldask.text import command, short_time

VERDICTS = {"true": "yes", "false": "no", "depends": "mixed", "not measurable here": "none"}  # and the style's class
COLOURS = {"lesson": Colorblind8[5], "numpy": Colorblind8[0], "numpy-compact": Colorblind8[4], "numba": Colorblind8[3]}
FORMAT = "mandeldask lab 1"
TABLE_BEGINS = (b'{\n "format": "mandeldask lab', b"# Parallel NumPy, measured")

Legend = list[tuple[str, str, str]]  # text, colour, and solid, dotted or dashed


def measure(depth: Depth, tell: Tell) -> Row:
    """All that the lab measures."""
    begun = perf_counter()
    described, name = machine.describe(), "this process"
    warnings = machine.thread_warnings({name: described}, {name: described["dask"]["threads"]})
    found: Row = {
        "format": FORMAT,
        "mandeldask": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": described,
        "warnings": warnings + machine.busy_warnings(),
    }
    found |= claims.measure(depth, tell) | strategies.measure(depth, tell) | strategies.measure_scaling(depth, tell)
    return found | {"seconds": perf_counter() - begun}


def read(path: str) -> Row:
    """Results that `write` left as JSON; ConfigError for a file that cannot be read, or is something else."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot read the lab's results: {getattr(error, 'strerror', '') or error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigError(
            f'{path}: must be what `mandeldask lab report` wrote, and it has no "format": "{FORMAT}"; measure again '
            f"with `{command('lab', 'report', 'OUT.html')}`"
        )
    return found


def check_target(path: str) -> Path:
    """The page's path.

    Raises
    ------
    ConfigError
        It does not end in .html, or it or a table beside it cannot be written, or would replace another's file.
    """
    page = check_path(path, "a report", (".html",))
    for each in (page, page.with_suffix(".json"), page.with_suffix(".md")):
        if not os.access(each if each.exists() else each.parent, os.W_OK):
            raise ConfigError(f"cannot write {each}: Permission denied. Give a path that can be written")
        if each != page and each.exists() and not (each.is_file() and each.read_bytes().startswith(TABLE_BEGINS)):
            raise ConfigError(f"{each} is something else: give the report another name, for its tables go beside it")
    return page


def write(found: Row, path: str) -> list[str]:
    """Write the page, and its tables beside it as .json and .md; the paths written."""
    page = check_target(path)
    texts = {
        page: _html(found),
        page.with_suffix(".json"): json.dumps(found, indent=1) + "\n",
        page.with_suffix(".md"): _filled("report.md", found),
    }
    for each, text in texts.items():
        each.write_text(text, encoding="utf-8")
    return [str(each) for each in texts]


def _html(found: Row) -> str:
    """The page."""
    whole_set = picture(lesson_view(150), max_iter=60, colormap="greys")
    return _filled(
        "report.html",
        found,
        bars=_bars(found["strategies"]),
        curves=_curve_legend(found["strong"]),
        blocks=_curve_legend(found["block_sizes"]),
        charts=_charts(found),
        timelines=_timelines(found["balance"]),
        whole_set=_data_url("image/png", whole_set._repr_png_()),
        worker_colours=Colorblind8,
        verdicts=VERDICTS,
        json=_data_url("application/json", json.dumps(found).encode()),
        markdown=_data_url("text/markdown", _filled("report.md", found).encode()),
    )


def _filled(template: str, found: Row, **more: Any) -> str:
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    pages = jinja2.Environment(
        loader=folder, autoescape=template.endswith("html"), trim_blocks=True, lstrip_blocks=True
    )
    problems = [f"{name}: {why}" for name, why in found["problems"].items()]
    common = {"found": found, "tables": tables.tables(found), "faults": tables.faults(found), "problems": problems}
    return pages.get_template(template).render(common | more)


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _curve_legend(curves: list[Row]) -> Legend:
    return [("ideal", "#777777", "dashed"), *((c["name"], *_colour_and_dash(c)) for c in curves)]


def _colour_and_dash(curve: Row) -> tuple[str, str]:
    """The colour is the kernel; threads are dotted."""
    return COLOURS[curve["name"].split(",")[0]], "dotted" if "threads" in curve["name"] else "solid"


# Drawings: places in the units of an SVG, which the template draws


@dataclass(frozen=True)
class _Axis:
    """Values from 0 to `high` at places from `start` to `end`."""

    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return round(self.start + (self.end - self.start) * value / (self.high or 1), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels of three to six values: multiples of 1, 2 or 5 times a power of ten."""
        step = next(step for k in range(-9, 10) for m in (1, 2, 5) if (step := m * 10.0**k) >= self.high / 6)
        return [(self.at(i * step), f"{i * step:g}") for i in range(7) if i * step <= self.high]


def _bars(rows: list[Row]) -> list[Row]:
    """Time of each strategy on a logarithmic scale, with quartiles; the colour is the kernel."""
    timed = [row for row in rows if row["seconds"]]
    if not timed:
        return []
    lowest, highest = min(row["seconds"]["low"] for row in timed) / 2, max(row["seconds"]["high"] for row in timed)
    x = _Axis(math.log(highest / lowest), 170, 840)
    return [
        {"name": row["name"], "colour": COLOURS[row["kernel"]], "text": short_time(row["seconds"]["median"])}
        | {key: x.at(math.log(row["seconds"][key] / lowest)) for key in ("median", "low", "high")}
        for row in timed
    ]


def _charts(found: Row) -> dict[str, Row]:
    workers = found["problem"]["workers"]
    charts = {
        "strong": ("Strong scaling: speed-up", "workers", lambda n: n),
        # with as much work for each worker, the ratio of times is the efficiency
        "weak": ("Weak scaling: efficiency", "workers, and times the rows", lambda _: 1),
        "block_sizes": ("Times as fast as the kernel alone", "side of a block, samples", lambda _: workers),
    }
    return {part: _chart(found[part], *how) for part, how in charts.items() if found[part]}


def _chart(curves: list[Row], title: str, label: str, ideal: Callable[[int], float]) -> Row:
    """Speed-ups over workers or block sizes: a line a curve, with quartiles, against the ideal."""
    highest = max(max(p["speedup"]["high"], ideal(p["x"])) for c in curves for p in c["points"])
    places = sorted({p["x"] for c in curves for p in c["points"]})
    across, y = _Axis(len(places) - 1, 60, 570), _Axis(1.05 * highest, 280, 30)
    x = {value: across.at(i) for i, value in enumerate(places)}

    def points(curve: Row) -> list[tuple[float, ...]]:
        spreads = {p["x"]: p["speedup"] for p in curve["points"]}
        return [(x[at], *(y.at(s[key]) for key in ("median", "low", "high"))) for at, s in spreads.items()]

    return {
        "title": title,
        "label": label,
        "x": [(at, str(value)) for value, at in x.items()],
        "y": y.ticks(),
        "ideal": [(at, y.at(ideal(value))) for value, at in x.items()],
        "lines": [(*_colour_and_dash(c), points(c)) for c in curves],
    }


def _timelines(balances: list[Row]) -> list[Row]:
    """Who computed a block when, and where it lies: a bar a block, a row a worker."""
    x = _Axis(1e3 * max((b["seconds"] for b in balances), default=0.0), 70, 700)
    return [
        {
            "title": f"{b['name']}: ms",
            "workers": range(b["workers"]),
            "ticks": x.ticks(),
            "pieces": [p | {"first": x.at(p["start"] * 1e3), "last": x.at(p["end"] * 1e3)} for p in b["pieces"]],
            "shape": [max(p[axis][1] for p in b["pieces"]) for axis in ("rows", "columns")],
        }
        for b in balances
    ]
