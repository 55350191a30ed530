"""The driver: hands windows of tiles to the cluster, enough of them at a time, and takes the records in."""

from __future__ import annotations

import errno
import shlex
import time
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError

import numpy as np
from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker
from numpy.typing import NDArray

from mandeldask.errors import ClusterError, DamagedError, JobCancelledError, StoreError
from mandeldask.job.cost import Costs
from mandeldask.job.deaths import deaths
from mandeldask.job.estimate import Estimate
from mandeldask.job.events import Observer, TileDone, TileFailed
from mandeldask.job.ledger import Ledger, cannot_write, name_of
from mandeldask.job.levels import Levels
from mandeldask.job.order import Window, order
from mandeldask.job.pulse import every
from mandeldask.job.source import source_of
from mandeldask.job.window import submit_levels, submit_window
from mandeldask.kernels import BlockFunction
from mandeldask.store import Store, Tile
from mandeldask.telemetry import job_id, key_name
from mandeldask.tile import LevelTile, Record

MAX_ATTEMPTS = 3
# Tiles in flight never fall below this while any are left, so that one slow tile leaves no worker idle; with a window
# of 64 on top it also bounds what the scheduler holds.
MIN_IN_FLIGHT = 64
TILES_A_THREAD = 4
TELL_SECONDS = 1.0
# To fetch the records of short tiles one by one costs the scheduler a third more; meanwhile others are in flight.
GATHER_SECONDS = 0.02
COUNT_SECONDS = 10.0
LOST = "the cluster was lost: its scheduler is gone or cancelled the work. What is finished is in the store; go on with"
KILLED = "its worker died each time it was tried (out of memory, or a crash in the kernel)"
MAX_DEATHS = 3  # of workers that had nothing but this tile to compute
HOPELESS = 8  # tiles failed for good before any succeeded
DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG),
    *(errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN),  # a file system that went away
}


