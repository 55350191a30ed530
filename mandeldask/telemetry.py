"""What workers and drivers tell the scheduler for the dashboard: events on one topic, checked on arrival.

A worker sends an event for each tile that it has written; the driver sends about one a second, which describes the job
in full. An event that is late, repeated or lost does no harm. The scheduler imports this: NumPy is all it needs.
"""

from __future__ import annotations

import hashlib
import math
import operator
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mandeldask.text import duration, si

TOPIC = "mandeldask"
KEY_PREFIX = "escape-time-tile"  # Dask's own pages colour tasks by it
PREVIEW_SIDE = 512  # samples of the preview's longer side, at most: 1 MiB for a job, however large
MAX_SHOWN = 2**21  # tiles of a job that the scheduler will hold: about 30 bytes a tile
MAX_TEXT = 500  # characters

Tile = tuple[int, int]  # row, column


def job_id(identity: str, path: str) -> str:
    """The id of the job that fills a store: the same whenever it is resumed, another for a copy of the store."""
    return hashlib.blake2s(f"{identity} {path}".encode(), digest_size=12).hexdigest()


def key_name(job: str, run: str, what: Literal["tile", "level"] = "tile") -> str:
    """A name for tasks that compute tiles, used once: their keys are (name, row, column).

    The keys of tasks that build tiles of the pyramid are (name, level, row, column).
    """
    return f"{KEY_PREFIX.replace('tile', what)}-{job}-{run}-{uuid.uuid4().hex}"


def parse_key(key: object) -> tuple[str, str, Tile] | None:
    """The job, its run and the tile that a task's key stands for; None for other tasks."""
    match key:
        case (str(name), int(row), int(column)) if name.startswith(KEY_PREFIX):
            parts = name[len(KEY_PREFIX) + 1 :].split("-")
            # map_blocks of Dask 2025 adds a token to the name that it is given
            return (parts[0], parts[1], (row, column)) if len(parts) in (3, 4) else None
    return None


def sample_type(max_iter: int) -> np.dtype[Any]:
    """The smallest unsigned type, little-endian, that holds an escape time."""
    return np.dtype(np.min_scalar_type(max_iter)).newbyteorder("<")


