"""What a worker does before a run, and to verify a store: look at it, read a tile, and say what is wrong.

It knows no driver.
"""

from __future__ import annotations

import math
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import DamagedError, MandeldaskError
from mandeldask.kernels import KERNELS
from mandeldask.store import Store, Tile, chunk_side, open_store, shard_key
from mandeldask.tile import LevelTile, statistics

Kind = Literal["description", "metadata", "coordinates", "shard", "value", "level", "statistics", "stray"]
Task = Callable[[Store], "Checked"]
Known = tuple[int, int, int, int]  # iterations, minimum, maximum, not escaped: what the store notes of a tile
BAND_SAMPLES = 2**22  # of a tile that are read at once: it may be larger than memory
BEST_RATIO = 2**15  # by which zstd and lz4 shrink samples of one value at most
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


def check_on_worker(task: Task, store: Store) -> Checked:
    """A task on a worker, which must see the same store."""
    store.check_identity()
    return task(store)


def check_tiles(tiles: list[tuple[LevelTile, Known | None]], store: Store, quick: bool) -> Checked:
    """Check tiles that are done: each checksum, and unless `quick` each value, the level below and what is `Known`."""
    size = 0
    findings: list[Finding] = []
    for tile, known in tiles:
        for name in store.description.fields:
            shard = _Shard(store, tile, name)
            findings += shard.findings(quick, known if name == "escape_time" else None)
            size += store.place.size(shard.key) or 0
    return Checked(len(tiles) * len(store.description.fields), size, tuple(findings))


