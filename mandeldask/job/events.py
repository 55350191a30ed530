"""What a run tells those who watch it: small values, in the order in which things happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from distributed import Client

from mandeldask.cluster import Size
from mandeldask.store import Store, Tile
from mandeldask.tile import Record


@dataclass(frozen=True)
class Preparing:
    """The kernel was chosen and is made ready; on a new machine that takes seconds, while it is compiled."""

    kernel: str
    reason: str
    here: bool = True  # in this process; a submitted job's kernel is made ready by its driver


@dataclass(frozen=True)
class Notice:
    """A line for a person: of the cluster which it is, that its jobs are queued, what differs there; of the store."""

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
    levels: int = 0  # tiles of the levels above the field's own that are to be made by themselves
    source: Store | None = None  # a store of fewer iterations that the field is deepened from

    @property
    def tiles(self) -> int:
        return self.done + self.pending

    @property
    def samples(self) -> int:
        return self.store.description.shape[0] * self.store.description.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes of the whole field before compression: int32 and float32 take four each."""
        return 4 * self.samples * len(self.store.description.fields)

    def _repr_html_(self) -> str:
        from mandeldask.job.shown import plan_html

        return plan_html(self)


@dataclass(frozen=True)
class Started:
    """The scheduler is up; its workers may still be coming. `client` is for observers that live on the scheduler."""

    dashboard: str
    client: Client


@dataclass(frozen=True)
class Expected:
    """What the tiles are expected to cost, from a coarse look at the view; of small jobs nothing is known before."""

    seconds: float  # until the last tile is done, dear ones first
    seconds_by_row: float  # the same, row by row
    spread: float  # the dearest tile over the median one


@dataclass(frozen=True)
class TileDone:
    record: Record


@dataclass(frozen=True)
class TileFailed:
    """A computation of a tile that failed; `final` when it is not tried again."""

    tile: Tile
    attempt: int
    error: str
    final: bool


@dataclass(frozen=True)
class Progress:
    """How far a run is; told about once a second."""

    done: int  # tiles, in this run
    pending: int
    failed: int  # given up
    samples_per_second: float
    iterations_per_second: float
    seconds_left: float | None  # None until a tile is done
    workers: int
    levels: int = 0  # tiles of the levels that are still to be made by themselves


@dataclass(frozen=True)
class Summary:
    """How a run ended. Iterations and samples are those of the whole field, seconds and rate those of this run."""

    store: str
    tiles: int
    done: int  # tiles in the store
    computed: int  # tiles, in this run
    levels: int  # tiles of the levels that were made by themselves, in this run
    failed: int  # tiles of the field and of the levels
    seconds: float  # wall time from the first task to the last shard
    kernel_seconds: float
    threads: int
    iterations: int  # in this run
    iterations_per_second: float
    total_iterations: int
    not_escaped: int  # samples
    samples: int
    area: float | None  # of the samples that did not escape, in the units of c; None for a line or a strip
    errors: dict[str, str]  # "row,column" of a failed tile -> what happened

    @property
    def efficiency(self) -> float:
        """Kernel seconds over the worker threads' seconds."""
        return self.kernel_seconds / (self.threads * self.seconds) if self.seconds else 0.0

    @property
    def exit_code(self) -> int:
        """0 all tiles are there, 4 some failed, or are missing: somebody took them out of the store meanwhile."""
        return 4 if self.failed or self.done < self.tiles else 0

    def _repr_html_(self) -> str:
        from mandeldask.job.shown import summary_html

        return summary_html(self)


Event = Preparing | Notice | Plan | Started | Expected | TileDone | TileFailed | Progress | Summary
Observer = Callable[[Event], None]


def ignore(event: Event, /) -> None:
    """The observer of a run that nobody watches."""
