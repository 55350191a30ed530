"""Verify: what of a store is missing or wrong; and repair: take out what is wrong, so that `resume` makes it again."""

from __future__ import annotations

import math
import os
import secrets
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker
from numpy.typing import NDArray

from mandeldask.check import Checked, Finding, Known, Task, check_again, check_on_worker, check_tiles
from mandeldask.cluster import Session
from mandeldask.config import AnyCluster
from mandeldask.errors import ClusterError, ConfigError
from mandeldask.job import lease
from mandeldask.job.ledger import Ledger
from mandeldask.store import Description, Level, Store, Tile, metadata, open_damaged, shard_key
from mandeldask.tile import LevelTile

HERE = 2**28  # bytes before compression, up to which a cluster is not worth its start
BATCH_BYTES = 2**26  # of samples that a task checks
BATCH_TILES = 64
MIN_IN_FLIGHT, IN_FLIGHT = 8, 3  # tasks, and tasks a thread
MAX_FINDINGS = 1000  # kept; all are counted
TELL_SECONDS = 0.5


@dataclass(frozen=True)
class Checking:
    """How far a verification is."""

    done: int  # tiles, of all levels
    tiles: int
    bytes: int
    seconds: float
    damaged: int


@dataclass(frozen=True)
class Verification:
    """What came of it. `damaged` counts what is wrong; of the findings the first 1000 are kept."""

    store: str
    quick: bool
    shards: int  # read
    bytes: int  # of them
    seconds: float
    tiles: int  # of the field
    missing: int  # tiles of the field that are not computed
    missing_levels: int  # tiles of the pyramid that are not built
    recomputed: int  # tiles
    seed: int | None
    damaged: int
    kinds: dict[str, int]  # number of findings of each kind; stray files, which do no harm, are a kind too
    repaired: bool
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Nothing is wrong, or what was wrong has been removed; tiles may be missing."""
        return not self.damaged or self.repaired

    @property
    def exit_code(self) -> int:
        """0 sound and whole, 4 tiles are missing, 6 something is wrong."""
        return 6 if not self.sound else 4 if self.missing or self.missing_levels else 0


def verify(
    store: str | os.PathLike[str],
    *,
    quick: bool = False,
    recompute: int = 0,
    seed: int | None = None,
    repair: bool = False,
    cluster: AnyCluster | None = None,
    client: Client | None = None,
    upload: bool = False,
    tell: Callable[[Checking | str], None] = lambda _: None,
) -> Verification:
    """Find what is missing or wrong in a store: shards, metadata, coordinates, statistics, levels, values, stray files.

    Parameters
    ----------
    quick : bool
        Check the checksum of every chunk, which finds what a disk or a careless hand did. By default the samples are
        checked too: values must be from 1 to max_iter, and each level must be every second sample of the one below.
    recompute : int
        Compute so many tiles again, chosen at random by `seed`, with the reference kernel, and compare them bit for
        bit; where a tile would take more than 2^28 iterations, a window of it.
    repair : bool
        Remove what is wrong, and no more, so that `resume` makes it again: a tile with every tile that was built from
        it. Metadata and coordinates are written again at once.
    cluster, client, upload
        Who reads, as for `run`. By default this process where the store is small and nothing else is named.
    tell : callable, optional
        Is given a `Checking` every half second, and lines for a person.

    Raises
    ------
    StoreError
        No store, or one whose description is lost; with `repair`, one that a driver is writing.
    ConfigError, ClusterError
        As for `run`.
    """
    if recompute < 0:
        raise ConfigError(f"recompute must be a number of tiles, 0 or more; got {recompute}")
    opened, problem = open_damaged(store)
    found = _Found()
    if problem:
        found.add(Finding("description", "zarr.json", problem))
    with ExitStack() as stack:
        for finding in _metadata(opened):
            found.add(finding)
        ledger = stack.enter_context(_held(opened, restore=bool(problem))) if repair else None
        work = _Work(opened, quick, recompute, secrets.randbits(32) if seed is None else seed, found)
        if problem and not repair:  # workers could not open it: its description is lost
            client = None
        elif client or cluster or work.bytes > HERE:
            client = stack.enter_context(Session(cluster, client=client, upload=upload, say=tell)).ready()
        started = last = time.monotonic()
        for checked, tiles in _here(work, opened) if client is None else _there(work, opened, client):
            found.take(checked, tiles)
            if (now := time.monotonic()) - last >= TELL_SECONDS:
                last = now
                tell(Checking(found.done, work.tiles, found.bytes, now - started, found.damaged))
        seconds = time.monotonic() - started
        if ledger:
            _repair(opened, ledger, found)
    missing = [int((~opened.done(level.number)).sum()) for level in opened.description.levels]
    return Verification(
        store=opened.path,
        quick=quick,
        shards=found.shards,
        bytes=found.bytes,
        seconds=seconds,
        tiles=opened.description.tiles[0] * opened.description.tiles[1],
        missing=missing[0],
        missing_levels=sum(missing[1:]),
        recomputed=len(work.again),
        seed=work.seed if work.again else None,
        damaged=found.damaged,
        kinds=dict(found.kinds),
        repaired=repair and found.damaged > 0,
        findings=tuple(found.kept),
    )


class _Found:
    """What has been found so far: all counted, what repair needs of them, and the first in full."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.kept: list[Finding] = []
        self.tiles: set[LevelTile] = set()  # to be made again
        self.unknown: set[Tile] = set()  # whose statistics are to be forgotten
        self.shards = self.bytes = self.done = 0

    @property
    def damaged(self) -> int:
        """What is wrong; a stray file is not."""
        return self.kinds.total() - self.kinds["stray"]

    def add(self, finding: Finding) -> None:
        self.kinds[finding.kind] += 1
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(finding)
        if finding.tile and finding.kind == "statistics":
            self.unknown.add((finding.tile[1], finding.tile[2]))
        elif finding.tile:
            self.tiles.add(finding.tile)

    def take(self, checked: Checked, tiles: int) -> None:
        self.done += tiles
        self.shards += checked.shards
        self.bytes += checked.bytes
        for finding in checked.findings:
            self.add(finding)


