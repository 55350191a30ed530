"""Verify: what of a store is missing or wrong; and repair: take out what is wrong, and compute it again."""

from __future__ import annotations

import math
import os
import secrets
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import TypeVar

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from mandeldask import config as configs
from mandeldask.check import Checked, Finding, Known, Task, check_again, check_on_worker, check_tiles
from mandeldask.cluster import Session, results
from mandeldask.errors import ConfigError, DamagedError
from mandeldask.job import lease
from mandeldask.job.events import Event
from mandeldask.job.ledger import Ledger
from mandeldask.job.plan import recorded
from mandeldask.job.runs import resume
from mandeldask.precise import Precision, Rounded, need_gmpy2, precision, tasks
from mandeldask.store import Store, Tile, metadata, open_damaged, read_reference, remove_reference, shard_key
from mandeldask.tile import LevelTile

HERE = 2**28  # bytes before compression, up to which a cluster is not worth its start
HERE_ITERATIONS = 2**22  # of samples in many digits: as for HERE
BATCH_BYTES = 2**26  # of samples that a task checks
BATCH_TILES = 64
MAX_FINDINGS = 1000  # kept; all are counted
TELL_SECONDS = 0.5
T = TypeVar("T")


@dataclass(frozen=True)
class Checking:
    """How far a verification is."""

    done: int  # tiles, of all levels
    tiles: int
    bytes: int
    seconds: float
    damaged: int
    what: str = "tile"  # or a sample, in enough digits


