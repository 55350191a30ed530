"""The side of the page: figures, workers and failures as HTML, in which all that comes from outside is text."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Sequence

import numpy as np
from distributed import Scheduler
from distributed.scheduler import WorkerState

from mandeldask.dashboard.flight import Flight
from mandeldask.dashboard.state import AGAIN, DONE, FAILED, MAX_FAILURES, WAITING, JobState
from mandeldask.words import count, duration, plural

MAX_ROWS = 40  # of workers
MAX_ERRORS = 20
SHORT_OF_MEMORY = 0.7  # of the limit: Dask spills from here on
FLYING = DONE + 1  # on a worker
NOT_KNOWN = "not known"  # where a driver was killed before it wrote them down
SIGNS = {WAITING: "╱", AGAIN: "↻", FAILED: "✕", DONE: "■", FLYING: "▭"}


def text(value: object) -> str:
    """Anything as text in HTML."""
    return html.escape(str(value))


def heading(job: JobState) -> str:
    """What is computed."""
    d = job.job
    rows, columns = d.shape
    return (
        f'<div class="name">{text(d.name)}</div>'
        f'<div class="quiet">{rows} × {columns} samples, max_iter {d.max_iter}, kernel {text(d.kernel)}<br>'
        f"x [{d.x[0]!r}, {d.x[1]!r}]<br>y [{d.y[0]!r}, {d.y[1]!r}]</div>"
    )


def figures(job: JobState, flights: Sequence[Flight]) -> str:
    """How far and how fast."""
    total, done = job.state.size, job.done
    share = done / total
    pace = job.pace
    cells = [
        ("tiles done", f"{done} <small>of {total}</small>"),
        ("time left", _left(job)),
        ("samples/s", count(pace.samples_per_second) if pace else "–"),
        ("iterations/s", count(pace.iterations_per_second) if pace else "–"),
    ]
    boxes = "".join(
        f'<div class="box"><div class="label">{label}</div><div class="value">{value}</div></div>'
        for label, value in cells
    )
    return (
        f'<div class="bar" role="progressbar" aria-valuenow="{100 * share:.0f}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-label="tiles done"><div class="fill" style="width:{100 * share:.2f}%"></div>'
        f"<span>{_percent(done, total)}</span></div>"
        f'<div class="status">{_status(job)}</div><div class="boxes">{boxes}</div>{_states(job, flights)}'
    )


def _percent(done: int, total: int) -> str:
    return "100 %" if done == total else f"{min(99.9, 100 * done / total):.1f} %"


def _left(job: JobState) -> str:
    if job.done == job.state.size:
        return "none"
    if job.ended or job.pace is None or job.pace.seconds_left is None:
        return "–"
    return duration(max(1.0, round(job.pace.seconds_left - (time.monotonic() - job.heard))))


def _status(job: JobState) -> str:
    failed = int(np.count_nonzero(job.state == FAILED))
    if job.ended == "done":
        return f"ended, {plural(failed, 'tile')} failed" if failed else "finished"
    if job.ended == "stopped":
        return "stopped; <code>mandeldask resume</code> goes on"
    if job.silent:
        return f"no word from its driver for {duration(round(job.silent))}: it may be gone"
    return "running"


def _states(job: JobState, flights: Sequence[Flight]) -> str:
    """The legend: each state with its sign and how many tiles are in it."""
    state = job.state.copy()
    for flight in flights:
        if state[flight.tile] != DONE:
            state[flight.tile] = FLYING
    counts = np.bincount(state.ravel(), minlength=FLYING + 1)
    kinds = [
        ("done", SIGNS[DONE], "done", counts[DONE]),
        ("flying", SIGNS[FLYING], "on a worker", counts[FLYING]),
        ("waiting", SIGNS[WAITING], "waiting", counts[WAITING]),
        ("again", SIGNS[AGAIN], "failed, to be tried again", counts[AGAIN]),
        ("failed", SIGNS[FAILED], "failed", counts[FAILED]),
    ]
    shown = [kind for kind in kinds if kind[3] or kind[0] in ("done", "flying", "waiting")]
    rows = "".join(
        f'<li><i class="{c}" aria-hidden="true">{sign}</i> {what} <b>{n}</b></li>' for c, sign, what, n in shown
    )
    return f'<ul class="states">{rows}</ul>'


def workers(scheduler: Scheduler, job: JobState, flights: Iterable[Flight], colours: Sequence[str]) -> str:
    """The load by worker: tiles done, the tile in work, CPU and memory."""
    done = np.bincount(job.worker[job.worker >= 0], minlength=len(job.workers))
    index = {name: k for k, name in enumerate(job.workers)}
    now: dict[str, Flight] = {}
    for flight in flights:
        if flight.worker not in now or (flight.seconds or 0) > (now[flight.worker].seconds or 0):
            now[flight.worker] = flight
    present = list(scheduler.workers.values())
    most = max(1, int(done.max(initial=0)))
    rows = []
    for worker in present[:MAX_ROWS]:
        k = index.get(worker.address)
        tiles = int(done[k]) if k is not None else 0
        colour = colours[k % len(colours)] if k is not None else "transparent"
        rows.append(
            f'<tr><td><i class="swatch" style="background:{colour}"></i>{"" if k is None else k}</td>'
            f"<td title='{text(worker.address)}'>{text(worker.name)}</td>"
            f"<td>{_meter(tiles / most, str(tiles))}</td><td>{_now(now.get(worker.address))}</td>"
            f"<td>{_meter(*_cpu(worker))}</td><td>{_meter(*_memory(worker))}</td></tr>"
        )
    more = len(present) - len(rows)
    gone = len(set(job.workers) - {w.address for w in present})
    notes = [f"{more} more" if more > 0 else "", f"{plural(gone, 'worker')} of this job gone since" if gone else ""]
    head = "<tr><th>no.</th><th>worker</th><th>tiles</th><th>at work on</th><th>CPU</th><th>memory</th></tr>"
    return (
        f'<h3>Workers</h3><table class="workers">{head}{"".join(rows)}</table>'
        f'<div class="quiet">{"; ".join(note for note in notes if note)}</div>'
        if rows
        else f'<h3>Workers</h3><div class="quiet">{"none there now" + ("; " + notes[1] if notes[1] else "")}</div>'
    )


def _now(flight: Flight | None) -> str:
    if flight is None:
        return "–"
    return f"{flight.tile[0]},{flight.tile[1]}" + (f" · {flight.seconds:.0f} s" if flight.seconds is not None else "")


def _cpu(worker: WorkerState) -> tuple[float, str]:
    share = float(worker.metrics.get("cpu", 0)) / 100 / worker.nthreads
    return share, f"{share:.0%}"


def _memory(worker: WorkerState) -> tuple[float, str, bool]:
    used = float(worker.metrics.get("memory", 0))
    share = used / worker.memory_limit if worker.memory_limit else 0.0
    return share, f"{used / 2**20:.0f} MiB", share >= SHORT_OF_MEMORY


def _meter(share: float, label: str, high: bool = False) -> str:
    """A number with a bar behind it as long as its share; striped where it is too high."""
    striped = " high" if high else ""
    return (
        f'<div class="meter{striped}"><div style="width:{100 * min(1.0, share):.0f}%"></div><span>{label}</span></div>'
    )


def failures(job: JobState) -> str:
    """The tiles that failed, with their errors."""
    failed = sorted(job.failures.values(), key=lambda f: (not f.final, f.tile))
    if not failed:
        return ""
    rows = "".join(
        f"<li><b>{SIGNS[FAILED if f.final else AGAIN]} {f.tile[0]},{f.tile[1]}</b> attempt {f.attempt}: "
        f"{text(f.error)}</li>"
        for f in failed[:MAX_ERRORS]
    )
    more = f'<div class="quiet">and {len(failed) - MAX_ERRORS} more</div>' if len(failed) > MAX_ERRORS else ""
    least = "at least " if len(failed) >= MAX_FAILURES else ""
    return f'<h3>Failed tiles, {least}{len(failed)}</h3><ul class="errors">{rows}</ul>{more}'


def tile_facts(job: JobState, tile: tuple[int, int], flights: Iterable[Flight]) -> str:
    """All that is known of one tile."""
    flight = next((f for f in flights if f.tile == tile), None)
    state = int(job.state[tile])
    facts = [("state", {WAITING: "waiting", AGAIN: "failed, to be tried again", FAILED: "failed", DONE: "done"}[state])]
    if flight and state != DONE:
        since = "" if flight.seconds is None else f" for {duration(flight.seconds)}"
        facts[0] = ("state", f"on worker {flight.worker}{since}")
    if state == DONE:
        k = int(job.worker[tile])
        facts += [
            ("worker", job.workers[k] if k >= 0 else "of an earlier run"),
            ("kernel", duration(float(job.seconds[tile])) if job.seconds[tile] else NOT_KNOWN),
            (
                "escape times",
                f"{job.minimum[tile]} to {job.maximum[tile]}, mean {job.mean[tile]:.6g}"
                if job.minimum[tile]
                else NOT_KNOWN,
            ),
        ]
    if tile in job.failures:
        facts.append(("error", job.failures[tile].error))
    first = [i * side for i, side in zip(tile, job.grid.tile, strict=True)]
    last = [min(f + side, n) - 1 for f, side, n in zip(first, job.grid.tile, job.grid.shape, strict=True)]
    facts.append(("samples", f"rows {first[0]} to {last[0]}, columns {first[1]} to {last[1]}"))
    rows = "".join(f"<tr><th>{label}</th><td>{text(value)}</td></tr>" for label, value in facts)
    return f'<table class="facts">{rows}</table>'
