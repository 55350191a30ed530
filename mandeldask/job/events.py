"""What a run tells its observers: small frozen values, in the order in which things happen."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from mandeldask.cluster import Size
from mandeldask.field import dtype_of
from mandeldask.store import Store
from mandeldask.telemetry import Preview, Progress, TileFailed
from mandeldask.text import data_size, duration, plural, short_path, si
from mandeldask.tile import Record
from mandeldask.view import View

ORBIT_BYTES = 108  # a step of the reference orbit, with its table of jumps, in each worker process
PROOF_WORDS = {
    "none": "none: this is a preview, in which some counts are wrong",
    "double-double": "double-double: the hardest samples stay unproven",
}


@dataclass(frozen=True)
class Preparing:
    """The kernel was chosen."""

    kernel: str
    reason: str


@dataclass(frozen=True)
class Notice:
    """A line for a person, about the cluster or the store: that its jobs are queued, which packages differ."""

    text: str
    about: str = "cluster"


@dataclass(frozen=True)
class Plan:
    """What a run is going to do; known before anything is computed."""

    store: Store
    kernel: str
    cluster: Size
    done: int  # tiles
    pending: int
    tile_memory: int  # bytes a worker thread needs for one tile
    resumed: bool
    levels: int = 0  # tiles of the pyramid that are to be built from their shards below
    source: Store | None = None  # a store of fewer iterations that the field is deepened from
    view: View | None = None  # with the digits that it was given in, which the store's has no more
    again: int = 0  # of the pending tiles, those that are done, and whose record was lost
    picture: Mapping[str, Any] | None = None  # how the field is to be drawn, where the run description says so

    @property
    def tiles(self) -> int:
        return self.done + self.pending

    @property
    def samples(self) -> int:
        return self.store.description.shape[0] * self.store.description.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes of the whole field before compression."""
        d = self.store.description
        return self.samples * dtype_of(d.fields, d.exact).itemsize

    @property
    def grid(self) -> Preview:
        """The small picture of the field, which each finished tile's record has a part of."""
        d = self.store.description
        return Preview(d.shape, d.tile, d.max_iter)

    def preview(self) -> NDArray[np.int32]:
        """The samples of that picture before the run: a tile that was done earlier in its mean, 0 elsewhere."""
        d, samples = self.store.description, np.zeros(self.grid.size, np.int32)
        if self.resumed:
            iterations = self.store.read_tiles()["iterations"]
            for row, column in np.argwhere(self.store.done()).tolist():
                mean = iterations[row, column] / math.prod(d.levels[0].tile_shape((row, column)))
                samples[self.grid.cells((row, column))] = np.clip(round(mean), 1, d.max_iter)
        return samples

    @property
    def facts(self) -> dict[str, str]:
        """The plan in words, for a terminal or a notebook."""
        d = self.store.description
        done = f", {self.done} done already: resuming" if self.resumed else ""
        again = f", {self.again} of them done already, but how they were proven was not noted" if self.again else ""
        levels = f", {plural(self.levels, 'pyramid tile')} to build" if self.levels else ""
        orbit = {}
        if d.exact:
            size = data_size(ORBIT_BYTES * d.max_iter)
            orbit["reference"] = f"an orbit of at most {si(d.max_iter)} steps, {size} in each worker process"
        if d.proof != "full":
            orbit["proof"] = PROOF_WORDS[d.proof]
        return {
            "view": str(self.view or d.view),
            "field": f"{d.shape[0]} x {d.shape[1]} = {si(self.samples)} samples, max_iter {d.max_iter}",
            "kernel": self.kernel,
            "tiles": f"{self.tiles} of {d.tile[0]} x {d.tile[1]}{done}; {self.pending} to compute{again}{levels}",
            **orbit,
            "store": short_path(self.store.path),
        }

    def _repr_html_(self) -> str:
        from mandeldask.job.notebook import block  # imports what draws pictures, which no worker needs

        return block(self.store.path if self.done else None, self.facts, self.done, self.tiles)


@dataclass(frozen=True)
class Started:
    """The scheduler is up; its workers may still be coming. `client` is for observers that live on the scheduler.

    `dashboard` is the link of our page; Dask's own where that cannot be, as a Notice says; "" where it is switched off.
    """

    dashboard: str
    client: Client


@dataclass(frozen=True)
class Orbit:
    """How far the reference orbit of a deep field is: steps that are done, and the most that there can be."""

    done: int
    of: int

    @property
    def words(self) -> str:
        return f"reference orbit, {si(self.done)} of at most {si(self.of)} steps"


