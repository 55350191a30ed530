"""Hands pending tiles to the cluster, enough of them at a time, and takes the records in."""

from __future__ import annotations

import errno
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker
from numpy.typing import NDArray

from mandeldask.errors import ClusterError, DamagedError, JobCancelledError, MandeldaskError, StoreError
from mandeldask.job.cost import Costs, Estimate, order
from mandeldask.job.events import Notice, Observer, Plan, TileDone, ignore
from mandeldask.job.graph import TileGraph, written_tiles
from mandeldask.job.ledger import Ledger, cannot_write
from mandeldask.job.periodic import every
from mandeldask.job.plan import Levels
from mandeldask.store import Store, Tile
from mandeldask.telemetry import TileFailed, job_id, key_name, parse_key, withdraw
from mandeldask.text import command
from mandeldask.tile import LevelTile, Record, tile_name

# Tiles in flight never fall below this while any are left, so that one slow tile leaves no worker idle; with a batch
# of 64 on top it also bounds what the scheduler holds.
MIN_IN_FLIGHT = 64
TILES_A_THREAD = 4
MAX_ATTEMPTS = 3
MAX_DEATHS = 3  # of workers that had nothing but this tile to compute
TELL_SECONDS = 1.0
CANCEL_SECONDS = 0.5  # between two calls of `cancel`
END_SECONDS = 3.0  # that tiles in progress have to end in
# Fetching the records of short tiles one by one costs the scheduler a third more; meanwhile others are in flight.
GATHER_SECONDS = 0.02
LOST = "the cluster was lost: its scheduler is gone or cancelled the work. What is finished is in the store; go on with"
CANCELLED = "cancelled; what is finished is in the store"
KILLED = "its worker died each time it was tried (out of memory, or a crash in the kernel)"
HOPELESS = 8  # tiles given up before any succeeded
DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG),
    *(errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN),  # a file system that went away
}


@dataclass(frozen=True)
class Submission:
    """What the driver of a submitted job knows of it. Of a run, whose driver is in the client, all is left out."""

    name: str | None = None
    run_id: str | None = None  # the same for each driver of the job that is started
    home: str | None = None  # the address of the worker that the driver runs on
    is_cancelled: Callable[[], bool] = lambda: False


NOT_SUBMITTED = Submission()


