"""The side of the page: figures, workers and failures as HTML, in which all that comes from outside is text."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Sequence

import numpy as np
from distributed import Scheduler

from mandeldask.dashboard.running_tiles import RunningTile
from mandeldask.dashboard.state import DONE, FAILED, MAX_FAILURES, RETRY, WAITING, JobState
from mandeldask.telemetry import Tile
from mandeldask.text import duration, plural, si

MAX_ROWS = 40  # of workers
MAX_ERRORS = 20
RUNNING = DONE + 1
NOT_KNOWN = "not known"  # a driver that was killed had not written it down
STATES = {  # what is said of it, and its sign
    DONE: ("done", "■"),
    RUNNING: ("on a worker", "▭"),
    WAITING: ("waiting", "╱"),
    RETRY: ("failed, to be tried again", "↻"),
    FAILED: ("failed", "✕"),
}
CLASSES = {DONE: "done", RUNNING: "running", WAITING: "waiting", RETRY: "retry", FAILED: "failed"}  # of the style


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


def figures(job: JobState, running: Sequence[RunningTile]) -> str:
    """How far and how fast."""
    total, done = job.state.size, job.done
    share = done / total
    progress = job.progress
    cells = [
        ("tiles done", f"{done} <small>of {total}</small>"),
        ("time left", _left(job)),
        ("samples/s", si(progress.samples_per_second) if progress else "–"),
        ("iterations/s", si(progress.iterations_per_second) if progress else "–"),
    ]
    boxes = "".join(
        f'<div class="box"><div class="label">{label}</div><div class="value">{value}</div></div>'
        for label, value in cells
    )
    return (
        f'<div class="bar" role="progressbar" aria-valuenow="{100 * share:.0f}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-label="tiles done"><div class="fill" style="width:{100 * share:.2f}%"></div>'
        f"<span>{_percent(done, total)}</span></div>"
        f'<div class="status">{_status(job)}</div><div class="boxes">{boxes}</div>{_states(job, running)}'
    )


def _percent(done: int, total: int) -> str:
    return "100 %" if done == total else f"{min(99.9, 100 * done / total):.1f} %"


def _left(job: JobState) -> str:
    if job.done == job.state.size:
        return "none"
    if job.ended or job.progress is None or job.progress.seconds_left is None:
        return "–"
    return duration(max(1.0, round(job.progress.seconds_left - (time.monotonic() - job.heard))))


def _status(job: JobState) -> str:
    failed = int(np.count_nonzero(job.state == FAILED))
    if job.ended == "done":
        return f"ended, {plural(failed, 'tile')} failed" if failed else "finished"
    if job.ended == "stopped":
        return "stopped; <code>mandeldask resume</code> goes on"
    if job.silent:
        return f"no update from its driver for {duration(round(job.silent))}: it may be gone"
    levels = job.progress.levels if job.progress else 0
    return f"running; {plural(levels, 'pyramid tile')} to build" if levels else "running"


def _states(job: JobState, running: Iterable[RunningTile]) -> str:
    """The legend: each state with its sign and how many tiles are in it."""
    state = job.state.copy()
    for on_worker in running:
        if state[on_worker.tile] != DONE:
            state[on_worker.tile] = RUNNING
    counts = np.bincount(state.ravel(), minlength=RUNNING + 1)
    rows = "".join(
        f'<li><i class="{CLASSES[kind]}" aria-hidden="true">{sign}</i> {what} <b>{counts[kind]}</b></li>'
        for kind, (what, sign) in STATES.items()
        if counts[kind] or kind in (DONE, RUNNING, WAITING)
    )
    return f'<ul class="states">{rows}</ul>'


def workers(scheduler: Scheduler, job: JobState, running: Iterable[RunningTile], colours: Sequence[str]) -> str:
    """The load by worker: tiles done, and the tile in work. CPU and memory are on Dask's page of workers."""
    done = np.bincount(job.worker[job.worker >= 0], minlength=len(job.workers))
    longest = sorted(running, key=lambda r: r.seconds or 0.0)  # the last of a worker stays
    now = {on_worker.worker: on_worker for on_worker in longest}
    present = list(scheduler.workers.values())
    most = max(1, int(done.max(initial=0)))
    rows = []
    for worker in present[:MAX_ROWS]:
        k = job.workers.get(worker.address)
        tiles = 0 if k is None else int(done[k])
        colour = "transparent" if k is None else colours[k % len(colours)]
        rows.append(
            f'<tr><td><i class="swatch" style="background:{colour}"></i>{"" if k is None else k}</td>'
            f"<td title='{text(worker.address)}'>{text(worker.name)}</td>"
            f"<td>{_meter(tiles / most, str(tiles))}</td><td>{_now(now.get(worker.address))}</td></tr>"
        )
    more = len(present) - len(rows)
    gone = len(job.workers.keys() - {w.address for w in present})
    notes = ["" if rows else "none there now", f"{more} more" if more else ""]
    notes.append(f"{plural(gone, 'worker')} of this job gone since" if gone else "")
    head = "<tr><th>no.</th><th>worker</th><th>tiles</th><th>at work on</th></tr>"
    table = f'<table class="workers">{head}{"".join(rows)}</table>' if rows else ""
    return f'<h3>Workers</h3>{table}<div class="quiet">{"; ".join(filter(None, notes))}</div>'


