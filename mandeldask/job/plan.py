"""run description -> what is to be computed, in which tiles, and what it needs; nothing is computed here.

Also which tiles of the pyramid are to be built, and when: each as soon as all the tiles below it are in the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask import config as configs
from mandeldask.cluster import IDLE_WORKER_BYTES, Size
from mandeldask.errors import ClusterError, ConfigError, StoreError
from mandeldask.field import dtype_of
from mandeldask.job import lease
from mandeldask.job.events import ORBIT_BYTES, Plan
from mandeldask.kernels import SCRATCH_BYTES
from mandeldask.store import AnyPath, Description, Level, Place, Store, Tile, open_for_writing, open_store, place_of
from mandeldask.text import data_size, is_url, option, si
from mandeldask.tile import LevelTile
from mandeldask.view import Deep

TILE_SIDES = (4096, 2048, 1024, 512, 256)
# In a smaller field tiles of 4096 are too few to pay for the first touch of 256 MiB of memory in each worker.
LARGE = 2**36  # samples: 16,384 tiles of 2048
TILES_A_THREAD = 8  # at least, so that unequal tiles can be shared out
ENCODING_BYTES = 8  # a sample, while a shard is compressed and written
USABLE = 0.8  # of a worker's memory limit: Dask pauses it there
LEVELS = 4 / 3  # bytes of all levels over those of the field: 1 + 1/4 + 1/16 + ...
BEST_RATIO = 1 / 256  # of compression: lz4 makes a 255th of samples that are all alike
NO_STORE = "no store named: give one (out=, or --out STORE on a command line), or set `store:` in the run description"
NOT = -1  # a tile of a level that is not to be built; no parent


def make_plan(
    config: configs.Config,
    kernel: str,
    size: Size,
    overwrite: bool = False,
    *,
    run_id: str | None = None,
    ignore_space: bool = False,
    source: Store | None = None,
    picture: Mapping[str, Any] | None = None,
) -> Plan:
    """Check the run against the cluster's memory, open or create its store, and see what is left to do.

    `run_id` is the submission whose lease on the store is this run's own; `source` a store of fewer iterations to
    deepen, by default the one that the store itself notes; `picture` how the field is to be drawn, of a store that is
    deepened by default as the other.

    Raises ConfigError where no store is named, ClusterError where a tile does not fit in a worker's memory, StoreError
    for a store that cannot be written, holds another field, or would not fit on the disk were it of one colour.
    """
    if not config.store:
        raise ConfigError(NO_STORE)
    there = _store_at(config.store)
    if there:
        lease.refuse_second_driver(there, run_id)
    tile = config.tile or (there and not overwrite and there.description.tile) or _choose_tile(config, size)
    description = Description.of(config.view, config.max_iter, config.fields, tile, config.proof)
    memory = check_memory(config.fields, description.tile, size, description.exact)
    if not (ignore_space or there or description.problem()):
        _check_space(place_of(config.store), description)
    store = open_for_writing(config.store, description, config.view.given, overwrite)
    done = recorded(store)
    count, again = int(done.sum()), int((store.done() & ~done).sum())
    levels = sum(int(tiles.sum()) for tiles in missing(store, ~done))
    source = source or _noted_source(store)
    pending = done.size - count
    picture = picture or (source.read_notes().get("picture") if source else None)
    return Plan(store, kernel, size, count, pending, memory, count > 0, levels, source, config.view, again, picture)


def recorded(store: Store) -> NDArray[np.bool_]:
    """The tiles that are done, without those of which it is not known how their counts were proven."""
    done, d = store.done(), store.description
    if d.exact and d.proof != "none":
        done &= store.read_tiles()["unproven"] >= 0
    return done


def _noted_source(store: Store) -> Store | None:
    """The store of the same field at a smaller max_iter that this one is deepened from; None where it is gone."""
    match store.read_notes().get("deepens"):
        # a folder from elsewhere must not send its reader to a server
        case {"path": str(path), "identity": identity} if is_url(path) == is_url(store.path):
            source = _store_at(path)
        case _:
            return None
    if source is None or source.identity != identity:
        return None
    old, new = source.description, store.description
    same = replace(old, max_iter=new.max_iter, format_version=new.format_version) == new
    return source if same and old.max_iter < new.max_iter else None


def _choose_tile(config: configs.Config, size: Size) -> tuple[int, int]:
    """The largest usual tile that fits in memory and still gives each thread a few; square."""
    view, exact = config.view, isinstance(config.view.frame, Deep)
    # an orbit may be as long as max_iter; where that would fit beside no tile, it is hoped to be shorter
    orbit = ORBIT_BYTES * config.max_iter if exact else 0
    for side in TILE_SIDES if view.size >= LARGE else TILE_SIDES[1:]:
        tiles = -(-view.shape[0] // side) * -(-view.shape[1] // side)
        memory = _tile_memory(config.fields, (side, side), exact)
        if tiles >= TILES_A_THREAD * size.threads and _fits(memory, size, orbit):
            return side, side
    return TILE_SIDES[-1], TILE_SIDES[-1]


def _tile_memory(fields: tuple[str, ...], tile: tuple[int, int], exact: bool) -> int:
    """Bytes that a worker thread needs for one tile: complex block, fields, the shard's encoding, kernel's scratch."""
    sample = 16 + dtype_of(fields, exact).itemsize + ENCODING_BYTES
    return sample * tile[0] * tile[1] + SCRATCH_BYTES


def _fits(memory: int, size: Size, reference: int = 0) -> bool:
    return IDLE_WORKER_BYTES + reference + memory * size.threads_per_worker <= USABLE * size.memory_limit


def check_memory(
    fields: tuple[str, ...], tile: tuple[int, int], size: Size, exact: bool = False, reference: int = 0
) -> int:
    """Bytes that a worker thread needs for one tile; ClusterError where a worker has less.

    `reference` are the bytes that a process needs for the reference orbit of a deep field.
    """
    memory = _tile_memory(fields, tile, exact)
    if _fits(memory, size, reference):
        return memory
    side = next((s for s in TILE_SIDES if _fits(_tile_memory(fields, (s, s), exact), size, reference)), None)
    remedy = f"tile: [{side}, {side}]" if side else "fewer workers with more memory each"
    threads = f", times {size.threads_per_worker} threads a worker" if size.threads_per_worker > 1 else ""
    orbit = f" and {data_size(reference)} for the reference orbit" if reference else ""
    raise ClusterError(
        f"a tile of {tile[0]} x {tile[1]} needs about {data_size(memory)}{threads}, beside "
        f"{data_size(IDLE_WORKER_BYTES)} for the worker itself{orbit}, and a worker may use {USABLE:.0%} of its "
        f"{data_size(size.memory_limit)}. Use {remedy}"
    )


def _check_space(place: Place, d: Description) -> None:
    """Raise StoreError where not even a field of one colour would fit, before a store is made for it.

    The coordinates of 10^12 columns alone are 8 TB.
    """
    free = place.free()
    samples = d.shape[0] * d.shape[1]
    least = int(dtype_of(d.fields, d.exact).itemsize * samples * BEST_RATIO + 4 * sum(d.shape))
    if free is not None and least > free:
        raise StoreError(
            f"{si(samples)} samples need at least {data_size(least)} at {place.url}, however well they are "
            f"compressed, and {data_size(free)} are free: choose another place, make room, or go on all the same "
            f"with {option('ignore_space')}"
        )


def space_warning(plan: Plan) -> str:
    """What to say where the pending tiles may not fit; "" where they do."""
    d, free = plan.store.description, plan.store.place.free()
    most = int(plan.pending * d.tile[0] * d.tile[1] * dtype_of(d.fields, d.exact).itemsize * LEVELS)
    if free is None or most <= free:
        return ""
    return (
        f"with its levels at most {data_size(most)} are needed at {plan.store.path}, before compression, and "
        f"{data_size(free)} are free: it may not fit. A run that finds the disk full ends; resume goes on once there "
        "is room"
    )


def _store_at(path: AnyPath) -> Store | None:
    try:
        return open_store(path)
    except StoreError:  # told with its remedy when the store is opened for writing
        return None


def missing(store: Store, computed: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """For each level above 0, its missing tiles that no task writes beside one of the tiles to be `computed`."""
    d = store.description
    for level in d.levels[1:]:
        absent = ~store.done(level.number)
        yield absent & ~computed if level.number <= d.fine else absent


class Levels:
    """The missing tiles of the levels above 0, and how many tiles below each are still awaited: one byte a tile.

    The task of a tile of the field writes its part of the fine levels too. So a tile of a fine level is missing only
    where a shard was lost.
    """

    def __init__(self, store: Store, done: NDArray[np.bool_] | None = None) -> None:
        d = store.description
        self.fine = d.fine
        computed = ~(store.done() if done is None else done)
        self.parents = [_parents(*pair) for pair in zip(d.levels, d.levels[1:], strict=False)]
        self.awaited = [np.full(d.tiles, NOT, np.int8)]  # for each level; level 0 is built from no other
        coming = computed  # tiles of the level below that this run will write
        for level, mine, parents in zip(d.levels[1:], missing(store, computed), self.parents, strict=True):
            awaited = np.zeros(level.tiles, np.int8)
            rows, columns = (parents[axis][tiles] for axis, tiles in enumerate(np.nonzero(coming)))
            held = (rows != NOT) & (columns != NOT)
            np.add.at(awaited, (rows[held], columns[held]), 1)
            awaited[~mine] = NOT
            self.awaited.append(awaited)
            coming = mine | computed if level.number <= d.fine else mine

    def __len__(self) -> int:
        return sum(int((awaited != NOT).sum()) for awaited in self.awaited)

    def ready(self) -> Iterator[LevelTile]:
        """The tiles that can be built now, before anything is computed."""
        for k, awaited in enumerate(self.awaited):
            yield from ((k, i, j) for i, j in np.argwhere(awaited == 0).tolist())

    def computed(self, tile: Tile) -> list[LevelTile]:
        """Note that a tile of the field, with its part of the fine levels, is done; the tiles that can be built now."""
        return self._there(self.fine, tile)

    def made(self, tile: LevelTile) -> list[LevelTile]:
        """Note that a tile of a level is done; the tiles that can be built now."""
        level, i, j = tile
        self.awaited[level][i, j] = NOT
        return self._there(level, (i, j))

    def _there(self, level: int, tile: Tile) -> list[LevelTile]:
        if level + 1 >= len(self.awaited):
            return []
        rows, columns = self.parents[level]
        i, j = int(rows[tile[0]]), int(columns[tile[1]])
        awaited = self.awaited[level + 1]
        if NOT in (i, j) or awaited[i, j] <= 0:
            return []
        awaited[i, j] -= 1
        return [] if awaited[i, j] else [(level + 1, i, j)]


def _parents(below: Level, above: Level) -> list[NDArray[np.intp]]:
    """For the rows and the columns of tiles of a level: the row or column above that holds samples of it, or NOT."""
    found = []
    for n, side, side_above, length in zip(below.tiles, below.tile, above.tile, below.shape, strict=True):
        start = np.arange(n) * side
        even = start + start % 2  # the first sample that the level above has too
        found.append(np.where(even < np.minimum(start + side, length), even // 2 // side_above, NOT))
    return found