@dataclass(frozen=True)
class Verification:
    """What came of it. `damaged` counts what is wrong; of the findings the first 1000 are kept.

    A tile of a deep field of which it is not known how its counts were proven is missing: `resume` computes it again.
    """

    store: str
    quick: bool
    shards: int  # read
    bytes: int  # of them
    seconds: float
    tiles: int  # of the field
    missing: int  # tiles of the field that are to be computed
    without_proof: int  # of these: they are there, but not how their counts were proven
    missing_levels: int  # tiles of the pyramid that are not built
    recomputed: int  # tiles
    not_comparable: int  # of these: no more counts differ than are noted as unproven, or none could be proven
    seed: int | None
    damaged: int
    kinds: dict[str, int]  # number of findings of each kind; stray files, which do no harm, are a kind too
    repaired: bool
    computed: int  # tiles, by repair
    findings: tuple[Finding, ...]
    precision: Precision | None  # of the samples that were iterated in enough digits

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
    precise: int = 0,
    seed: int | None = None,
    repair: bool = False,
    remove_damaged: bool = False,
    cluster: configs.AnyCluster | None = None,
    client: Client | None = None,
    upload: bool = False,
    tell: Callable[[Checking | str | Event], None] = lambda _: None,
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
    precise : int
        Iterate so many samples, chosen at random by `seed`, in arithmetic of enough digits, and tell what rounding has
        done to them. It needs gmpy2.
    repair : bool
        Remove what is wrong, and compute it again, with whatever else is missing, as `resume` does. Where a tile's
        shard, its statistics and the levels differ, none is believed: the tile is computed again.
    remove_damaged : bool
        Remove what is wrong, and no more, for a later `resume`: a tile with every tile that was built from it. Metadata
        and coordinates are written again at once.
    cluster, client, upload
        Who reads and computes, as for `run`. By default this process reads where the store is small.
    tell : callable, optional
        Is given a `Checking` every half second, lines for a person, and the events of the run that repairs.

    Raises
    ------
    StoreError
        No store, or one whose description is lost; one that a driver is writing, where it is to be changed.
    ConfigError, ClusterError
        As for `run`.
    """
    if recompute < 0:
        raise ConfigError(f"recompute must be a number of tiles, 0 or more; got {recompute}")
    if precise < 0:
        raise ConfigError(f"precise must be a number of samples, 0 or more; got {precise}")
    change = repair or remove_damaged
    opened, problem = open_damaged(store)
    d, found = opened.description, _Found()
    if precise and d.exact:
        raise ConfigError("the counts of a deep field are not rounded: compute some again with --recompute N")
    if precise and not (client or cluster):
        need_gmpy2()  # before all else is checked
    if recompute and d.proof == "none":
        raise ConfigError("this store is a preview, whose counts are not proven: there is nothing to compare with")
    if problem:
        found.add(Finding("description", "zarr.json", problem))
    with ExitStack() as session:
        with ExitStack() as lock:
            found.add(*_metadata(opened))
            ledger = lock.enter_context(_locked(opened, restore=bool(problem))) if change else None
            found.add(*_empty(opened))
            seed = secrets.randbits(32) if seed is None else seed
            present = [opened.done(level.number) for level in d.levels]
            computed = np.argwhere(present[0])
            chosen = np.random.default_rng(seed).permutation(len(computed))[:recompute]
            again: list[Tile] = [(i, j) for i, j in computed[chosen].tolist()]
            work = _tasks(opened, present, again, quick, seed)
            tiles = sum(int(there.sum()) for there in present) + len(again)
            size = 4 * sum(math.prod(level.shape) for level in d.levels) * len(d.fields)
            if problem and not change:  # workers could not open it: its description is lost
                client = None
            elif client or cluster or size > HERE or precise * d.max_iter > HERE_ITERATIONS:
                client = session.enter_context(Session(cluster, client=client, upload=upload, say=tell)).ready()
            seconds = _take_all(found, _done(work, opened, client), tiles, tell)
            rounded = _iterated(opened, precise, seed, client, tell) if precise else None
            if ledger:
                _remove(opened, ledger, found)
        missing = _missing(opened)
        made = None
        if repair and (found.damaged or any(missing)):
            made = resume(opened.path, client=client, upload=upload, tell=tell)
            missing = _missing(opened)
    return Verification(
        store=opened.path,
        quick=quick,
        shards=found.shards,
        bytes=found.bytes,
        seconds=seconds,
        tiles=math.prod(d.tiles),
        missing=missing[0],
        without_proof=missing[0] - int((~opened.done()).sum()),
        missing_levels=sum(missing[1:]),
        recomputed=len(again),
        not_comparable=found.not_comparable,
        seed=seed if again or precise else None,
        damaged=found.damaged,
        kinds=dict(found.kinds),
        repaired=change and found.damaged > 0,
        computed=made.computed if made else 0,
        findings=tuple(found.kept),
        precision=rounded,
    )


def _done(
    work: Iterator[tuple[Callable[[Store], T], int]], store: Store, client: Client | None
) -> Iterator[tuple[T, int]]:
    """What comes of tasks, each with how many tiles or samples it takes: one after another here, or on a cluster."""
    if client is None:
        return ((task(store), n) for task, n in work)
    name = f"verify-{uuid.uuid4().hex}"
    futures = (
        (client.submit(check_on_worker, task, store, key=(name, k), pure=False), n) for k, (task, n) in enumerate(work)
    )
    return results(futures, client, "read these tiles")


def _take_all(
    found: _Found, results: Iterator[tuple[Checked, int]], tiles: int, tell: Callable[[Checking], None]
) -> float:
    """Take the results in as they come, and tell of it; the seconds that they took."""
    started = last = time.monotonic()
    for checked, n in results:
        found.take(checked, n)
        if (now := time.monotonic()) - last >= TELL_SECONDS:
            last = now
            tell(Checking(found.done, tiles, found.bytes, now - started, found.damaged))
    return time.monotonic() - started


def _iterated(
    store: Store, samples: int, seed: int, client: Client | None, tell: Callable[[Checking], None]
) -> Precision:
    found: list[Rounded] = []
    started = time.monotonic()
    for rounded, _ in _done(tasks(store, samples, seed), store, client):
        found += rounded
        tell(Checking(len(found), samples, 0, time.monotonic() - started, 0, "sample"))
    return precision(found, store.description.fields)


def _missing(store: Store) -> list[int]:
    """How many tiles of each level are to be made."""
    there = (store.done(level.number) for level in store.description.levels[1:])
    return [int((~present).sum()) for present in (recorded(store), *there)]


class _Found:
    """What has been found so far: all counted, what repair needs of them, and the first in full."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.kept: list[Finding] = []
        self.tiles: set[LevelTile] = set()  # to be made again
        self.shards = self.bytes = self.done = self.not_comparable = 0

    @property
    def damaged(self) -> int:
        """What is wrong; a stray file is not."""
        return self.kinds.total() - self.kinds["stray"]

    def add(self, *findings: Finding) -> None:
        self.kinds.update(finding.kind for finding in findings)
        self.kept += findings[: max(0, MAX_FINDINGS - len(self.kept))]
        self.tiles |= {finding.tile for finding in findings if finding.tile}

    def take(self, checked: Checked, tiles: int) -> None:
        self.done += tiles
        self.shards += checked.shards
        self.bytes += checked.bytes
        self.not_comparable += checked.not_comparable
        self.add(*checked.findings)


