"""Ways to look at a job: the field itself, or its tiles by something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from bokeh.palettes import Category20_20, Cividis256, Viridis256
from numpy.typing import NDArray

from mandeldask.dashboard.state import DONE, FAILED, RETRY, JobState
from mandeldask.image import palette, palette_index
from mandeldask.text import duration, si

NOTHING = "#00000000"  # index 0: what lies below shows
STATE_COLOURS = {RETRY: "#e69f00", FAILED: "#c8322b", DONE: "#2f9e75"}
WORKER_COLOURS = tuple(Category20_20)
SCALE_SAMPLES = 2**15  # that the colours are laid out for


@dataclass(frozen=True)
class Legend:
    """What the colours mean: words, and where they are a scale, its ends."""

    words: str
    ends: tuple[str, str] | None = None
    rest: str = ""  # what the last colour means


@dataclass(frozen=True)
class View:
    """One way to look at a job: an index into its palette for each tile, or for each sample of the preview."""

    palette: Sequence[str]  # 256
    index: Callable[[JobState], NDArray[np.uint8]]
    legend: Callable[[JobState], Legend]
    label: Callable[[np.void], str] | None = None  # what is written on a finished tile; None: nothing

    def image(self, job: JobState) -> NDArray[np.uint8]:
        """The palette indices over the preview."""
        index = self.index(job)
        if self.label is None:
            return index
        rows, columns = (
            np.arange(n) * job.grid.stride // side for n, side in zip(job.grid.size, job.grid.tile, strict=True)
        )
        return index[np.ix_(rows, columns)]


def _picture(job: JobState) -> NDArray[np.uint8]:
    known = job.preview[job.preview > 0]
    index: NDArray[np.uint8] = palette_index(known[:: 1 + known.size // SCALE_SAMPLES], job.job.max_iter)(job.preview)
    return index


def _picture_legend(job: JobState) -> Legend:
    known = job.preview[(job.preview > 0) & (job.preview < job.job.max_iter)]
    low, high = (known.min(), known.max()) if known.size else (1, job.job.max_iter)
    return Legend("escape time", (str(low), str(high)), f"not escaped within {job.job.max_iter}")


def _bounds(job: JobState, column: str) -> tuple[float, float]:
    known = job.tiles[column][np.isfinite(job.tiles[column])]
    low, high = (float(known.min()), float(known.max())) if known.size else (1.0, 1.0)
    return (0.0, high) if column == "seconds" else (low, high)


def _measure(column: str, colours: Sequence[str], words: str, text: Callable[[float], str]) -> View:
    """A view of tiles by a number: seconds from 0 up, mean escape times on a logarithmic scale."""

    def index(job: JobState) -> NDArray[np.uint8]:
        values, bounds = job.tiles[column], np.array(_bounds(job, column))
        if column == "mean":
            values, bounds = np.log(values), np.log(bounds)
        share = (values - bounds[0]) / max(bounds[1] - bounds[0], 1e-9)
        return np.where(np.isnan(share), 0, 1 + np.rint(np.nan_to_num(share) * 253)).astype(np.uint8)

    def legend(job: JobState) -> Legend:
        low, high = map(text, _bounds(job, column))
        return Legend(words, (low, high))

    return View([NOTHING, *colours[:255]], index, legend, lambda tile: text(float(tile[column])))


VIEWS = {
    "picture": View(
        [NOTHING, *(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in palette()[1:])],
        _picture,
        _picture_legend,
    ),
    "state": View(
        [STATE_COLOURS.get(state, NOTHING) for state in range(256)],
        lambda job: job.tiles["state"],
        lambda _: Legend("each tile by its state: the signs at the side name them"),
        lambda _: "✓",
    ),
    "worker": View(
        [NOTHING, *(WORKER_COLOURS[k % len(WORKER_COLOURS)] for k in range(255))],
        lambda job: np.where(job.tiles["worker"] >= 0, 1 + job.tiles["worker"] % 240, 0).astype(np.uint8),
        lambda _: Legend("each tile by the worker that computed it: its number is in the table of workers"),
        lambda tile: str(tile["worker"]) if tile["worker"] >= 0 else "",
    ),
    "seconds": _measure("seconds", Viridis256, "seconds of kernel a tile", duration),
    "mean escape time": _measure("mean", Cividis256, "mean escape time of a tile, logarithmic", si),
}