class Driver:
    """One pass over the pending tiles of a store. After `run`, `failed` holds the tiles that were given up.

    It needs a client and a store, and nothing else: it works in the process of `mandeldask run` as in a task of a
    cluster. In one, `home` is the address of the worker it lives on, and `run` what it has in common with the drivers
    of the same job that died before it.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        block_function: BlockFunction,
        ledger: Ledger,
        tell: Observer,
        home: str | None = None,
        run: str | None = None,
    ) -> None:
        self.client, self.store, self.block_function = client, store, block_function
        self.source = source_of(store)
        self.run_id = run or uuid.uuid4().hex
        self.job = job_id(store.identity, store.path)
        self.name = key_name(self.job, self.run_id)
        self.ledger, self.tell, self.home = ledger, tell, home
        self.workers = self.threads = 0
        self.in_flight: dict[Future, Tile | LevelTile] = {}
        self.again: deque[Tile] = deque()
        self.suspects: deque[Tile] = deque()  # were computed when their worker died, perhaps by a neighbour's fault
        self.attempts: dict[Tile, int] = {}
        self.accused: set[Tile] = set()
        self.failed: list[Tile] = []
        self.ready: deque[LevelTile] = deque()  # tiles of levels that can be made now
        self.failed_levels: list[LevelTile] = []
        self.level_attempts: dict[LevelTile, int] = {}
        self.computed = 0
        self.cancelled = False

    def run(self, pending: NDArray[np.bool_], costs: Costs | None = None) -> None:
        """Compute the pending tiles, dear ones first where costs are known, and make the levels as they come.

        Raises
        ------
        StoreError
            The disk is full, read-only or failing: nothing else could be written either.
        ClusterError
            The cluster was lost, or no tile can be computed on it.
        JobCancelledError
            By `cancel`.
        """
        tile = self.store.description.tile
        self.estimate = Estimate(pending, costs, tile[0] * tile[1])
        self.levels = Levels(self.store, ~pending)
        self.ready.extend(self.levels.ready())
        if self.home:
            pending = self._recall(pending)
        windows = order(pending, costs)
        completed = as_completed(loop=self.client.loop)
        self._count_threads()
        try:
            with every(COUNT_SECONDS, self._count_threads, "threads"), every(TELL_SECONDS, self._progress, "progress"):
                self._refill(windows, completed)
                while self.in_flight:
                    ended = completed.next_batch()
                    time.sleep(GATHER_SECONDS)
                    self._take_in(ended + completed.next_batch(block=False))
                    self._refill(windows, completed)
            if self.cancelled:  # when nothing was in flight that could have told
                raise _cancelled()
            self._progress()
        finally:
            self.client.cancel(list(self.in_flight), force=True)

    def cancel(self) -> None:
        """End `run` soon, from another thread."""
        self.cancelled = True
        self.client.cancel(list(self.in_flight), force=True)

    def _recall(self, pending: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Take out the tiles with which a worker died, and with it perhaps the driver that would have known."""
        pending = pending.copy()
        for tile, alone in deaths(self.client, self.job, self.run_id).items():
            if pending[tile]:
                pending[tile] = False
                self.accused.add(tile)
                if alone >= MAX_DEATHS:
                    self._fail(tile, KILLED, final=True)
                else:
                    self.suspects.append(tile)
        return pending

    def _count_threads(self) -> None:
        """A cluster grows and shrinks."""
        threads = self.client.nthreads()
        self.workers, self.threads = len(threads), sum(threads.values())

    def _progress(self) -> None:
        self.tell(self.estimate.progress(time.time(), self.workers, max(1, self.threads), len(self.levels)))

    def _refill(self, windows: Iterator[Window], completed: as_completed) -> None:
        low = max(MIN_IN_FLIGHT, TILES_A_THREAD * self.threads)
        if self.ready and len(self.in_flight) < low and not self.cancelled:
            tiles = [self.ready.popleft() for _ in range(min(len(self.ready), low - len(self.in_flight)))]
            futures = submit_levels(self.client, self.store, tiles, key_name(self.job, self.run_id, "level"))
            self.in_flight.update(zip(futures, tiles, strict=True))
            completed.update(futures)
        while len(self.in_flight) < low and not self.cancelled:
            window = next(windows, None) or self._retry()
            if window is None:
                return
            # a tile is never asked for twice by the same key: what is left of the first time may still be there
            name = key_name(self.job, self.run_id) if window.tiles[0] in self.attempts else self.name
            places = self._places(window)
            futures = submit_window(self.client, self.store, window, self.block_function, name, self.source, **places)
            self.in_flight.update(zip(futures, window.tiles, strict=True))
            completed.update(futures)

    def _retry(self) -> Window | None:
        """A window of one tile that failed before; these come last, and suspects each alone: then it is their fault."""
        if self.again:
            tile = self.again.popleft()
        elif self.suspects and not self.in_flight:
            tile = self.suspects.popleft()
        else:
            return None
        return Window(tile, (tile[0] + 1, tile[1] + 1), (tile,))

    def _places(self, window: Window) -> dict[str, object]:
        """Where a window may be computed: a suspect rather not on the worker that this driver lives on."""
        if self.home is None or window.tiles[0] not in self.accused:
            return {}
        others = [worker for worker in self.client.nthreads() if worker != self.home]
        return {"workers": others, "allow_other_workers": True} if others else {}

    def _take_in(self, futures: list[Future]) -> None:
        """Records and errors of what has ended; each future is let go, so that a lost worker undoes nothing."""
        if self.cancelled:
            raise _cancelled()
        if any(future.status == "cancelled" for future in futures):
            raise self._lost()
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
                raise self._lost() from None
            except Exception as error:  # whatever a kernel may raise
                _raise_if_disk(self.store, error)
                if len(tile) == 3:
                    self._not_made(tile, error)
                else:
                    self._failed(tile, error)
            else:
                if len(tile) == 3:
                    self._made(tile)
                else:
                    self._done(result)
            del self.in_flight[future]  # not before: what ends the run here cancels it too
            future.release()

    def _lost(self) -> ClusterError:
        return ClusterError(f"{LOST}: mandeldask resume {shlex.quote(self.store.path)}")

    def _done(self, record: Record) -> None:
        self.computed += 1
        self.ledger.add(record)
        self.estimate.add(record)
        self.tell(TileDone(record))
        self.ready.extend(self.levels.computed(record.tile))

    def _made(self, tile: LevelTile) -> None:
        self.ledger.made(name_of(tile))
        self.ready.extend(self.levels.made(tile))

    def _not_made(self, tile: LevelTile, error: Exception) -> None:
        """A tile of a level is tried again, for it harms none; then it is left to `resume`."""
        attempt = self.level_attempts[tile] = self.level_attempts.get(tile, 0) + 1
        if attempt < MAX_ATTEMPTS and not isinstance(error, DamagedError):
            self.ready.append(tile)
        else:
            self.failed_levels.append(tile)
            self.ledger.note(name_of(tile), _describe(error))

    def _failed(self, tile: Tile, error: Exception) -> None:
        if "deserializ" in str(error):
            raise ClusterError("the scheduler or a worker cannot read the tasks: both need mandeldask, in this version")
        killed = isinstance(error, KilledWorker)
        final = tile in self.accused if killed else self.attempts.get(tile, 0) + 1 >= MAX_ATTEMPTS
        self._fail(tile, KILLED if killed else _describe(error), final)
        if killed and not final:
            self.accused.add(tile)
            self.suspects.append(tile)
        elif not final:
            self.again.append(tile)

    def _fail(self, tile: Tile, text: str, final: bool) -> None:
        attempt = self.attempts[tile] = self.attempts.get(tile, 0) + 1
        self.ledger.fail(tile, text)
        self.tell(TileFailed(tile, attempt, text, final))
        if final:
            self._give_up(tile, text)

    def _give_up(self, tile: Tile, text: str) -> None:
        self.failed.append(tile)
        self.estimate.give_up(tile)
        if not self.computed and len(self.failed) >= HOPELESS:
            raise ClusterError(
                f"no tile can be computed: the first {HOPELESS} failed, tile {name_of(tile)} with {text}"
            )


def _cancelled() -> JobCancelledError:
    return JobCancelledError("cancelled; what is finished is in the store")


def _describe(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def _raise_if_disk(store: Store, error: BaseException) -> None:
    if isinstance(error, StoreError) and not isinstance(error, DamagedError):
        raise error
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        raise cannot_write(store, error)
