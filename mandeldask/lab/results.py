"""All that the lab measures as one value that JSON takes, and as tables of text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any

from mandeldask import __version__
from mandeldask.errors import ConfigError
from mandeldask.kernels import choose
from mandeldask.lab import claims, experiments, machine, scaling, strategies
from mandeldask.lab.timing import OtherPrograms, Spread, Tell, seconds
from mandeldask.lab.workload import local_workers

Results = dict[str, Any]
Table = tuple[list[str], list[list[str]]]  # a heading, and rows of text
FORMAT = "mandeldask lab 1"
HEADING = "# Parallel NumPy, measured"
KERNELS_SCALED = ("numpy", "numba")


@dataclass(frozen=True)
class Depth:
    """How much the lab measures."""

    claims: claims.Setting
    problem: strategies.Problem
    turns: int  # of the strategies
    sizes: scaling.Sizes


FULL = Depth(claims.Setting(), strategies.Problem(), 5, scaling.Sizes())
QUICK = Depth(
    claims.QUICK,
    strategies.Problem(side=120, max_iter=50),
    1,
    scaling.Sizes(numpy=(120, 50), numba=(128, 500), turns=1, parts=(8, 4, 2, 1)),
)


def with_workers(depth: Depth, workers: int | None, side: int | None = None, max_iter: int | None = None) -> Depth:
    """The depth for this many workers, by default one a usable core, and another field for the strategies."""
    given = {"side": side, "max_iter": max_iter, "workers": workers or machine.usable_cores()}
    return replace(depth, problem=replace(depth.problem, **{k: v for k, v in given.items() if v is not None}))


def measure_all(depth: Depth, tell: Tell) -> Results:
    begun = perf_counter()
    described = machine.describe()
    found: Results = {
        "format": FORMAT,
        "mandeldask": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": described,
        "warnings": machine.process_warnings(described),
        "claims": [asdict(c) for c in experiments.measure(depth.claims, lambda text: tell(f"claims: {text}"))],
    }
    found |= measure_strategies(depth, tell) | measure_scaling(depth, tell)
    return found | {"seconds": perf_counter() - begun}


def measure_strategies(depth: Depth, tell: Tell) -> Results:
    """The strategies and their problem; `crowd` says so where other programs took the cores."""
    with OtherPrograms() as others:
        rows = strategies.measure(depth.problem, depth.turns, lambda text: tell(f"strategies: {text}"))
    crowd = ""
    if others.crowd(min(depth.problem.workers, machine.usable_cores())):
        crowd = f"other programs took {others.taken:.1f} cores meanwhile: run it again on a quieter machine"
    return {"problem": asdict(depth.problem), "strategies": [asdict(row) for row in rows], "crowd": crowd}


def measure_scaling(depth: Depth, tell: Tell) -> Results:
    """The curves over workers and block sizes, and the balance. A part that fails is empty; `problems` says why."""
    problems = {f"kernel {kernel}": why for kernel in KERNELS_SCALED if (why := _unavailable(kernel))}
    found: Results = {"problems": problems, "strong": [], "weak": [], "block_sizes": [], "balance": []}
    kernels = [kernel for kernel in KERNELS_SCALED if f"kernel {kernel}" not in problems]
    counts, workers = scaling.worker_counts(machine.usable_cores()), depth.problem.workers
    tell(f"starting {max(*counts, workers)} workers")
    try:
        with local_workers(max(*counts, workers)) as client:
            bench = scaling.Scaling(client, kernels, depth.sizes, tell)
            parts: dict[str, Callable[[], Iterable[Any]]] = {
                "strong": partial(bench.strong, counts),
                "weak": partial(bench.weak, counts),
                "block_sizes": partial(bench.block_sizes, workers),
                "balance": partial(bench.balance, workers),
            }
            for name, part in parts.items():
                try:
                    found[name] = [asdict(value) for value in part()]
                except Exception as error:
                    problems[name] = f"{type(error).__name__}: {error}"
    except Exception as error:
        problems["workers"] = f"{type(error).__name__}: {error}"
    return found


def _unavailable(kernel: str) -> str:
    """Why a kernel cannot be used here; empty if it can."""
    try:
        choose(kernel)
    except ConfigError as error:
        return str(error)
    return ""


def read(path: str | os.PathLike[str]) -> Results:
    """Results that `mandeldask lab report` wrote as JSON.

    Raises
    ------
    ConfigError
        A file that cannot be read, or is something else.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{os.fspath(path)}: cannot read the lab's results: {reason}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise not_results(path, f'it has no "format": "{FORMAT}"')
    return found


def not_results(path: str | os.PathLike[str], why: str) -> ConfigError:
    """The error for a file that holds no results of the lab."""
    return ConfigError(
        f"{os.fspath(path)}: must be what `mandeldask lab report` wrote, and {why}; "
        "measure again with `mandeldask lab report OUT.html`"
    )


def machine_table(found: Results) -> Table:
    return ["", "this machine"], [[label, texts[0]] for label, texts in machine.side_by_side([found["machine"]])]