class Dispatcher:
    """One pass over the pending tiles of a plan.

    After `run`, `estimate` tells what was computed, `made` how many tiles of levels, `failed` which were given up.
    """

    def __init__(
        self, client: Client, plan: Plan, ledger: Ledger, tell: Observer, submission: Submission = NOT_SUBMITTED
    ) -> None:
        self.client, self.plan, self.store = client, plan, plan.store
        self.ledger, self.tell, self.home = ledger, tell, submission.home
        self.run_id = submission.run_id or uuid.uuid4().hex
        self.job = job_id(plan.store.identity, plan.store.path)
        self.workers = self.threads = self.made = 0
        self.kernels: dict[str, str] = {}  # that each worker computes with
        self.in_flight: dict[Future, Tile | LevelTile] = {}
        self.retries = _Retries()
        self.ready: deque[LevelTile] = deque()  # tiles of levels that can be made now
        # a name for each attempt: the scheduler remembers every name of a run, and a key is never used twice
        self.level_names = [key_name(self.job, self.run_id, "level") for _ in range(MAX_ATTEMPTS)]
        self.kept: Future | None = None
        self.failed: list[Tile | LevelTile] = []
        self.cancelled = 0.0  # when, by the monotonic clock

    def run(self, pending: NDArray[np.bool_], costs: Costs | None = None) -> None:
        """Compute the pending tiles, costly ones first where costs are known, and make the levels as they come.

        StoreError where the disk is full, read-only or failing, for nothing else could be written either;
        ClusterError where the cluster was lost, or no tile can be computed on it; JobCancelledError by `cancel`.
        Where that or a signal ends it, tiles in progress have some seconds, for their records tell what no shard does.
        """
        tile = self.store.description.tile
        self.estimate = Estimate(pending, costs, tile[0] * tile[1])
        self.levels = Levels(self.store, ~pending)
        self.ready.extend(self.levels.ready())
        if self.home:
            pending = self._without_suspects(pending)
        self.batches, self.graph = order(pending, costs), self._new_graph()
        self.completed = as_completed(loop=self.client.loop)
        self._count_threads()
        try:
            with every(TELL_SECONDS, self._progress, "progress"):
                self._refill()
                self._take_all_in()
            self._progress()
        except (KeyboardInterrupt, JobCancelledError):
            self._stop()
            raise
        finally:
            self.kept = None
            self.client.cancel(list(self.in_flight), force=True)

    def cancel(self) -> None:
        """End `run` within some seconds, from another thread that calls this again and again."""
        self.cancelled = self.cancelled or time.monotonic()
        in_flight = list(self.in_flight)
        if time.monotonic() > self.cancelled + END_SECONDS:
            self.client.cancel(in_flight, force=True)
        else:
            self.client.run_on_scheduler(withdraw, [future.key for future in in_flight], self.client.id)

    def _stop(self) -> None:
        self.tell = ignore  # it may be what raised
        self.completed = as_completed(list(self.in_flight), loop=self.client.loop)  # the old one may have lost some
        with every(CANCEL_SECONDS, self.cancel, "cancel"), suppress(MandeldaskError, OSError, RuntimeError):
            self.cancel()
            self._take_all_in()

    def _take_all_in(self) -> None:
        """Take in what ends, and ask for more, until nothing is in flight."""
        while self.in_flight:
            ended = self.completed.next_batch()
            time.sleep(GATHER_SECONDS)
            self._take_in(ended + self.completed.next_batch(block=False))
            self._refill()
        if self.cancelled:
            raise JobCancelledError(CANCELLED)

    def _without_suspects(self, pending: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The pending tiles, but for those with which a worker died: perhaps the one of an earlier driver."""
        pending = pending.copy()
        for tile, alone in _deaths(self.client, self.job, self.run_id).items():
            if pending[tile]:
                pending[tile] = False
                if alone >= MAX_DEATHS:
                    self._tell_failure(tile, KILLED, final=True)
                else:
                    self.retries.suspect(tile)
        return pending

    def _count_threads(self) -> None:
        """A cluster grows and shrinks."""
        threads = self.client.nthreads()
        self.workers, self.threads = len(threads), sum(threads.values())
        self.estimate.count(threads, time.time())

    def _progress(self) -> None:
        self._count_threads()
        self.tell(self.estimate.progress(time.time(), self.workers, max(1, self.threads), len(self.levels)))

    def _refill(self) -> None:
        """Ask for more until enough is in flight: tiles of levels first, then new tiles, then tiles that failed."""
        least = max(MIN_IN_FLIGHT, TILES_A_THREAD * self.threads)
        while len(self.in_flight) < least and not self.cancelled:
            if self.ready:
                tiles = [self.ready.popleft() for _ in range(min(len(self.ready), least - len(self.in_flight)))]
                self._watch(self._submit_levels(tiles), tiles)
            elif batch := next(self.batches, None):
                self._watch(self.graph.submit(self.client, batch), batch)
            elif (tile := self.retries.next(idle=not self.in_flight)) is not None:
                self._watch(self._new_graph().submit(self.client, [tile], **self._elsewhere(tile)), [tile])
            else:
                return

    def _watch(self, futures: list[Future], tiles: list[Tile] | list[LevelTile]) -> None:
        self.in_flight.update(zip(futures, tiles, strict=True))
        self.completed.update(futures)

    def _submit_levels(self, tiles: list[LevelTile]) -> list[Future]:
        """One task a tile, before all others: it waits for none, for what it is made from is in the store."""
        keys = [(self.level_names[self.retries.attempts[tile]], *tile) for tile in tiles]
        levels, places = zip(*((tile[0], tile[1:]) for tile in tiles), strict=True)
        write = self.store.write_level
        return self.client.map(write, levels, places, key=keys, pure=False, priority=1)  # type: ignore[no-any-return]

    def _new_graph(self) -> TileGraph:
        """A graph with keys of its own."""
        name = key_name(self.job, self.run_id)
        return TileGraph(written_tiles(self.store, self.plan.kernel, name, self.plan.source))

    def _elsewhere(self, tile: Tile) -> dict[str, object]:
        """Keep a suspect away from the worker that this driver runs on, where there are others."""
        if self.home is None or tile not in self.retries.suspects:
            return {}
        others = [worker for worker in self.client.nthreads() if worker != self.home]
        return {"workers": others, "allow_other_workers": True} if others else {}

    def _take_in(self, futures: list[Future]) -> None:
        """Records and errors of what has ended; each future is let go, so that a lost worker undoes nothing."""
        if not self.cancelled and any(future.status == "cancelled" for future in futures):
            raise cluster_lost(self.store)
        finished = [future for future in futures if future.status == "finished"]
        try:
            results = dict(zip(finished, self.client.gather(finished), strict=True))
        except Exception:  # a worker died with its record in this very moment: ask for each below
            results = {}
        for future in futures:
            tile = self.in_flight[future]
            try:
                result = results[future] if future in results else future.result()
            except CancelledError:
                if not self.cancelled:
                    raise cluster_lost(self.store) from None
            except Exception as error:  # whatever a kernel may raise
                self._failed(tile, error)
            else:
                self._level_done(tile) if len(tile) == 3 else self._done(result.item())
            self._let_go(future)  # not before: what ends the run here cancels it too

    def _let_go(self, future: Future) -> None:
        """Release a future; that of a level's tile once the next is there.

        Such tiles come in bursts. Dask forgets a group of tasks when none is left, and keeps 7 KiB of each for ever.
        """
        if len(self.in_flight.pop(future)) == 3:
            future, self.kept = self.kept, future
        if future:
            future.release()

    def _done(self, record: Record) -> None:
        if self.kernels.setdefault(record.worker, record.kernel) != record.kernel:
            self.kernels[record.worker] = record.kernel
            then = f"its GPU failed, as its log says, and it goes on with {record.kernel}"
            self.tell(Notice(f"{record.worker}: {then}"))
        self.ledger.add(record)
        self.estimate.add(record)
        self.tell(TileDone(record))
        self.ready.extend(self.levels.computed(record.tile))

    def _level_done(self, tile: LevelTile) -> None:
        self.made += 1
        self.ledger.made(tile)
        self.ready.extend(self.levels.made(tile))

    def _failed(self, tile: Tile | LevelTile, error: Exception) -> None:
        if isinstance(error, StoreError | ClusterError) and not isinstance(error, DamagedError):
            raise error  # of a disk, or of a processor's mode: the next tile would meet it too
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise cannot_write(self.store, error)
        if len(tile) == 3:
            self._level_failed(tile, error)
            return
        if "deserializ" in str(error):
            raise ClusterError("the scheduler or a worker cannot read the tasks: both need mandeldask, in this version")
        killed = isinstance(error, KilledWorker)
        final = self.retries.fail(tile, killed)
        self._tell_failure(tile, KILLED if killed else _describe(error), final)

    def _level_failed(self, tile: LevelTile, error: Exception) -> None:
        """A tile of a level is tried again at once, for it harms none; then it is left to `resume`."""
        self.retries.attempts[tile] += 1
        if self.retries.attempts[tile] < MAX_ATTEMPTS and not isinstance(error, DamagedError):
            self.ready.append(tile)
        else:
            self.failed.append(tile)
            self.ledger.note(tile, _describe(error))

    def _tell_failure(self, tile: Tile, text: str, final: bool) -> None:
        self.ledger.fail(tile, text)
        self.tell(TileFailed(tile, max(1, self.retries.attempts[tile]), text, final))
        if not final:
            return
        self.failed.append(tile)
        self.estimate.give_up(tile)
        if not self.estimate.done and len(self.failed) >= HOPELESS:
            raise ClusterError(
                f"no tile can be computed: the first {HOPELESS} failed, tile {tile_name(tile)} with {text}"
            )


class _Retries:
    """The tiles that failed so far.

    A tile whose kernel raised is tried again after all others. A tile that was on a worker when the worker died is a
    suspect: a tile beside it may have been the cause. Suspects are tried last, one at a time; a suspect whose worker
    dies again was the cause.
    """

    def __init__(self) -> None:
        self.attempts: Counter[Tile | LevelTile] = Counter()
        self.suspects: set[Tile] = set()
        self._again: deque[Tile] = deque()
        self._alone: deque[Tile] = deque()

    def next(self, idle: bool) -> Tile | None:
        """A tile to try again now; suspects only while nothing else is in flight."""
        if self._again:
            return self._again.popleft()
        return self._alone.popleft() if idle and self._alone else None

    def fail(self, tile: Tile, killed: bool) -> bool:
        """Note a failure, by the death of a worker or not; whether the tile is given up."""
        self.attempts[tile] += 1
        final = tile in self.suspects if killed else self.attempts[tile] >= MAX_ATTEMPTS
        if killed and not final:
            self.suspect(tile)
        elif not final:
            self._again.append(tile)
        return final

    def suspect(self, tile: Tile) -> None:
        self.suspects.add(tile)
        self._alone.append(tile)


def _deaths(client: Client, job: str, run: str) -> Counter[Tile]:
    """Tiles of a run whose worker died, and how often it had no other tile of the run: from the scheduler's events.

    A driver on the cluster that died with such a worker cannot know.
    """
    found: Counter[Tile] = Counter()
    for _, event in client.get_events("all") or ():
        if event.get("action") != "remove-worker" or event.get("expected"):
            continue
        tiles = [k[2] for key in event["processing-tasks"] if (k := parse_key(key)) and k[:2] == (job, run)]
        found.update({tile: int(len(tiles) == 1) for tile in tiles})
    return found


def cluster_lost(store: Store) -> ClusterError:
    return ClusterError(f"{LOST}: {command('resume', store.path)}")


def _describe(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