def _tasks(
    store: Store, present: list[NDArray[np.bool_]], again: list[Tile], quick: bool, seed: int
) -> Iterator[tuple[Task, int]]:
    """Batches of tiles to check, then tiles to compute again: functions of a store, and how many tiles each takes."""
    columns = store.read_tiles()
    for level, there in zip(store.description.levels, present, strict=True):
        size = max(1, min(BATCH_TILES, BATCH_BYTES // (4 * math.prod(level.tile))))
        tiles = iter(np.argwhere(there).tolist())
        while batch := list(islice(tiles, size)):
            known = [_known(columns, (i, j)) if level.number == 0 else None for i, j in batch]
            work = [((level.number, i, j), k) for (i, j), k in zip(batch, known, strict=True)]
            yield partial(check_tiles, work, quick=quick), len(batch)
    for tile in again:
        unproven = int(columns["unproven"][tile]) if store.description.exact else 0
        yield partial(check_again, tile, seed=seed, unproven=unproven), 1


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
    if store.description.exact:
        try:
            read_reference(store)
        except DamagedError as error:
            yield Finding("reference", "reference", error.problem)
    for key in metadata.strays(store.place):
        yield Finding("stray", key, "is not of this store, and is left alone")


def _empty(store: Store) -> Iterator[Finding]:
    """Shards without a byte: what a machine that lost its power leaves."""
    for level, name in product(range(len(store.description.levels)), store.description.fields):
        for tile, size in store.listing(level, name):
            if not size:
                yield Finding("shard", shard_key(level, name, tile), "is empty", (level, *tile))


@contextmanager
def _locked(store: Store, restore: bool) -> Iterator[Ledger]:
    """Keep drivers out. A description that was lost is put back first: without it nothing can be written."""
    lease.refuse_second_driver(store)
    if restore:
        store.restore()
    with lease.held(store), Ledger(store).flushed() as ledger:
        yield ledger


def _remove(store: Store, ledger: Ledger, found: _Found) -> None:
    """Take out what is wrong: the coarsest level first, so that none is left of a tile that was computed again."""
    d = store.description
    doomed = {above for tile in found.tiles for above in d.made_from(tile)}
    for level, i, j in sorted(doomed, reverse=True):
        store.discard(level, (i, j))
        if level == 0:
            ledger.forget((i, j))
    wrong = dict.fromkeys(key for key, _ in metadata.problems(store.place, d))
    store.place.put_all((key, metadata.metadata_of(store.place, d, key)) for key in wrong)
    for key, _ in store.damaged_tiles():
        store.place.delete(key)
    metadata.complete(store.place, d)
    if found.kinds["reference"]:  # who needs it makes it again
        remove_reference(store)