def claims_table(found: Results) -> Table:
    noise = {True: ", within the noise", False: ""}
    rows = [[c["verdict"] + noise[c["noise"]], c["says"], c["figure"], c["why"]] for c in found["claims"]]
    return ["verdict", "the lesson says", "measured", "why"], rows


def strategies_table(found: Results) -> Table:
    heading = ["strategy", "workers", "time", "speed-up", "efficiency", "overhead", "start-up", "memory", "pixels"]
    return heading, [_strategy_row(row) for row in found["strategies"]]


def _strategy_row(row: dict[str, Any]) -> list[str]:
    if row["problem"]:
        return [row["name"], str(row["workers"]), "", "", "", "", "", "", row["problem"]]
    return [
        row["name"],
        str(row["workers"]),
        _spread(row["seconds"], "s"),
        _spread(row["speedup"], "x"),
        "" if row["efficiency"] is None else f"{row['efficiency']:.0%}",
        "" if row["overhead"] is None else seconds(row["overhead"]),
        f"{row['startup']:.2g} s" if row["startup"] > 0.05 else "",
        f"{row['memory_bytes'] / 2**20:.0f} MiB",
        _pixels(row),
    ]


def _pixels(row: dict[str, Any]) -> str:
    if row["pixels_differing"] is None:
        return f"wrong: shape {' x '.join(map(str, row['shape']))}"
    return "all right" if not row["pixels_differing"] else f"{row['pixels_differing']} differ"


def faults(found: Results) -> list[str]:
    """What the lesson's multiprocessing version gets wrong, as sentences."""
    f = next((row["faults"] for row in found["strategies"] if row["faults"]), None)
    if not f:
        return []
    if f["shape"] == f["shape_wanted"] and not f["pixels_differing"]:
        return ["With one worker nothing is wrong yet; its faults come with the second."]
    return [
        f"Its result has the shape {' x '.join(map(str, f['shape']))} where {' x '.join(map(str, f['shape_wanted']))} "
        "was asked for: the shares are cut along y, the second axis, and stacked along the first.",
        f"Joined along y as they should be, {f['pixels_differing']} of {f['pixels']} pixels still differ from the "
        "serial function: each share has samples of its own, with both ends on its bounds, and so another spacing.",
        f"Of the {f['rows']} rows it computes {f['rows_twice']} are computed twice, where two shares meet, and "
        f"{f['rows_outside']} lie outside the view; a height below the number of workers is an error.",
    ]


def _curves_table(part: str, x: str) -> Callable[[Results], Table]:
    def table(found: Results) -> Table:
        rows = [
            [c["name"], str(p["x"]), _spread(p["seconds"], "s"), _spread(p["speedup"], "x"), f"{p['efficiency']:.0%}"]
            for c in found[part]
            for p in c["points"]
        ]
        return ["curve", x, "time", "speed-up", "efficiency"], rows

    return table


def balance_table(found: Results) -> Table:
    rows = [[b["name"], str(len(b["pieces"])), seconds(b["seconds"]), f"{b['evenness']:.0%}"] for b in found["balance"]]
    return ["cut in", "blocks", "time", "mean busy time / busiest"], rows


TABLES: dict[str, Callable[[Results], Table]] = {
    "The machine": machine_table,
    "The lesson's claims": claims_table,
    "Strategies": strategies_table,
    "Strong scaling": _curves_table("strong", "workers"),
    "Weak scaling": _curves_table("weak", "workers"),
    "Block sizes": _curves_table("block_sizes", "block side"),
    "Load balance": balance_table,
}


def workers_in(balance: dict[str, Any]) -> int:
    return int(max(balance["workers"], *(p["worker"] + 1 for p in balance["pieces"])))


def timelines(balance: dict[str, Any], width: int = 60) -> list[str]:
    """Who computed when, a line a worker: a # where it was busy, a dot where it waited, a bar where a block began."""
    lines = [["."] * width for _ in range(workers_in(balance))]
    for p in balance["pieces"]:
        first, end = (min(int(p[key] / balance["seconds"] * width), width - 1) for key in ("start", "end"))
        lines[p["worker"]][first : end + 1] = ["|", *"#" * (end - first)]
    return [f"worker {i}  {''.join(line)}" for i, line in enumerate(lines)]


def _spread(value: dict[str, Any] | None, unit: str) -> str:
    return Spread(**value).text(unit) if value else ""


def markdown(found: Results) -> str:
    """All tables, under a heading each."""
    parts = [HEADING, f"{found['made']}, mandeldask {found['mandeldask']}."]
    for title, table in TABLES.items():
        parts += [f"## {title}", _markdown_table(*table(found))]
        if title == "Strategies":
            parts += [f"- {fault}" for fault in faults(found)]
    parts += [f"- {found['crowd']}"] if found["crowd"] else []
    parts += [f"- {name}: {why}" for name, why in found["problems"].items()]
    return "\n\n".join(parts) + "\n"


def _markdown_table(heading: list[str], rows: list[list[str]]) -> str:
    """A bar or a line break in a cell cannot end it."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (heading, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(heading), *lines[1:]])