def _now(running: RunningTile | None) -> str:
    if running is None:
        return "–"
    since = "" if running.seconds is None else f" · {running.seconds:.0f} s"
    return f"{running.tile[0]},{running.tile[1]}{since}"


def _meter(share: float, label: str) -> str:
    """A number with a bar behind it as long as its share."""
    return f'<div class="meter"><div style="width:{100 * min(1.0, share):.0f}%"></div><span>{label}</span></div>'


def failures(job: JobState) -> str:
    """The tiles that failed, with their errors."""
    failed = sorted(job.failures.values(), key=lambda f: (not f.final, f.tile))
    if not failed:
        return ""
    rows = "".join(
        f"<li><b>{STATES[FAILED if f.final else RETRY][1]} {f.tile[0]},{f.tile[1]}</b> attempt {f.attempt}: "
        f"{text(f.error)}</li>"
        for f in failed[:MAX_ERRORS]
    )
    more = f'<div class="quiet">and {len(failed) - MAX_ERRORS} more</div>' if len(failed) > MAX_ERRORS else ""
    least = "at least " if len(failed) >= MAX_FAILURES else ""
    return f'<h3>Failed tiles, {least}{len(failed)}</h3><ul class="errors">{rows}</ul>{more}'


def tile_facts(job: JobState, tile: Tile, running: Iterable[RunningTile]) -> str:
    """All that is known of one tile."""
    facts = [("state", _state(job, tile, running))]
    if job.state[tile] == DONE:
        k = int(job.worker[tile])
        worker = next((name for name, index in job.workers.items() if index == k), "of an earlier run")
        known = bool(job.minimum[tile])
        values = f"{job.minimum[tile]} to {job.maximum[tile]}, mean {job.mean[tile]:.6g}"
        facts += [
            ("worker", worker),
            ("kernel", duration(float(job.seconds[tile])) if job.seconds[tile] > 0 else NOT_KNOWN),
            ("escape times", values if known else NOT_KNOWN),
        ]
    if tile in job.failures:
        facts.append(("error", job.failures[tile].error))
    first = [i * side for i, side in zip(tile, job.grid.tile, strict=True)]
    last = [min(f + side, n) - 1 for f, side, n in zip(first, job.grid.tile, job.grid.shape, strict=True)]
    facts.append(("samples", f"rows {first[0]} to {last[0]}, columns {first[1]} to {last[1]}"))
    rows = "".join(f"<tr><th>{label}</th><td>{text(value)}</td></tr>" for label, value in facts)
    return f'<table class="facts">{rows}</table>'


def _state(job: JobState, tile: Tile, running: Iterable[RunningTile]) -> str:
    on_worker = next((r for r in running if r.tile == tile), None)
    if on_worker is None or job.state[tile] == DONE:
        return STATES[int(job.state[tile])][0]
    since = "" if on_worker.seconds is None else f" for {duration(on_worker.seconds)}"
    return f"on worker {on_worker.worker}{since}"
