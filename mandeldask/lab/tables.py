"""The lab's results as tables, which a terminal, Markdown and the page show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mandeldask.lab import machine
from mandeldask.lab.results import Results
from mandeldask.lab.timing import Spread, seconds

SCALING = ("Strong scaling", "Weak scaling", "Block sizes", "Load balance")


@dataclass(frozen=True)
class Table:
    """A heading and rows of text."""

    heading: list[str]
    rows: list[list[str]]

    def text(self) -> str:
        """Lines with columns as wide as their widest cell."""
        lines = [self.heading, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        cells = ([f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)] for line in lines)
        return "\n".join("  ".join(line).rstrip() for line in cells)


def tables(found: Results) -> dict[str, Table]:
    """All of them, by their titles."""
    facts = [[label, *texts] for label, texts in machine.side_by_side([found["machine"]])]
    return {
        "The machine": Table(["", "this machine"], facts),
        "The lesson's claims": Table(
            ["verdict", "the lesson says", "measured", "why"],
            [[verdict(c), c["says"], c["figure"], c["why"]] for c in found["claims"]],
        ),
        "Strategies": strategies_table(found),
        **scaling_tables(found),
    }


def verdict(claim: dict[str, Any]) -> str:
    """A claim's verdict, and whether it lies within the noise."""
    return f"{claim['verdict']}{', within the noise' if claim['noise'] else ''}"


def strategies_table(found: Results) -> Table:
    heading = ["strategy", "workers", "time", "speed-up", "efficiency", "overhead", "start-up", "memory", "pixels"]
    return Table(heading, [[row["name"], str(row["workers"]), *_strategy(row)] for row in found["strategies"]])


def _strategy(row: dict[str, Any]) -> list[str]:
    if row["problem"]:
        return [*[""] * 6, row["problem"]]
    pixels = f"{row['pixels_differing']} differ" if row["pixels_differing"] else "all right"
    return [
        _spread(row["seconds"], "s"),
        _spread(row["speedup"], "x"),
        "" if row["efficiency"] is None else f"{row['efficiency']:.0%}",
        "" if row["overhead"] is None else seconds(row["overhead"]),
        seconds(row["startup"]) if row["startup"] > 0.05 else "",
        f"{row['memory_bytes'] / 2**20:.0f} MiB",
        f"wrong: shape {_by(row['shape'])}" if row["pixels_differing"] is None else pixels,
    ]


def _spread(value: dict[str, Any] | None, unit: str) -> str:
    return Spread(**value).text(unit) if value else ""


def _by(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


def scaling_tables(found: Results) -> dict[str, Table]:
    curves = {"strong": "workers", "weak": "workers", "block_sizes": "block side"}
    balance = [
        [b["name"], str(len(b["pieces"])), seconds(b["seconds"]), f"{b['evenness']:.0%}"] for b in found["balance"]
    ]
    each = [
        *(Table(["curve", x, "time", "speed-up", "efficiency"], _points(found[part])) for part, x in curves.items()),
        Table(["cut in", "blocks", "time", "mean busy time / busiest"], balance),
    ]
    return dict(zip(SCALING, each, strict=True))


def _points(curves: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [c["name"], str(p["x"]), _spread(p["seconds"], "s"), _spread(p["speedup"], "x"), f"{p['efficiency']:.0%}"]
        for c in curves
        for p in c["points"]
    ]


def faults(found: Results) -> list[str]:
    """What the lesson's multiprocessing version gets wrong, as sentences."""
    f = next((row["faults"] for row in found["strategies"] if row["faults"]), None)
    if not f:
        return []
    if f["shape"] == f["shape_wanted"] and not f["pixels_differing"]:
        return ["With one worker nothing is wrong yet; its faults come with the second."]
    return [
        f"Its result has the shape {_by(f['shape'])} where {_by(f['shape_wanted'])} was asked for: the shares are cut "
        "along y, the second axis, and stacked along the first.",
        f"Joined along y as they should be, {f['pixels_differing']} of {f['pixels']} pixels still differ from the "
        "serial function: each share has samples of its own, with both ends on its bounds, and so another spacing.",
        f"Of the {f['rows']} rows it computes {f['rows_twice']} are computed twice, where two shares meet, and "
        f"{f['rows_outside']} lie outside the view; a height below the number of workers is an error.",
    ]


def timelines(balance: dict[str, Any], width: int = 60) -> list[str]:
    """Who computed when, a line a worker: a # where it was busy, a dot where it waited, a bar where a block began."""
    lines = [["."] * width for _ in range(balance["workers"])]
    for p in balance["pieces"]:
        first, end = (min(int(p[key] / balance["seconds"] * width), width - 1) for key in ("start", "end"))
        lines[p["worker"]][first : end + 1] = ["|", *"#" * (end - first)]
    return [f"worker {i}  {''.join(line)}" for i, line in enumerate(lines)]
