"""What a worker does to verify a store: read a tile, and say what is wrong with it. It knows no driver."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import DamagedError
from mandeldask.kernels import KERNELS
from mandeldask.store import DamagedShardError, Store, Tile, shard_key
from mandeldask.store.shard import Get, part_of
from mandeldask.tile import LevelTile, statistics

Kind = Literal["description", "metadata", "coordinates", "shard", "value", "level", "statistics", "stray"]
Task = Callable[[Store], "Checked"]
Known = tuple[int, int, int, int]  # iterations, minimum, maximum, not escaped: what the store notes of a tile
IN_MEMORY = 2**26  # bytes of a shard that is read at once
# Iterations of the reference kernel, at most, for a tile that is computed again: some 5 s.
RECOMPUTED_ITERATIONS = 2**28


@dataclass(frozen=True)
class Finding:
    """Something that is not as it must be: the key of the store it is at, and what is wrong there.

    `tile` is the level, row and column of a tile that must be made again.
    """

    kind: Kind
    key: str
    problem: str
    tile: LevelTile | None = None


@dataclass(frozen=True)
class Checked:
    """What came of some tiles."""

    shards: int
    bytes: int
    findings: tuple[Finding, ...]


def seen(task: Task, store: Store) -> Checked:
    """A task on a worker, which must see the same store."""
    store.check_identity()
    return task(store)


def check_tiles(tiles: list[tuple[LevelTile, Known | None]], store: Store, quick: bool) -> Checked:
    """Check tiles that are done: each checksum, and unless `quick` each value, the level below and what is `Known`."""
    shards = size = 0
    findings: list[Finding] = []
    for tile, known in tiles:
        for name in store.description.fields:
            check = _Check(store, tile, name)
            findings += check.quick() if quick else check.full(known if name == "escape_time" else None)
            shards, size = shards + 1, size + check.bytes
    return Checked(shards, size, tuple(findings))


def check_again(tile: Tile, store: Store, seed: int) -> Checked:
    """Compute a tile again with the reference kernel, and compare the escape times bit for bit.

    Where that would take more than `RECOMPUTED_ITERATIONS` if no sample escaped, a window of the tile, at random.
    """
    d = store.description
    rows, columns = window_shape(d.levels[0].tile_shape(tile), d.max_iter)
    (top, bottom), (left, right) = d.levels[0].window(tile)
    rng = np.random.default_rng((seed, *tile))
    y, x = int(rng.integers(top, bottom - rows + 1)), int(rng.integers(left, right - columns + 1))
    wanted = KERNELS["numpy"](d.max_iter)(d.view.block((y, y + rows), (x, x + columns)))
    try:
        found = store.window(slice(y, y + rows), slice(x, x + columns))
    except (DamagedError, OSError):  # `check_tiles` tells
        return Checked(0, 0, ())
    wrong = np.argwhere(found != wanted)
    if not wrong.size:
        return Checked(1, wanted.nbytes, ())
    i, j = wrong[0].tolist()
    text = (
        f"has {found[i, j]} at row {y + i}, column {x + j}, where the reference kernel gives {wanted[i, j]}; "
        f"{len(wrong)} of {wanted.size} samples differ"
    )
    finding = Finding("value", shard_key(0, "escape_time", tile), text, (0, *tile))
    return Checked(1, wanted.nbytes, (finding,))


def window_shape(shape: tuple[int, int], max_iter: int) -> tuple[int, int]:
    """Rows and columns of the window of a tile that is computed again: all of it where that is not too dear."""
    samples = max(256, RECOMPUTED_ITERATIONS // max_iter)
    columns = min(shape[1], max(math.isqrt(samples), samples // shape[0]))
    return min(shape[0], max(1, samples // columns)), columns


class _Check:
    """The shard of one tile in one array."""

    def __init__(self, store: Store, tile: LevelTile, name: str) -> None:
        self.store, self.tile, self.name = store, tile, name
        self.level, self.place = tile[0], (tile[1], tile[2])
        self.key = shard_key(self.level, name, self.place)
        self.shards = store.shards(self.level, name)
        self.shape = store.description.levels[self.level].tile_shape(self.place)
        self.bytes = 0

    def quick(self) -> Iterator[Finding]:
        """Checksums alone; nothing is decoded."""
        try:
            for _, part in self.shards.parts(self._get(), self.shape):
                self.shards.check_chunk(part)
        except (DamagedShardError, OSError) as error:
            yield self._finding("shard", _what(error))

    def full(self, known: Known | None) -> Iterator[Finding]:
        """What is in it too, chunk by chunk: a tile may be larger than memory."""
        totals: list[Known] = []
        seen: set[str] = set()
        try:
            for (i, j), part in self.shards.parts(self._get(), self.shape):
                (rows, columns), (height, width) = self.shards.chunk, self.shape
                samples = self.shards.decoded(part)[: height - i * rows, : width - j * columns]
                if self.name == "escape_time":
                    totals.append(statistics(samples, self.store.description.max_iter))
                for kind, problem in self._problems(samples.copy(), i * rows, j * columns):
                    if kind not in seen:  # one of a kind is enough to make it again
                        seen.add(kind)
                        yield self._finding(kind, problem)
        except (DamagedShardError, OSError) as error:
            yield self._finding("shard", _what(error))
            return
        if known and not seen and known != (found := _sum(totals)):
            names = ("iterations", "minimum", "maximum", "not_escaped")
            wrong = ", ".join(
                f"{name} {a} instead of {b}" for name, a, b in zip(names, known, found, strict=True) if a != b
            )
            yield Finding("statistics", "tiles", f"of tile {self.place[0]},{self.place[1]} has {wrong}", self.tile)

    def _problems(self, samples: NDArray[Any], top: int, left: int) -> Iterator[tuple[Kind, str]]:
        """What is wrong with some samples, the first of which is at `top`, `left` of the tile."""
        d = self.store.description
        tile = d.levels[self.level].window(self.place)
        y, x = tile[0][0] + top, tile[1][0] + left
        height, width = samples.shape
        if self.name == "escape_time":
            wrong = (samples < 1) | (samples > d.max_iter)
            expected = f"escape times are from 1 to {d.max_iter}"
        else:  # of a sample that did not escape there is no such value
            times = self._window(self.level, "escape_time", slice(y, y + height), slice(x, x + width))
            wrong = np.zeros(samples.shape, bool) if times is None else np.isnan(samples) != (times == d.max_iter)
            expected = f"{self.name} is NaN where a sample did not escape, and only there"
        if wrong.any():
            i, j = np.argwhere(wrong)[0].tolist()
            yield "value", f"has {samples[i, j]} at row {y + i}, column {x + j}: {expected}"
        if self.level == 0:
            return
        part = slice(2 * y, 2 * (y + height)), slice(2 * x, 2 * (x + width))
        below = self._window(self.level - 1, self.name, *part)
        if below is None:
            return
        there = below[::2, ::2] != 0
        if self.name != "escape_time":  # NaN is also what stands for a shard that is missing
            times = self._window(self.level - 1, "escape_time", *part)
            there = ~np.isnan(below[::2, ::2]) | (True if times is None else times[::2, ::2] == d.max_iter)
        wrong = there & (samples.view("u4") != np.ascontiguousarray(below[::2, ::2]).view("u4"))
        if wrong.any():
            i, j = np.argwhere(wrong)[0].tolist()
            yield (
                "level",
                f"has {samples[i, j]} at row {y + i}, column {x + j}, where level {self.level - 1} has "
                f"{below[2 * i, 2 * j]}",
            )

    def _window(self, level: int, name: str, rows: slice, columns: slice) -> NDArray[Any] | None:
        try:
            return self.store.window(rows, columns, level, name)
        except (DamagedError, OSError):  # told where that tile is checked
            return None

    def _get(self) -> Get:
        """The parts of the shard, which is read at once if it is not too large."""
        limit = self.shards.limit
        data = self.store.place.get(self.key, size=min(limit, IN_MEMORY) + 1)
        if not data:
            raise DamagedShardError("is empty" if data == b"" else "was taken away")
        self.bytes = len(data)
        if len(data) > limit:
            raise DamagedShardError(f"is longer than the {limit} bytes that it can have")
        return part_of(data) if len(data) <= IN_MEMORY else partial(self.store.place.get, self.key)

    def _finding(self, kind: Kind, problem: str) -> Finding:
        return Finding(kind, self.key, problem, self.tile)


def _what(error: Exception) -> str:
    return f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)


def _sum(parts: list[Known]) -> Known:
    iterations, minimum, maximum, not_escaped = zip(*parts, strict=True)
    return sum(iterations), min(minimum), max(maximum), sum(not_escaped)