class _Work:
    """The tasks: batches of tiles to check, then tiles to compute again."""

    def __init__(self, store: Store, quick: bool, recompute: int, seed: int, found: _Found) -> None:
        self.store, self.quick, self.seed = store, quick, seed
        self.present = [self._listed(level, found) for level in store.description.levels]
        computed = np.argwhere(self.present[0])
        chosen = np.random.default_rng(seed).permutation(len(computed))[:recompute]
        self.again: list[Tile] = [(i, j) for i, j in computed[chosen].tolist()]
        self.tiles = sum(int(present.sum()) for present in self.present) + len(self.again)
        samples = sum(math.prod(level.shape) for level in store.description.levels)
        self.bytes = 4 * samples * len(store.description.fields)

    def _listed(self, level: Level, found: _Found) -> NDArray[np.bool_]:
        """Which tiles of a level there are; an empty file is what a machine that lost its power leaves."""
        present = np.ones(level.tiles, np.bool_)
        for name in self.store.description.fields:
            full = np.zeros(level.tiles, np.bool_)
            for tile, size in self.store.listing(level.number, name):
                full[tile] = size > 0
                if not size:
                    found.add(Finding("shard", shard_key(level.number, name, tile), "is empty", (level.number, *tile)))
            present &= full
        return present

    def __iter__(self) -> Iterator[tuple[Task, int]]:
        """Each task, a function of a store, and how many tiles it looks at."""
        columns = self.store.read_tiles()
        for level, present in zip(self.store.description.levels, self.present, strict=True):
            size = max(1, min(BATCH_TILES, BATCH_BYTES // (4 * math.prod(level.tile))))
            tiles = iter(np.argwhere(present).tolist())
            while batch := list(islice(tiles, size)):
                known = [_known(columns, (i, j)) if level.number == 0 else None for i, j in batch]
                work = [((level.number, i, j), k) for (i, j), k in zip(batch, known, strict=True)]
                yield partial(check_tiles, work, quick=self.quick), len(batch)
        for tile in self.again:
            yield partial(check_again, tile, seed=self.seed), 1


def _known(columns: dict[str, NDArray[np.generic]], tile: Tile) -> Known | None:
    """What the store notes of a tile; None where nothing: a killed driver lost its last seconds."""
    if not columns["minimum"][tile]:
        return None
    a, b, c, d = (int(columns[name][tile]) for name in ("iterations", "minimum", "maximum", "not_escaped"))
    return a, b, c, d


def _metadata(store: Store) -> Iterator[Finding]:
    """What of metadata, coordinates and the `tiles` group is wrong, and what does not belong to the store."""
    for key, problem in metadata.problems(store.place, store.description):
        yield Finding("metadata", key, problem)
    for key in metadata.coordinates(store.place, store.description):
        yield Finding("coordinates", key, "does not hold the coordinates of the view")
    for key, problem in store.damaged_tiles():
        yield Finding("statistics", key, problem)
    for key in metadata.strays(store.place):
        yield Finding("stray", key, "is not of this store, and is left alone")


def _here(work: _Work, store: Store) -> Iterator[tuple[Checked, int]]:
    for task, tiles in work:
        yield task(store), tiles


def _there(work: _Work, store: Store, client: Client) -> Iterator[tuple[Checked, int]]:
    """The same on a cluster, a bounded number of tasks at a time."""
    name = f"verify-{uuid.uuid4().hex}"
    tasks = enumerate(work)
    in_flight: dict[Future, int] = {}
    completed = as_completed(loop=client.loop)
    room = max(MIN_IN_FLIGHT, IN_FLIGHT * sum(client.nthreads().values()))
    try:
        while True:
            for n, (task, tiles) in islice(tasks, room - len(in_flight)):
                future = client.submit(check_on_worker, task, store, key=(name, n), pure=False)
                in_flight[future] = tiles
                completed.add(future)
            if not in_flight:
                return
            future = next(completed)
            tiles = in_flight.pop(future)
            try:
                yield future.result(), tiles
            except CancelledError:
                raise ClusterError("the cluster was lost: its scheduler is gone or cancelled the work") from None
            except KilledWorker:
                raise ClusterError("a worker died each time it read these tiles: give workers more memory") from None
            future.release()
    finally:
        client.cancel(list(in_flight), force=True)


@contextmanager
def _held(store: Store, restore: bool) -> Iterator[Ledger]:
    """Keep drivers out. A description that was lost is put back first: without it nothing can be written."""
    lease.refuse_second_driver(store)
    if restore:
        store.restore()
    with lease.held(store), Ledger(store).flushed() as ledger:
        yield ledger


def _repair(store: Store, ledger: Ledger, found: _Found) -> None:
    """Take out what is wrong: the coarsest level first, so that none is left of a tile that was computed again."""
    d = store.description
    doomed: set[LevelTile] = set()
    for tile in found.tiles:
        doomed |= set(made_from(d, tile))
    for level, i, j in sorted(doomed, reverse=True):
        store.discard(level, (i, j))
        if level == 0:
            ledger.forget((i, j))
    for unknown in found.unknown:
        ledger.forget(unknown)
    for key, _ in list(metadata.problems(store.place, d)):
        metadata.write_metadata(store.place, d, key)
    for key, _ in list(store.damaged_tiles()):
        store.place.delete(key)
    metadata.complete(store.place, d)


def made_from(d: Description, tile: LevelTile) -> Iterator[LevelTile]:
    """A tile and those of the levels above that hold samples of it."""
    yield tile
    level, *place = tile
    here = place[0], place[1]
    for above in range(level + 1, len(d.levels)):
        here = d.parent(above - 1, here)
        yield (above, *here)