def check_again(tile: Tile, store: Store, seed: int) -> Checked:
    """Compute a tile again with the reference kernel, and compare the escape times bit for bit.

    Where that would take more than `RECOMPUTED_ITERATIONS` if no sample escaped, a window of the tile, at random. Its
    shard is counted where it is checked.
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
        return Checked(0, 0, ())
    i, j = wrong[0].tolist()
    problem = (
        f"has {found[i, j]} at row {y + i}, column {x + j}, where the reference kernel gives {wanted[i, j]}; "
        f"{len(wrong)} of {wanted.size} samples differ"
    )
    return Checked(0, 0, (Finding("value", shard_key(0, "escape_time", tile), problem, (0, *tile)),))


def window_shape(shape: tuple[int, int], max_iter: int) -> tuple[int, int]:
    """Rows and columns of the window of a tile that is computed again: all of it where that is not too costly."""
    samples = max(256, RECOMPUTED_ITERATIONS // max_iter)
    columns = min(shape[1], max(math.isqrt(samples), samples // shape[0]))
    return min(shape[0], max(1, samples // columns)), columns


def can_use(store: Store) -> str:
    """What keeps it from using the store; "" where nothing does."""
    probe = f"zarr.{uuid.uuid4().hex}.partial"  # should this process die here, a leftover like any other
    try:
        if open_store(store.place).identity != store.identity:
            return "another store is there"
        store.place.put(probe, b"probe")
        store.place.delete(probe)
    except (OSError, MandeldaskError) as error:
        return str(error).partition(";")[0]  # without the remedy, which is another here
    return ""


def loaded_from() -> list[str]:
    """The archives, or folders, that the modules of mandeldask came from."""
    files = {m.__file__ or "" for name, m in sys.modules.items() if name.partition(".")[0] == "mandeldask"}
    return sorted({Path(file.rpartition(f"{os.sep}mandeldask{os.sep}")[0]).name for file in files})


class _Shard:
    """The shard of one tile in one array."""

    def __init__(self, store: Store, tile: LevelTile, name: str) -> None:
        self.store, self.tile, self.name = store, tile, name
        self.level, self.place = tile[0], (tile[1], tile[2])
        self.key = shard_key(self.level, name, self.place)

    def findings(self, quick: bool, known: Known | None) -> Iterator[Finding]:
        """What is wrong with it, band by band; `quick`: only whether zarr can read it, which checks each checksum."""
        totals: list[Known] = []
        seen: set[str] = set()
        try:
            for y, x, samples in self._bands():
                if quick:
                    continue
                if self.name == "escape_time":
                    totals.append(statistics(samples, self.store.description.max_iter))
                for kind, problem in self._problems(samples, y, x):
                    if kind not in seen:  # one of a kind is enough to make it again
                        seen.add(kind)
                        yield Finding(kind, self.key, problem, self.tile)
        except (DamagedError, OSError) as error:
            problem = error.problem if isinstance(error, DamagedError) else f"cannot be read: {error.strerror or error}"
            yield Finding("shard", self.key, problem, self.tile)
            return
        if known and totals and not seen:
            iterations, minimum, maximum, not_escaped = zip(*totals, strict=True)
            found = sum(iterations), min(minimum), max(maximum), sum(not_escaped)
            names = ("iterations", "minimum", "maximum", "not_escaped")
            wrong = [f"{name} {a} instead of {b}" for name, a, b in zip(names, known, found, strict=True) if a != b]
            if wrong:
                where = f"of tile {self.place[0]},{self.place[1]}"
                yield Finding("statistics", "tiles", f"{where} has {', '.join(wrong)}", self.tile)

    def _bands(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Row and column of the first sample, and the samples, of each window of whole chunks."""
        here = self.store.description.levels[self.level]
        (top, bottom), (left, right) = here.window(self.place)
        rows, columns = (chunk_side(side) for side in here.tile)
        columns *= max(1, BAND_SAMPLES // (rows * columns))
        rows *= max(1, BAND_SAMPLES // (rows * min(columns, right - left)))
        size = self.store.place.size(self.key)
        if not size:
            raise DamagedError(self.key, "was taken away")
        if size * BEST_RATIO < 4 * (bottom - top) * (right - left):  # a description may claim a petabyte
            raise DamagedError(self.key, "is too small for its samples")
        for y in range(top, bottom, rows):
            for x in range(left, right, columns):
                window = slice(y, min(y + rows, bottom)), slice(x, min(x + columns, right))
                yield y, x, self.store.window(*window, self.level, self.name)

    def _problems(self, samples: NDArray[Any], y: int, x: int) -> Iterator[tuple[Kind, str]]:
        """What is wrong with some samples, the first of which is at row `y`, column `x` of the level."""
        max_iter, wrong = self.store.description.max_iter, np.zeros(samples.shape, bool)
        if self.name == "escape_time":
            wrong = (samples < 1) | (samples > max_iter)
            rule = f"escape times are from 1 to {max_iter}"
        else:
            rule = f"{self.name} is NaN where a sample did not escape, and only there"
            times = self._same_samples(samples, y, x, self.level, "escape_time")
            if times is not None:
                wrong = np.isnan(samples) != (times == max_iter)
        for i, j in np.argwhere(wrong)[:1].tolist():
            yield "value", f"has {samples[i, j]} at row {y + i}, column {x + j}: {rule}"
        below = self._same_samples(samples, y, x, self.level - 1, self.name) if self.level else None
        if below is None:
            return
        there = below != 0
        if self.name != "escape_time":  # NaN is also what stands for a shard that is missing
            times = self._same_samples(samples, y, x, self.level - 1, "escape_time")
            there = ~np.isnan(below) | (True if times is None else times == max_iter)
        wrong = there & (np.ascontiguousarray(samples).view("u4") != np.ascontiguousarray(below).view("u4"))
        for i, j in np.argwhere(wrong)[:1].tolist():
            found, wanted = samples[i, j], below[i, j]
            yield "level", f"has {found} at row {y + i}, column {x + j}, where level {self.level - 1} has {wanted}"

    def _same_samples(self, samples: NDArray[Any], y: int, x: int, level: int, name: str) -> NDArray[Any] | None:
        """These samples in another array, of this level or the one below; None where it cannot be read."""
        rows, columns = samples.shape
        step = 1 + self.level - level
        window = slice(step * y, step * (y + rows)), slice(step * x, step * (x + columns))
        try:
            return self.store.window(*window, level, name)[::step, ::step]
        except (DamagedError, OSError):  # told where that tile is checked
            return None
