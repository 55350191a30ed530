"""What stands beside the plots: figures, workers and failures, as HTML of panel.html."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from distributed import Scheduler
from jinja2 import Environment

from mandeldask.dashboard import hooks
from mandeldask.dashboard.state import DONE, FAILED, RETRY, WAITING, JobState, RunningTile
from mandeldask.dashboard.views import VIEWS, WORKER_COLOURS
from mandeldask.telemetry import Tile
from mandeldask.text import duration, plural, si

MAX_ROWS = 40  # of workers
MAX_ERRORS = 20
NOT_KNOWN = "not known"  # a driver that was killed had not written it down
RUNNING = DONE + 1


class Sign(NamedTuple):
    """How a state is written."""

    words: str
    sign: str
    style: str  # class of panel.css


SIGNS = {
    DONE: Sign("done", "■", "done"),
    RUNNING: Sign("on a worker", "▭", "running"),
    WAITING: Sign("waiting", "╱", "waiting"),
    RETRY: Sign("failed, to be tried again", "↻", "retry"),
    FAILED: Sign("failed", "✕", "failed"),
}
ENVIRONMENT = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.filters["si"] = si
ENVIRONMENT.globals["plural"] = plural
HTML: Any = ENVIRONMENT.from_string(hooks.asset("panel.html")).module  # its macros; what they give is marked as HTML


def parts(
    scheduler: Scheduler, job: JobState, view: str, running: Sequence[RunningTile], tile: Tile | None
) -> dict[str, str]:
    """The HTML of each part of the page."""
    failed = sorted(job.failures.values(), key=lambda f: (not f.final, f.tile))
    return {
        "heading": str(HTML.heading(job.job)),
        "figures": _figures(job, running),
        "facts": str(HTML.facts(f"Tile {tile[0]},{tile[1]}", tile_facts(job, tile, running))) if tile else "",
        "workers": _workers(scheduler, job, running),
        "failures": str(HTML.failures(failed, {True: SIGNS[FAILED], False: SIGNS[RETRY]}, MAX_ERRORS)).strip(),
        "legend": str(HTML.legend(VIEWS[view].legend(job), VIEWS[view].palette)),
    }


def _figures(job: JobState, running: Sequence[RunningTile]) -> str:
    """How far and how fast, and how many tiles are in each state."""
    state = job.tiles["state"].copy()
    for on_worker in running:
        state[on_worker.tile] = RUNNING
    counts = np.bincount(state.ravel(), minlength=RUNNING + 1)
    states = [(sign, counts[s]) for s, sign in SIGNS.items() if counts[s] or s not in (RETRY, FAILED)]
    return str(HTML.figures(job.done, state.size, _status(job), _left(job), job.progress, states))


def _left(job: JobState) -> str:
    if job.done == job.tiles.size:
        return "none"
    if job.ended or job.progress is None or job.progress.seconds_left is None:
        return "–"
    return duration(max(1.0, round(job.progress.seconds_left - (time.monotonic() - job.heard))))


def _status(job: JobState) -> str:
    failed = int(np.count_nonzero(job.tiles["state"] == FAILED))
    if job.ended == "done":
        return f"ended, {plural(failed, 'tile')} failed" if failed else "finished"
    if job.ended == "stopped":
        return "stopped; mandeldask resume goes on"
    if job.silent:
        return f"no update from its driver for {duration(round(job.silent))}: it may be gone"
    levels = job.progress.levels if job.progress else 0
    return f"running; {plural(levels, 'pyramid tile')} to build" if levels else "running"


def _workers(scheduler: Scheduler, job: JobState, running: Sequence[RunningTile]) -> str:
    """The load by worker: tiles done, and the tile in work. CPU and memory are on Dask's page of workers."""
    numbers = job.tiles["worker"]
    done = np.bincount(numbers[numbers >= 0], minlength=len(job.workers))
    now = {r.worker: r for r in sorted(running, key=lambda r: r.seconds or 0.0)}  # the longest of a worker stays
    present = list(scheduler.workers.values())
    rows = [_row(worker, job, done, now) for worker in present[:MAX_ROWS]]
    gone = job.workers.keys() - {worker.address for worker in present}
    return str(HTML.workers(rows, len(present) - len(rows), len(gone)))


def _row(worker: Any, job: JobState, done: np.ndarray[Any, Any], now: Mapping[str, RunningTile]) -> dict[str, Any]:
    number, running = job.workers.get(worker.address), now.get(worker.address)
    tiles = 0 if number is None else int(done[number])
    since = "" if running is None or running.seconds is None else f" · {running.seconds:.0f} s"
    return {
        "number": "" if number is None else number,
        "colour": "transparent" if number is None else WORKER_COLOURS[number % len(WORKER_COLOURS)],
        "address": worker.address,
        "name": worker.name,
        "tiles": tiles,
        "share": 100 * tiles // max(1, int(done.max(initial=0))),
        "now": f"{running.tile[0]},{running.tile[1]}{since}" if running else "–",
    }


def tile_facts(job: JobState, tile: Tile, running: Sequence[RunningTile]) -> list[tuple[str, str]]:
    """All that is known of one tile, with labels."""
    known = job.tiles[tile]
    facts = [("state", SIGNS[int(known["state"])].words)]
    if on_worker := next((r for r in running if r.tile == tile), None):
        since = "" if on_worker.seconds is None else f" for {duration(on_worker.seconds)}"
        facts = [("state", f"on worker {on_worker.worker}{since}")]
    if known["state"] == DONE:
        worker = next((name for name, number in job.workers.items() if number == known["worker"]), "of an earlier run")
        times = f"{known['minimum']} to {known['maximum']}, mean {known['mean']:.6g}"
        facts += [
            ("worker", worker),
            ("kernel", duration(float(known["seconds"])) if known["seconds"] > 0 else NOT_KNOWN),
            ("escape times", times if known["minimum"] else NOT_KNOWN),
        ]
    if tile in job.failures:
        facts.append(("error", job.failures[tile].error))
    first = [i * side for i, side in zip(tile, job.grid.tile, strict=True)]
    last = [min(f + side, n) - 1 for f, side, n in zip(first, job.grid.tile, job.grid.shape, strict=True)]
    return [*facts, ("samples", f"rows {first[0]} to {last[0]}, columns {first[1]} to {last[1]}")]
