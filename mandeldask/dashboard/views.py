"""Ways to look at a job: the field itself, or its tiles by something. Each gives palette indices over the preview."""

from __future__ import annotations

import html
import math
from functools import cache
from typing import Any

import numpy as np
from bokeh.palettes import Category20_20, Cividis256, Viridis256
from numpy.typing import NDArray

from mandeldask.dashboard.state import DONE, FAILED, RETRY, JobState
from mandeldask.image import palette
from mandeldask.text import duration, si

PICTURE, STATE, WORKER, SECONDS, MEAN = "picture", "state", "worker", "seconds", "mean escape time"
VIEWS = (PICTURE, STATE, WORKER, SECONDS, MEAN)
NOTHING = "#00000000"  # index 0: what lies below shows
STATE_COLOURS = {RETRY: "#e69f00", FAILED: "#c8322b", DONE: "#2f9e75"}
LEVELS = 254  # of a measure; 1 to 254
WORKER_COLOURS = tuple(Category20_20)


@cache
def colours(view: str) -> list[str]:
    """The 256 colours of a view."""
    if view == PICTURE:
        return [NOTHING, *(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette()[1:])]
    if view == STATE:
        return [STATE_COLOURS.get(i, NOTHING) for i in range(256)]
    if view == WORKER:
        return [NOTHING, *(WORKER_COLOURS[i % len(WORKER_COLOURS)] for i in range(254)), NOTHING]
    measure = {SECONDS: Viridis256, MEAN: Cividis256}[view]
    return [NOTHING, *measure[:LEVELS], measure[-1]]


def indices(job: JobState, view: str, rows: slice = slice(None), columns: slice = slice(None)) -> NDArray[np.uint8]:
    """The palette indices of a part of the preview."""
    if view == PICTURE:
        return job.picture(rows, columns)
    tile_rows, tile_columns = (
        np.arange(n)[part] * job.grid.stride // side
        for n, part, side in zip(job.grid.size, (rows, columns), job.grid.tile, strict=True)
    )
    return _by_tile(job, view)[np.ix_(tile_rows, tile_columns)]


def scale_of(job: JobState, view: str) -> object:
    """What the colours of all tiles depend on: when it changes, so do they."""
    if view == PICTURE:
        return job.scale_stamp
    return _bounds(job, view) if view in (SECONDS, MEAN) else None


def _by_tile(job: JobState, view: str) -> NDArray[np.uint8]:
    if view == STATE:
        return job.state
    if view == WORKER:
        return np.where(job.worker >= 0, 1 + job.worker % 254, 0).astype(np.uint8)
    low, high = _bounds(job, view)
    values = job.seconds if view == SECONDS else np.log(np.maximum(job.mean, 1e-9))
    low, high = (low, high) if view == SECONDS else (math.log(low), math.log(high))
    known = np.isfinite(values)
    share = np.clip((np.where(known, values, low) - low) / max(high - low, 1e-9), 0, 1)
    return np.where(known, 1 + np.rint(share * (LEVELS - 1)), 0).astype(np.uint8)


def _bounds(job: JobState, view: str) -> tuple[float, float]:
    """Round numbers that hold all values: so they seldom change while a job runs."""
    values = job.seconds if view == SECONDS else job.mean
    known = values[np.isfinite(values)]
    if not known.size:
        return (0.0, 1.0) if view == SECONDS else (1.0, 10.0)
    high = _round_up(float(known.max()))
    return (0.0, high) if view == SECONDS else (max(1.0, 10 ** math.floor(math.log10(max(1.0, known.min())))), high)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ..."""
    unit = 10.0 ** math.floor(math.log10(max(value, 1e-3)))
    return next(unit * step for step in (1, 2, 5, 10) if unit * step >= value * (1 - 1e-6))


def legend(job: JobState, view: str) -> str:
    """What the colours of a view mean, as HTML."""
    if view == STATE:
        return "each tile by its state: the signs at the side name them"
    if view == WORKER:
        return "each tile by the worker that computed it: its number is in the table of workers"
    shown = colours(view)
    stops = ", ".join(shown[1 + round(k * (LEVELS - 1) / 12)] for k in range(13))
    strip = f'<span class="strip" style="background:linear-gradient(90deg, {stops})"></span>'
    if view == PICTURE:
        known = job.preview[(job.preview > 0) & (job.preview < job.job.max_iter)]
        low, high = (int(known.min()), int(known.max())) if known.size else (1, job.job.max_iter)
        rest = f'<i class="swatch" style="background:{shown[255]}"></i> not escaped within {job.job.max_iter}'
        return f"escape time {low} {strip} {high} &nbsp; {rest}"
    low_high = _bounds(job, view)
    ends = [duration(v) if view == SECONDS else si(v) for v in low_high]
    what = "seconds of kernel a tile" if view == SECONDS else "mean escape time of a tile, logarithmic"
    return f"{html.escape(what)}: {ends[0]} {strip} {ends[1]}"


def labels(job: JobState, view: str) -> dict[str, Any] | None:
    """What is written on the tiles, where they are few enough to read it: columns row, column, text and colour."""
    if view == PICTURE or job.state.size > 400 or max(job.grid.tiles) > 24:
        return None
    done = job.state == DONE
    rows, columns = np.nonzero(done)
    at = (rows, columns)
    if view == STATE:
        texts = ["✓"] * len(rows)
    elif view == WORKER:
        texts = [str(k) if k >= 0 else "" for k in job.worker[at].tolist()]
    elif view == SECONDS:
        texts = [_brief(s) for s in job.seconds[at].tolist()]
    else:
        texts = [si(m) for m in job.mean[at].tolist()]
    shown = colours(view)
    ink = ["#ffffff" if _is_dark(shown[index]) else "#101010" for index in _by_tile(job, view)[at].tolist()]
    return {"row": rows, "column": columns, "text": texts, "colour": ink}


def _brief(seconds: float) -> str:
    if seconds >= 0.1:
        return f"{seconds:.2g}"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.001 else "<1 ms"


def _is_dark(colour: str) -> bool:
    """By its luma, Rec. 601."""
    red, green, blue = bytes.fromhex(colour[1:7])
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140
