"""The lab's results as tables, which a terminal, Markdown and the page show: the first line of each is its heading."""

from __future__ import annotations

from typing import Any

from mandeldask.lab import Row, Spread, machine
from mandeldask.text import Table, short_time

SCALING = ("Strong scaling", "Weak scaling", "Block sizes", "Load balance")


def tables(found: Row) -> dict[str, Table]:
    """By their titles; that of a part which was not measured is a heading alone."""
    facts = machine.side_by_side([found["machine"]]) if "machine" in found else []
    claims = ([verdict(c), c["says"], c["figure"], c["why"]] for c in found.get("claims", []))
    figures = ["time", "speed-up", "efficiency"]
    return {
        "The machine": [["", "this machine"], *([label, *texts] for label, texts in facts)],
        "The lesson's claims": [["verdict", "the lesson says", "measured", "why"], *claims],
        "Strategies": [
            ["strategy", "workers", *figures, "overhead", "start-up", "memory", "pixels"],
            *map(_strategy, found.get("strategies", [])),
        ],
        "Strong scaling": [["curve", "workers", *figures], *_points(found.get("strong", []))],
        "Weak scaling": [["curve", "workers", *figures], *_points(found.get("weak", []))],
        "Block sizes": [["curve", "block side", *figures], *_points(found.get("block_sizes", []))],
        "Load balance": [
            ["cut in", "blocks", "time", "mean busy time / busiest"],
            *(
                [b["name"], str(len(b["pieces"])), short_time(b["seconds"]), f"{b['evenness']:.0%}"]
                for b in found.get("balance", [])
            ),
        ],
    }


def verdict(claim: Row) -> str:
    """A claim's verdict, and whether it lies within the noise."""
    return f"{claim['verdict']}{', within the noise' if claim['noise'] else ''}"


def _strategy(row: Row) -> list[str]:
    name = [row["name"], str(row["workers"])]
    if row["problem"]:
        return [*name, *[""] * 6, row["problem"]]
    pixels = f"{row['pixels_differing']} differ" if row["pixels_differing"] else "all right"
    return [
        *name,
        _spread(row["seconds"], "s"),
        _spread(row["speedup"], "x"),
        "" if row["efficiency"] is None else f"{row['efficiency']:.0%}",
        "" if row["overhead"] is None else short_time(row["overhead"]),
        short_time(row["startup"]) if row["startup"] > 0.05 else "",
        f"{row['memory_bytes'] / 2**20:.0f} MiB",
        f"wrong: shape {_by(row['shape'])}" if row["pixels_differing"] is None else pixels,
    ]


def _points(curves: list[Row]) -> Table:
    return [
        [c["name"], str(p["x"]), _spread(p["seconds"], "s"), _spread(p["speedup"], "x"), f"{p['efficiency']:.0%}"]
        for c in curves
        for p in c["points"]
    ]


def _spread(value: dict[str, Any] | None, unit: str) -> str:
    return Spread(**value).text(unit) if value else ""


def _by(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


def faults(found: Row) -> list[str]:
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


def timelines(balance: Row, width: int = 60) -> list[str]:
    """Who computed when, a line a worker: a # where it was busy, a dot where it waited, a bar where a block began."""
    lines = [["."] * width for _ in range(balance["workers"])]
    for p in balance["pieces"]:
        first, end = (min(int(p[key] / balance["seconds"] * width), width - 1) for key in ("start", "end"))
        lines[p["worker"]][first : end + 1] = ["|", *"#" * (end - first)]
    return [f"worker {i}  {''.join(line)}" for i, line in enumerate(lines)]
