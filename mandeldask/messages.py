"""What a run tells its scheduler, where the dashboard listens: plain values, self-contained, checked on arrival.

A message names its job and describes it in full, so that one that is late or delivered twice does no harm, and one
that is lost costs its own news alone: its tiles are shown as waiting until another run tells of them.
It needs no package but NumPy and pydantic: the scheduler reads it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

TOPIC = "mandeldask"
VERSION = 1
KEY_PREFIX = "escape-time-tile"  # Dask's own pages colour tasks by it
PREVIEW_SIDE = 512  # samples of the preview's longer side, at most: 1 MiB for a job, however large
MAX_TILES = 2**21  # of a job that the scheduler will hold: about 40 bytes a tile
MAX_BATCH = 4096  # tiles in a message
MAX_BYTES = 2**21  # of thumbnails in a message
MAX_ERROR_LENGTH = 500

TILE = np.dtype(
    [
        ("row", "<i4"),
        ("column", "<i4"),
        ("seconds", "<f4"),  # of kernel
        ("iterations", "<i8"),
        ("minimum", "<i4"),
        ("maximum", "<i4"),
        ("worker", "<i4"),  # index in the message's workers; -1 where it is not known
    ]
)

Name = Annotated[str, Field(max_length=200)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Index = Annotated[int, Field(ge=0, lt=2**31)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def job_id(identity: str, path: str) -> str:
    """The id of the job that fills a store: the same whenever it is resumed, another for a copy of the store."""
    return hashlib.blake2s(f"{identity} {path}".encode(), digest_size=12).hexdigest()


def key_name(job: str, run: str, what: Literal["tile", "level"] = "tile") -> str:
    """The first part of the keys of tasks that compute tiles, (name, row, column); never the same again.

    Those that make tiles of levels have keys (name, level, row, column).
    """
    return f"{KEY_PREFIX.replace('tile', what)}-{job}-{run}-{uuid.uuid4().hex}"


def tile_of_key(key: object, job: str, run: str = "") -> tuple[int, int] | None:
    """The tile that a task's key stands for; None where it is not one of this job, or of this run of it."""
    start = f"{KEY_PREFIX}-{job}-{run}-" if run else f"{KEY_PREFIX}-{job}-"
    match key:
        case (str(name), int(row), int(column)) if name.startswith(start):
            return row, column
    return None