@dataclass(frozen=True)
class Expected:
    """What the tiles are expected to cost, from a coarse look at the view. Small jobs have no such event."""

    seconds: float  # until the last tile is done, costly tiles first
    seconds_by_row: float  # the same, row by row

    @property
    def words(self) -> str:
        return f"{duration(self.seconds)} of computing, costly tiles first; {duration(self.seconds_by_row)} row by row"


@dataclass(frozen=True)
class TileDone:
    record: Record


@dataclass(frozen=True)
class Proofs:
    """How the counts of a deep field were proven, in samples of the whole field."""

    second: int  # that the first pass could not decide
    third: int  # nor the second
    unproven: int
    unknown: int  # tiles whose record was lost
    preview: bool  # proof: none

    def __str__(self) -> str:
        if self.preview:
            return PROOF_WORDS["none"]
        lost = f"; not known of {plural(self.unknown, 'tile')}: `resume` computes them again" if self.unknown else ""
        own = "an orbit of its own" if self.third == 1 else "orbits of their own"
        passes = f"{plural(self.second, 'sample')} took a second pass" + f", {self.third} {own}" * (self.third > 0)
        return f"{plural(self.unproven, 'count') if self.unproven else 'no counts'} unproven{lost}; {passes}"


@dataclass(frozen=True)
class Summary:
    """How a run ended.

    Samples, those that did not escape, their area and `total_iterations` are of the whole field; seconds, iterations
    and their rate are of this run. Iterations are the sum of the escape times that were computed.
    """

    store: str
    tiles: int
    done: int  # tiles in the store
    computed: int  # tiles, in this run
    levels: int  # tiles of the pyramid that were built in this run
    failed: int  # tiles of the field and of the pyramid
    seconds: float  # wall time from the first task to the last shard
    kernel_seconds: float
    threads: int  # of the workers that were there at the end
    thread_seconds: float  # that the workers' threads were there for, from the first task to the last shard
    iterations: int  # in this run
    iterations_per_second: float
    total_iterations: int
    not_escaped: int  # samples
    samples: int
    area: float | None  # of the samples that did not escape, in the units of c; None for a line or a strip
    unit: int | None  # of a deep field: the area is in units of 4^unit
    proofs: Proofs | None  # of a deep field
    errors: dict[str, str]  # "row,column" of a failed tile -> what happened
    kernels: dict[str, int]  # that computed tiles in this run -> how many
    drawn: ClassVar[bool] = False  # whether the cell of the run shows the picture already

    @property
    def efficiency(self) -> float:
        """Kernel seconds over the worker threads' seconds."""
        return self.kernel_seconds / self.thread_seconds if self.thread_seconds else 0.0

    def set_in_words(self, within: str = "") -> str:
        """Which share of the samples did not escape, and its area; `within` so many iterations."""
        if not self.not_escaped:
            return f"every sample escaped{within}"
        share = f"{100 * self.not_escaped / self.samples:.4g}%"
        size = None if self.area is None else Decimal(self.area) * Decimal(4) ** self.unit if self.unit else self.area
        return f"{share} of the samples did not escape{within}" + (f": area {size:.6g}" if size is not None else "")

    @property
    def exit_code(self) -> int:
        """0: all tiles are in the store. 4: some failed, or were removed from the store meanwhile."""
        return 4 if self.failed or self.done < self.tiles else 0

    def _repr_html_(self) -> str:
        from mandeldask.job.notebook import block  # imports what draws pictures, which no worker needs

        facts = {
            "done": f"{plural(self.computed, 'tile')} in {duration(self.seconds)}: "
            f"{si(self.iterations)} iterations, {si(self.iterations_per_second)} iterations/s",
            "field": f"{si(self.samples)} samples; {self.set_in_words()}",
            "proof": str(self.proofs or ""),
            "failed": plural(self.failed, "tile") if self.failed else "",
            "store": short_path(self.store),
        }
        return block(None if self.drawn else self.store, facts, self.tiles - self.failed, self.tiles)


Event = Preparing | Notice | Plan | Started | Orbit | Expected | TileDone | TileFailed | Progress | Summary
Observer = Callable[[Event], None]


def ignore(event: Event, /) -> None:
    """An observer that does nothing."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose cells can show HTML."""
    ipython = sys.modules.get("IPython")
    return bool(ipython and getattr(ipython.get_ipython(), "kernel", None))
