"""All that the lab measures as one value that JSON takes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any

from mandeldask import __version__
from mandeldask.errors import ConfigError
from mandeldask.kernels import choose
from mandeldask.lab import experiments, machine, scaling, strategies
from mandeldask.lab.timing import Tell
from mandeldask.lab.workload import Depth, local_workers

Results = dict[str, Any]
FORMAT = "mandeldask lab 1"


def measure_all(depth: Depth, tell: Tell) -> Results:
    begun = perf_counter()
    described = machine.describe()
    name, threads = "this process", described["dask"]["threads"]
    found: Results = {
        "format": FORMAT,
        "mandeldask": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": described,
        "warnings": machine.thread_warnings({name: described}, {name: threads}) + machine.busy_warnings(),
    }
    found |= measure_claims(depth, tell) | measure_strategies(depth, tell) | measure_scaling(depth, tell)
    return found | {"seconds": perf_counter() - begun}


def measure_claims(depth: Depth, tell: Tell) -> Results:
    found = experiments.measure(depth, lambda text: tell(f"claims: {text}"))
    return {"claims": [asdict(claim) for claim in found]}


def measure_strategies(depth: Depth, tell: Tell) -> Results:
    """The strategies and their problem."""
    rows = strategies.measure(depth, lambda text: tell(f"strategies: {text}"))
    problem = {"side": depth.side, "max_iter": depth.max_iter, "workers": depth.workers}
    return {"problem": problem, "strategies": [asdict(row) for row in rows]}


def measure_scaling(depth: Depth, tell: Tell) -> Results:
    """The curves over workers and block sizes, and the balance. What fails is empty; `problems` says why."""
    kernels, problems = [], {}
    for kernel in ("numpy", "numba"):
        try:
            choose(kernel)
            kernels.append(kernel)
        except ConfigError as error:
            problems[f"kernel {kernel}"] = str(error)
    found: Results = {"problems": problems, "strong": [], "weak": [], "block_sizes": [], "balance": []}
    counts, workers = scaling.worker_counts(machine.usable_cores()), depth.workers
    tell(f"starting {max(*counts, workers)} workers")
    try:
        with local_workers(max(*counts, workers)) as client:
            bench = scaling.Scaling(client, kernels, depth, tell)
            parts: dict[str, Callable[[], Iterable[Any]]] = {
                "strong": partial(bench.strong, counts),
                "weak": partial(bench.weak, counts),
                "block_sizes": partial(bench.block_sizes, workers),
                "balance": partial(bench.balance, workers),
            }
            for name, part in parts.items():
                found[name] = [asdict(value) for value in part()]
    except Exception as error:
        problems["workers"] = f"{type(error).__name__}: {error}"
    return found


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
        raise ConfigError(
            f'{os.fspath(path)}: must be what `mandeldask lab report` wrote, and it has no "format": "{FORMAT}"; '
            "measure again with `mandeldask lab report OUT.html`"
        )
    return found
