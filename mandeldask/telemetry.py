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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

TOPIC = "mandeldask"
KEY_PREFIX = "escape-time-tile"  # Dask's own pages colour tasks by it
PREVIEW_SIDE = 512  # samples of the preview's longer side, at most: 1 MiB for a job, however large
MAX_TILES = 2**21  # of a job that the scheduler will hold: about 40 bytes a tile
MAX_BYTES = 2**21  # in an event
MAX_TEXT = 500  # characters
MAX_FAILURES = 1000  # in an event

Tile = tuple[int, int]  # row, column
T = TypeVar("T")
KNOWN_TILE = np.dtype(
    [
        ("row", "<i4"),
        ("column", "<i4"),
        ("seconds", "<f4"),  # of kernel; 0, as all that follows, where it is not known
        ("iterations", "<i8"),
        ("minimum", "<i4"),
        ("maximum", "<i4"),
    ]
)


def job_id(identity: str, path: str) -> str:
    """The id of the job that fills a store: the same whenever it is resumed, another for a copy of the store."""
    return hashlib.blake2s(f"{identity} {path}".encode(), digest_size=12).hexdigest()


def key_name(job: str, run: str, what: Literal["tile", "level"] = "tile") -> str:
    """A name for tasks that compute tiles, used once: their keys are (name, row, column).

    The keys of tasks that build tiles of the pyramid are (name, level, row, column).
    """
    return f"{KEY_PREFIX.replace('tile', what)}-{job}-{run}-{uuid.uuid4().hex}"


def job_and_tile(key: object) -> tuple[str, str, Tile] | None:
    """The job, its run and the tile that a task's key stands for; None for other tasks."""
    match key:
        case (str(name), int(row), int(column)) if name.startswith(KEY_PREFIX):
            parts = name[len(KEY_PREFIX) + 1 :].split("-")
            return (parts[0], parts[1], (row, column)) if len(parts) == 3 else None
    return None


def tile_of_key(key: object, job: str, run: str = "") -> Tile | None:
    """The tile that a task's key stands for; None where it is not one of this job, or of this run of it."""
    found = job_and_tile(key)
    return found[2] if found and found[0] == job and run in ("", found[1]) else None


def sample_type(max_iter: int) -> np.dtype[Any]:
    """The smallest unsigned type, little-endian, that holds an escape time."""
    return np.dtype(np.min_scalar_type(max_iter)).newbyteorder("<")


