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
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import DamagedError, MandeldaskError, StoreError
from mandeldask.kernels import KERNELS, Exact, block_function, on_cpu, orbit_of_its_own
from mandeldask.kernels.fields import ESCAPED, NOT_ESCAPED, PROVED, SMOOTH_STEPS
from mandeldask.store import (
    FILL,
    Description,
    Store,
    StoredSamples,
    Tile,
    chunk_side,
    open_store,
    shard_key,
    stored_reference,
)
from mandeldask.text import plural
from mandeldask.tile import LevelTile, statistics

Kind = Literal["description", "metadata", "coordinates", "shard", "value", "level", "statistics", "reference", "stray"]
Task = Callable[[Store], "Checked"]
T = TypeVar("T")
Known = tuple[int, int, int, int]  # iterations, minimum, maximum, not escaped: what the store notes of a tile
BAND_SAMPLES = 2**22  # of a tile that are read at once: it may be larger than memory
BEST_RATIO = 2**15  # by which zstd and lz4 shrink samples of one value at most
# Iterations of the reference kernel, at most, for a tile that is computed again: some 5 s.
RECOMPUTED_ITERATIONS = 2**28
BIG_STEP = 2**8  # a step of an orbit of its own takes so many times as long
OTHER_LOGARITHM = 1e-6  # by which smooth and distance may differ on another machine


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

    findings: tuple[Finding, ...] = ()
    shards: int = 0  # that were read
    bytes: int = 0  # of them
    not_comparable: int = 0  # tiles that were computed again, of which that tells nothing


def check_on_worker(task: Callable[[Store], T], store: Store) -> T:
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
    return Checked(tuple(findings), len(tiles) * len(store.description.fields), size)


def check_again(tile: Tile, store: Store, seed: int, unproven: int = 0) -> Checked:
    """Compute a tile again with the reference kernel, and compare the escape times bit for bit.

    Of a deep field each sample has its own orbit, and is compared where that is proven. A tile in which no more counts
    differ than are `unproven`, or -1 for not known, is not comparable. Where a tile would take more than
    `RECOMPUTED_ITERATIONS` if no sample escaped, it is a window of it, at random.
    """
    d = store.description
    rows, columns = _window_shape(d.levels[0].tile_shape(tile), d.max_iter, d.exact)
    (top, bottom), (left, right) = d.levels[0].window(tile)
    rng = np.random.default_rng((seed, *tile))
    y, x = int(rng.integers(top, bottom - rows + 1)), int(rng.integers(left, right - columns + 1))
    samples = d.view.block((y, y + rows), (x, x + columns))
    wanted = _proven(d, samples) if d.exact else KERNELS["numpy"](d.max_iter)(samples)
    try:
        found = store.window(slice(y, y + rows), slice(x, x + columns))
    except (DamagedError, OSError):  # `check_tiles` tells
        return Checked()
    wrong = np.argwhere((found != wanted) & (wanted > 0))
    if not 0 <= unproven < len(wrong):
        return Checked(not_comparable=int(len(wrong) > 0 or not wanted.any()))
    i, j = wrong[0].tolist()
    problem = (
        f"has {found[i, j]} at row {y + i}, column {x + j}, where the reference kernel gives {wanted[i, j]}; "
        f"it differs in {len(wrong)} of {plural(wanted.size, 'sample')}"
    )
    return Checked((Finding("value", shard_key(0, "escape_time", tile), problem, (0, *tile)),))


def _proven(d: Description, samples: NDArray[np.complex128]) -> NDArray[np.int32]:
    """Each sample's escape time by its own orbit; 0 where that is not proven."""
    wanted = np.zeros(samples.shape, np.int32)
    for index, offset in np.ndenumerate(samples):
        count, proven = orbit_of_its_own(d.view, complex(offset), d.max_iter)
        wanted[index] = count if proven else 0
    return wanted