@dataclass(frozen=True)
class Preview:
    """The small picture of a field of `shape` in tiles: every `stride`-th sample in both directions.

    `tiles` are its rows and columns of tiles, `size` those of its own samples.
    """

    shape: tuple[int, int]
    tile: tuple[int, int]
    max_iter: int

    @cached_property
    def tiles(self) -> tuple[int, int]:
        return -(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1])

    @cached_property
    def stride(self) -> int:
        return -(-max(self.shape) // PREVIEW_SIDE)

    @property
    def size(self) -> tuple[int, int]:
        return -(-self.shape[0] // self.stride), -(-self.shape[1] // self.stride)

    @cached_property
    def sample_type(self) -> np.dtype[Any]:
        return sample_type(self.max_iter)

    def samples(self, tile: Tile) -> tuple[slice, slice]:
        """The samples of a tile that the preview shows, within the tile."""
        k = self.stride
        return slice(-tile[0] * self.tile[0] % k, None, k), slice(-tile[1] * self.tile[1] % k, None, k)

    def cells(self, tile: Tile) -> tuple[slice, slice]:
        """Where these samples are in the preview; empty where tiles are smaller than the stride."""
        k = self.stride
        rows, columns = (
            slice(-(-i * side // k), -(-min((i + 1) * side, n) // k))
            for i, side, n in zip(tile, self.tile, self.shape, strict=True)
        )
        return rows, columns

    def encode(self, escape_time: NDArray[np.int32], tile: Tile) -> bytes:
        """A tile's part of the preview, from its samples."""
        return escape_time[self.samples(tile)].astype(self.sample_type).tobytes()

    def decode(self, part: bytes, cells: tuple[slice, slice]) -> NDArray[np.integer[Any]]:
        """The samples in these cells; ValueError where there are more bytes or fewer."""
        rows, columns = cells
        return np.frombuffer(part, self.sample_type).reshape(rows.stop - rows.start, columns.stop - columns.start)


@dataclass(frozen=True)
class JobInfo:
    """A job as the dashboard shows it. `id` is that of its store: a resumed job keeps it."""

    id: str
    name: str
    run: str  # another for each run of the job
    kernel: str
    started: float  # Unix time
    shape: tuple[int, int]  # samples
    tile: tuple[int, int]
    max_iter: int
    x: tuple[float, float]
    y: tuple[float, float]

    @cached_property
    def preview(self) -> Preview:
        return Preview(self.shape, self.tile, self.max_iter)


@dataclass(frozen=True)
class Progress:
    """How far a run is and how fast it goes; told about once a second."""

    done: int  # tiles, in this run
    pending: int  # tiles that were to be computed when it began
    failed: int  # given up
    samples_per_second: float
    iterations_per_second: float
    seconds_left: float | None  # None until a tile is done
    workers: int
    levels: int = 0  # tiles of the pyramid that are still to be built

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Progress:
        """Progress that was told or noted elsewhere. Any exception means that it is none."""
        progress = cls(**values)
        if not all(value is None or math.isfinite(value) for value in vars(progress).values()):
            raise ValueError("an endless rate")
        return progress

    @property
    def left(self) -> str:
        """The time left as a person says it; "" where it is not known."""
        return "" if self.seconds_left is None else f"{duration(round(self.seconds_left))} left"

    @property
    def rate(self) -> str:
        """Iterations a second and the time left as a person says them; "" until a tile is done."""
        words = (f"{si(self.iterations_per_second)} iterations/s", self.left) if self.done else ()
        return ", ".join(filter(None, words))


@dataclass(frozen=True)
class TileFailed:
    """A computation of a tile that failed; `final` when it is not tried again."""

    tile: Tile
    attempt: int
    error: str
    final: bool


class TileEvent(NamedTuple):
    """What a worker tells of a tile that it has written. A driver tells it of tiles that were done before."""

    job: str
    tile: Tile
    seconds: float  # of kernel
    iterations: int  # 0, as are seconds, minimum and maximum, where they are not known
    minimum: int
    maximum: int
    worker: str  # "" where it is not known
    preview: bytes  # empty where it is not known


@dataclass(frozen=True)
class DriverEvent:
    """What a driver tells of its job, sent as a dict. `tiles` are done, whoever computed them."""

    job: JobInfo
    progress: Progress | None = None
    failures: Sequence[TileFailed] = ()
    tiles: Sequence[TileEvent] = ()
    ended: str = ""  # "done" or "stopped"


def tile_event(job: str, record: Any) -> dict[str, Any]:
    """The event of a finished tile as it is sent; `record` is its `mandeldask.tile.Record`."""
    return {"job": job, **{name: getattr(record, name) for name in TileEvent._fields[1:]}}


def previews_wanted(job: str, dask_scheduler: Any = None) -> list[Tile] | None:
    """On the scheduler: some of the finished tiles whose preview the page lacks; None where there is no page."""
    plugin = dask_scheduler.plugins.get(TOPIC)
    if plugin is None or plugin.problem:
        return None
    wanted: list[Tile] = plugin.jobs[job].previews_wanted() if job in plugin.jobs else []
    return wanted


def withdraw(keys: Sequence[Any], client: str, dask_scheduler: Any = None) -> None:
    """On the scheduler: cancel those tasks of a client that no worker was given, before one is."""
    tasks = (dask_scheduler.tasks.get(key) for key in keys)
    waiting = [task.key for task in tasks if task and task.state in {"released", "waiting", "queued", "no-worker"}]
    dask_scheduler.stimulus_cancel(waiting, client, force=True, reason=None, msg=None)


def parse_event(event: Any) -> TileEvent | DriverEvent:
    """An event as it arrived. Any exception means that it is none; what a tile holds `JobState.take_tile` checks."""
    if "tile" in event:
        return _tile(event)
    job = JobInfo(**event["job"])
    _check_job(job)
    progress = Progress.checked(event["progress"]) if event["progress"] else None
    failures = [TileFailed(**failure) for failure in event["failures"]]
    if not all(0 <= i < n for f in failures for i, n in zip(f.tile, job.preview.tiles, strict=True)):
        raise ValueError("a failure of a tile outside the field")
    tiles = [_tile(dict(zip(TileEvent._fields, tile, strict=True))) for tile in event["tiles"]]
    return DriverEvent(**event | {"job": job, "progress": progress, "failures": failures, "tiles": tiles})


def _tile(event: Mapping[str, Any]) -> TileEvent:
    row, column = event["tile"]
    return TileEvent(**{**event, "tile": (int(row), int(column)), "worker": str(event["worker"])[:MAX_TEXT]})


def _check_job(job: JobInfo) -> None:
    if not re.fullmatch("[0-9a-f]{8,64}", job.id) or len(job.name) > MAX_TEXT:
        raise ValueError("a job without a proper id or name")
    if not all(1 <= operator.index(n) < 2**31 for n in (*job.shape, *job.tile, job.max_iter)):
        raise ValueError("a job of impossible sizes")
    if not 0 <= job.started < 2**32:
        raise ValueError("a job of a time that no calendar has")
    if math.prod(job.preview.tiles) > MAX_SHOWN:
        raise ValueError(f"a job of more than {MAX_SHOWN} tiles cannot be shown")