@dataclass(frozen=True)
class Preview:
    """The small picture of a field of `shape` in tiles: every `stride`-th sample in both directions."""

    shape: tuple[int, int]
    tile: tuple[int, int]
    max_iter: int

    @cached_property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1])

    @cached_property
    def stride(self) -> int:
        return -(-max(self.shape) // PREVIEW_SIDE)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the preview."""
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


@dataclass(frozen=True)
class Failure:
    """An attempt at a tile that failed; `final` when it is not tried again."""

    tile: Tile
    attempt: int
    error: str
    final: bool


class TileEvent(NamedTuple):
    """What a worker tells of a tile that it has written."""

    job: str
    tile: Tile
    seconds: float  # of kernel
    iterations: int
    minimum: int
    maximum: int
    worker: str  # "" where it is not known
    preview: bytes


@dataclass(frozen=True)
class DriverEvent:
    """What a driver tells of its job. `table` is of KNOWN_TILE: tiles that are done, whoever computed them."""

    job: JobInfo
    progress: Progress | None = None
    failures: Sequence[Failure] = ()
    table: bytes = b""
    ended: str = ""  # "done" or "stopped"

    def to_dict(self) -> dict[str, Any]:
        """The event as it is sent."""
        return asdict(self)


def tile_event(job: str, record: Any) -> dict[str, Any]:
    """The event of a finished tile as it is sent; `record` is its `mandeldask.tile.Record`."""
    return {"job": job, **{name: getattr(record, name) for name in TileEvent._fields[1:]}}


def previews_wanted(job: str, dask_scheduler: Any = None) -> list[Tile] | None:
    """On the scheduler: some of the finished tiles whose preview the page lacks; None where there is no page."""
    plugin = dask_scheduler.plugins.get(TOPIC) if dask_scheduler else None
    return None if plugin is None or plugin.problem else plugin.board.previews_wanted(job)


def read(event: object) -> TileEvent | DriverEvent:
    """An event as it arrived, checked: it may come from anybody who reaches the scheduler.

    Raises
    ------
    ValueError
        One line that says what is wrong with it.
    """
    if isinstance(event, Mapping) and "tile" in event:
        return _read(TileEvent, event)
    read = _read(DriverEvent, event)
    _check_job(read.job)
    _check_tiles(read)
    return read


def _read(kind: type[T], values: object) -> T:
    """An object of a kind below, from the values of its fields; each is checked by its type."""
    rules = _RULES[kind]
    if not isinstance(values, Mapping) or values.keys() != rules.keys():
        raise ValueError(f"must have the keys {', '.join(rules)}")
    checked = {}
    for name, rule in rules.items():
        try:
            checked[name] = rule(values[name])
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{name}: {error}") from None
    return kind(**checked)


def _check_job(job: JobInfo) -> None:
    if not re.fullmatch("[0-9a-f]{8,64}", job.id):
        raise ValueError("job: its id must be 8 to 64 hexadecimal digits")
    if not all(1 <= n < 2**31 for n in (*job.shape, *job.tile, job.max_iter)) or not 0 <= job.started < 2**32:
        raise ValueError("job: impossible sizes, or a time that no calendar has")
    rows, columns = job.preview.tiles
    if rows * columns > MAX_TILES:
        raise ValueError(f"job: at most {MAX_TILES} tiles can be shown; got {rows * columns}")


def _check_tiles(event: DriverEvent) -> None:
    rows, columns = event.job.preview.tiles
    if any(f.tile[0] >= rows or f.tile[1] >= columns for f in event.failures):
        raise ValueError("failures: a tile outside the field")
    table = np.frombuffer(event.table, KNOWN_TILE)
    within = (table["row"] >= 0) & (table["row"] < rows) & (table["column"] >= 0) & (table["column"] < columns)
    if not (within & np.isfinite(table["seconds"]) & (table["seconds"] >= 0) & (table["iterations"] >= 0)).all():
        raise ValueError("table: a tile outside the field, or with impossible figures")


def _whole(value: Any) -> int:
    number = operator.index(value)
    if not 0 <= number < 2**63:
        raise ValueError("must be a whole number of 63 bits")
    return number


def _number(value: Any) -> float:
    number = float(value) if isinstance(value, int | float) else math.nan
    if not abs(number) < 1e18:
        raise ValueError("must be a number below 1e18")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"must be a text of at most {MAX_TEXT} characters")
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) > MAX_BYTES:
        raise ValueError(f"must be at most {MAX_BYTES} bytes")
    return value


def _pair(rule: Callable[[Any], T]) -> Callable[[Any], tuple[T, T]]:
    def pair(value: Any) -> tuple[T, T]:
        first, second = value
        return rule(first), rule(second)

    return pair


def _optional(rule: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else rule(value)


def _failures(value: Any) -> tuple[Failure, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_FAILURES:
        raise ValueError(f"must be a list of at most {MAX_FAILURES}")
    return tuple(_read(Failure, failure) for failure in value)


_BY_TYPE: dict[Any, Callable[[Any], Any]] = {
    int: _whole,
    float: _number,
    float | None: _optional(_number),
    str: _text,
    bytes: _bytes,
    bool: bool,
    tuple[int, int]: _pair(_whole),
    tuple[float, float]: _pair(_number),
    JobInfo: lambda value: _read(JobInfo, value),
    Progress | None: _optional(lambda value: _read(Progress, value)),
    Sequence[Failure]: _failures,
}
_RULES: dict[type, dict[str, Callable[[Any], Any]]] = {
    kind: {name: _BY_TYPE[hint] for name, hint in get_type_hints(kind).items()}
    for kind in (TileEvent, DriverEvent, JobInfo, Progress, Failure)
}