@dataclass(frozen=True)
class Grid:
    """The tiles of a field of `shape`, and its preview: every `stride`-th sample in both directions."""

    shape: tuple[int, int]
    tile: tuple[int, int]

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1])

    @cached_property
    def stride(self) -> int:
        return -(-max(self.shape) // PREVIEW_SIDE)

    @property
    def preview(self) -> tuple[int, int]:
        """Rows and columns of the preview."""
        return -(-self.shape[0] // self.stride), -(-self.shape[1] // self.stride)

    def samples(self, tile: tuple[int, int]) -> tuple[slice, slice]:
        """The samples of a tile that the preview shows, within the tile."""
        k = self.stride
        return slice(-tile[0] * self.tile[0] % k, None, k), slice(-tile[1] * self.tile[1] % k, None, k)

    def cells(self, tile: tuple[int, int]) -> tuple[slice, slice]:
        """Where they are in the preview; empty where tiles are smaller than the stride."""
        k = self.stride
        rows, columns = (
            slice(-(-i * side // k), -(-min((i + 1) * side, n) // k))
            for i, side, n in zip(tile, self.tile, self.shape, strict=True)
        )
        return rows, columns


def sample_type(max_iter: int) -> np.dtype[Any]:
    """The smallest unsigned type, little-endian, that holds an escape time."""
    return np.dtype(np.min_scalar_type(max_iter)).newbyteorder("<")


def thumbnail(escape_time: NDArray[np.int32], grid: Grid, tile: tuple[int, int], max_iter: int) -> bytes:
    """The part of the preview that a tile's samples make."""
    return escape_time[grid.samples(tile)].astype(sample_type(max_iter)).tobytes()


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Job(_Part):
    """What a job is: the field and who computes it. `id` is that of its store, so a resumed run is the same job."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    name: Name
    run: Name  # another for each run of the job
    kernel: Name
    started: Annotated[float, Field(ge=0, lt=2**32)]  # Unix time
    shape: tuple[Positive, Positive]
    tile: tuple[Positive, Positive]
    max_iter: Positive
    x: tuple[float, float]
    y: tuple[float, float]

    @model_validator(mode="after")
    def _of_bounded_size(self) -> Job:
        rows, columns = self.grid.tiles
        if rows * columns > MAX_TILES:
            raise ValueError(f"a job to be shown has at most {MAX_TILES} tiles; got {rows * columns}")
        return self

    @property
    def grid(self) -> Grid:
        return Grid(self.shape, self.tile)


class Failure(_Part):
    """An attempt at a tile that failed; `final` when it is not tried again."""

    tile: tuple[Index, Index]
    attempt: Annotated[int, Field(ge=0, lt=2**31)]
    error: Annotated[str, Field(max_length=MAX_ERROR_LENGTH)]
    final: bool


class Pace(_Part):
    """How far a run is and how fast it goes, as its progress bar has it."""

    done: Index  # tiles of this run
    pending: Index
    failed: Index
    samples_per_second: Number
    iterations_per_second: Number
    seconds_left: Number | None
    workers: Index
    levels: Index = 0  # tiles of the levels left to make


class Message(_Part):
    """A batch of news of one job."""

    version: Literal[1]
    job: Job
    tiles: Annotated[bytes, Field(max_length=MAX_BATCH * TILE.itemsize)] = b""  # TILE, one after another
    thumbnails: Annotated[bytes, Field(max_length=MAX_BYTES)] = b""  # of these tiles in turn; or none at all
    workers: Annotated[tuple[Name, ...], Field(max_length=MAX_BATCH)] = ()
    failures: Annotated[tuple[Failure, ...], Field(max_length=MAX_BATCH)] = ()
    pace: Pace | None = None
    ended: Literal["", "done", "stopped"] = ""

    @cached_property
    def table(self) -> NDArray[np.void]:
        return np.frombuffer(self.tiles, TILE)

    @model_validator(mode="after")
    def _consistent(self) -> Message:
        rows, columns = self.job.grid.tiles
        if any(f.tile[0] >= rows or f.tile[1] >= columns for f in self.failures):
            raise ValueError("a failure of a tile outside the grid")
        if len(self.tiles) % TILE.itemsize:
            raise ValueError("tiles that are cut off")
        table = self.table
        within = (table["row"] >= 0) & (table["row"] < rows) & (table["column"] >= 0) & (table["column"] < columns)
        known = (table["worker"] >= -1) & (table["worker"] < len(self.workers))
        finite = np.isfinite(table["seconds"]) & (table["seconds"] >= 0)
        if not (within & known & finite & (table["iterations"] >= 0)).all():
            raise ValueError("a tile outside the grid, of an unknown worker, or with impossible figures")
        if self.thumbnails and len(self.thumbnails) != sum(self._thumbnail_sizes()):
            raise ValueError("thumbnails of another size than their tiles'")
        return self

    def _thumbnail_sizes(self) -> list[int]:
        grid, itemsize = self.job.grid, sample_type(self.job.max_iter).itemsize
        sizes = []
        for tile in self.table[["row", "column"]].tolist():
            rows, columns = grid.cells(tile)
            sizes.append((rows.stop - rows.start) * (columns.stop - columns.start) * itemsize)
        return sizes

    def parts_of_preview(self) -> Iterable[tuple[tuple[slice, slice], NDArray[np.integer[Any]]]]:
        """Where in the preview each thumbnail goes, and its samples."""
        kind, start = sample_type(self.job.max_iter), 0
        for tile, size in zip(self.table[["row", "column"]].tolist(), self._thumbnail_sizes(), strict=True):
            if size and self.thumbnails:
                rows, columns = self.job.grid.cells(tile)
                part = np.frombuffer(self.thumbnails, kind, size // kind.itemsize, start)
                yield (rows, columns), part.reshape(rows.stop - rows.start, columns.stop - columns.start)
            start += size


def read(message: object) -> Message:
    """The message, checked.

    Raises
    ------
    ValueError
        One line that says what is wrong with it.
    """
    try:
        return Message.model_validate(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