def _window_shape(shape: tuple[int, int], max_iter: int, exact: bool = False) -> tuple[int, int]:
    """Rows and columns of the window of a tile that is computed again: all of it where that is not too costly."""
    least, step = (4, BIG_STEP) if exact else (256, 1)
    samples = max(least, RECOMPUTED_ITERATIONS // (step * max_iter))
    columns = min(shape[1], max(math.isqrt(samples), samples // shape[0]))
    return min(shape[0], max(1, samples // columns)), columns


def why_unusable(store: Store) -> str:
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
        seen: set[tuple[str, str]] = set()
        try:
            for y, x, samples in self._bands():
                if quick:
                    continue
                if self.name == "escape_time":
                    totals.append(statistics(samples, self.store.description.max_iter))
                for finding in self._problems(samples, y, x):
                    if (finding.kind, finding.key) not in seen:  # one of a kind is enough to make a tile again
                        seen.add((finding.kind, finding.key))
                        yield finding
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

    def _problems(self, samples: NDArray[Any], y: int, x: int) -> Iterator[Finding]:
        """What is wrong with some samples, the first of which is at row `y`, column `x` of the level."""
        max_iter, wrong = self.store.description.max_iter, np.zeros(samples.shape, bool)
        if self.name == "escape_time":
            wrong = (samples < 1) | (samples > max_iter)
            rule = f"escape times are from 1 to {max_iter}"
        elif self.name == "interior":
            rule = "interior is 0 where a sample escaped, else 1 or 2"
            times = self._same_samples(samples, y, x, self.level, "escape_time")
            wrong = (samples > PROVED) | (False if times is None else (samples == ESCAPED) != (times < max_iter))
        else:
            rule = f"{self.name} is NaN where a sample did not escape" + ", and only there" * (self.name == "smooth")
            times = self._same_samples(samples, y, x, self.level, "escape_time")
            if times is not None:
                wrong = np.isnan(samples) != (times == max_iter)
                wrong &= (self.name == "smooth") | ~np.isnan(samples)  # of a distance that c does not resolve
        for i, j in np.argwhere(wrong)[:1].tolist():
            problem = f"has {samples[i, j]} at row {y + i}, column {x + j}: {rule}"
            yield Finding("value", self.key, problem, self.tile)
        below = self._same_samples(samples, y, x, self.level - 1, self.name) if self.level else None
        if below is None:
            return
        there = below != FILL.get(self.name, np.nan)
        if self.name not in FILL:  # NaN is also what stands for a shard that is missing
            times = self._same_samples(samples, y, x, self.level - 1, "escape_time")
            there = ~np.isnan(below) | (True if times is None else times == max_iter)
        wrong = there & (_bits(samples) != _bits(below))
        for i, j in np.argwhere(wrong)[:1].tolist():
            where, other = f"row {y + i}, column {x + j}", f"level {self.level - 1} has {below[i, j]}"
            yield Finding("level", self.key, f"has {samples[i, j]} at {where}, where {other}", self.tile)
            yield from self._judged(wrong, y, x)

    def _judged(self, doubtful: NDArray[np.bool_], y: int, x: int) -> Iterator[Finding]:
        """The tiles of the field that are wrong where two levels differ: the kernel tells, in the time of one tile.

        A tile of the levels between is cheap to make again. Where the kernel cannot tell, none is believed.
        """
        d, stride = self.store.description, self.store.description.levels[self.level].stride
        found = self._same_samples(doubtful, y, x, 0, self.name)
        if found is None:
            return
        wanted, wrong = self._computed(doubtful, y, x), np.argwhere(doubtful)
        if wanted is not None:
            wrong = wrong[~self._alike(found[doubtful], wanted[doubtful])]
        at = stride * (wrong + np.array((y, x)))
        for i, j in wrong[np.unique(at // d.tile, axis=0, return_index=True)[1]].tolist():
            row, column = stride * (y + i), stride * (x + j)
            tile = row // d.tile[0], column // d.tile[1]
            gives = "no reference orbit is there to tell" if wanted is None else f"the kernel gives {wanted[i, j]}"
            problem = f"has {found[i, j]} at row {row}, column {column}, where {gives}"
            if self.store.place.size(key := shard_key(0, self.name, tile)):
                yield Finding("value", key, problem, (0, *tile))

    def _alike(self, found: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.bool_]:
        """Which samples are as near as another machine may compute them."""
        if self.name == "interior":  # how many are proved depends on the kernel
            found, wanted = np.minimum(found, NOT_ESCAPED), np.minimum(wanted, NOT_ESCAPED)
        near = 0.0 if self.name == "escape_time" else OTHER_LOGARITHM
        least = 1 / SMOOTH_STEPS if self.name == "smooth" else 0.0
        return np.asarray(np.isclose(found, wanted, rtol=near, atol=least, equal_nan=True))

    def _computed(self, chosen: NDArray[np.bool_], y: int, x: int) -> NDArray[Any] | None:
        """What the fastest kernel gives for the chosen ones of some samples of this level.

        None where the reference orbit of a deep field is lost or damaged: each process would make one of its own.
        """
        d, stride = self.store.description, self.store.description.levels[self.level].stride
        bottom, right = (min(stride * (n + k), side) for n, k, side in zip((y, x), chosen.shape, d.shape, strict=True))
        c = d.view.block((stride * y, bottom), (stride * x, right), stride=(stride, stride))[chosen]
        reference = stored_reference(self.store) if d.exact else None
        if d.exact and not reference:
            return None
        kernel = Exact(d.view, reference, d.proof) if d.exact else on_cpu()
        try:
            block = block_function(kernel, d.max_iter, d.fields, d.view)(c)
        except StoreError:  # of the reference, when it is read
            return None
        computed = np.zeros(chosen.shape, np.dtype(d.type_of(self.name)))
        computed[chosen] = block[self.name] if block.dtype.names else block
        return computed

    def _same_samples(self, samples: NDArray[Any], y: int, x: int, level: int, name: str) -> NDArray[Any] | None:
        """These samples in another array, of this level or one below; None where they cannot be read.

        Of a level below the fill value, where a shard is damaged.
        """
        rows, columns = samples.shape
        step = 1 << (self.level - level)
        stored = StoredSamples(self.store, level, name, spare_damaged=True)
        try:
            return stored[step * y : step * (y + rows) : step, step * x : step * (x + columns) : step]
        except (DamagedError, OSError):  # told where that tile is checked
            return None


def _bits(samples: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(samples).view(f"u{samples.dtype.itemsize}")
