"""The driver: hands windows of tiles to the cluster, enough of them at a time, and takes the records in."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError

import numpy as np
from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker
from numpy.typing import NDArray

from mandeldask.errors import ClusterError, StoreError
from mandeldask.job.events import Observer, TileDone, TileFailed
from mandeldask.job.ledger import Ledger, cannot_write, name_of
from mandeldask.job.order import Window, order
from mandeldask.job.window import window_records
from mandeldask.kernels import BlockFunction
from mandeldask.store import Store, Tile
from mandeldask.tile import to_record

MAX_ATTEMPTS = 3
# Tiles in flight never fall below this while any are left, so that one slow tile leaves no worker idle; with a window
# of 64 on top it also bounds what the scheduler holds.
MIN_IN_FLIGHT = 64
TILES_A_THREAD = 4
LOST = "the cluster was lost: its scheduler is gone or cancelled the work"
HOPELESS = 8  # tiles failed for good before any succeeded
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class Driver:
    """One pass over the pending tiles of a store. After `run`, `failed` holds the tiles that were given up."""

    def __init__(
        self,
        client: Client,
        store: Store,
        block_function: BlockFunction,
        threads: int,
        ledger: Ledger,
        tell: Observer,
    ) -> None:
        self.client, self.store, self.block_function = client, store, block_function
        self.ledger, self.tell = ledger, tell
        self.low = max(MIN_IN_FLIGHT, TILES_A_THREAD * threads)
        self.in_flight: dict[Future, Tile] = {}
        self.again: deque[Tile] = deque()
        self.attempts: dict[Tile, int] = {}
        self.failed: list[Tile] = []
        self.computed = 0

    def run(self, pending: NDArray[np.bool_]) -> None:
        """Compute the pending tiles.

        Raises
        ------
        StoreError
            The disk is full, read-only or failing: nothing else could be written either.
        ClusterError
            The cluster was lost, or no tile can be computed on it.
        """
        windows = order(pending)
        completed = as_completed(loop=self.client.loop)
        self._refill(windows, completed)
        try:
            while self.in_flight:
                self._take_in(completed.next_batch())
                self._refill(windows, completed)
        finally:
            self.client.cancel(list(self.in_flight), force=True)

    def _refill(self, windows: Iterator[Window], completed: as_completed) -> None:
        while len(self.in_flight) < self.low:
            window = next(windows, None) or self._retry()
            if window is None:
                return
            records = window_records(self.store, window, self.block_function).to_delayed()
            wanted = [records[i - window.first[0], j - window.first[1]] for i, j in window.tiles]
            futures = self.client.compute(wanted, optimize_graph=False)
            self.in_flight.update(zip(futures, window.tiles, strict=True))
            completed.update(futures)

    def _retry(self) -> Window | None:
        """A window of one tile that failed before; these come last."""
        if not self.again:
            return None
        tile = self.again.popleft()
        return Window(tile, (tile[0] + 1, tile[1] + 1), (tile,))

    def _take_in(self, futures: list[Future]) -> None:
        """Records and errors of what has ended; each future is let go, so that a lost worker undoes nothing."""
        if any(future.status == "cancelled" for future in futures):
            raise ClusterError(LOST)
        finished = [future for future in futures if future.status == "finished"]
        try:
            results = dict(zip(finished, self.client.gather(finished), strict=True))
        except Exception:  # a worker died with its record in this very moment: ask for each below
            results = {}
        for future in futures:
            tile = self.in_flight.pop(future)
            try:
                result = results[future] if future in results else future.result()
            except CancelledError:
                raise ClusterError(LOST) from None
            except Exception as error:  # whatever a kernel may raise
                self._failed(tile, error)
            else:
                self._done(result)
            future.release()

    def _done(self, result: NDArray[np.void]) -> None:
        record = to_record(result)
        self.computed += 1
        self.ledger.add(record)
        self.tell(TileDone(record))

    def _failed(self, tile: Tile, error: Exception) -> None:
        _raise_if_disk(self.store, error)
        if "deserializ" in str(error):
            raise ClusterError("the scheduler or a worker cannot read the tasks: both need mandeldask, in this version")
        attempt = self.attempts[tile] = self.attempts.get(tile, 0) + 1
        # the scheduler has tried a tile that kills its workers several times already
        final = attempt >= MAX_ATTEMPTS or isinstance(error, KilledWorker)
        text = _describe(error)
        self.ledger.fail(tile, text)
        self.tell(TileFailed(tile, attempt, text, final))
        if not final:
            self.again.append(tile)
            return
        self.failed.append(tile)
        if not self.computed and len(self.failed) >= HOPELESS:
            raise ClusterError(
                f"no tile can be computed: the first {HOPELESS} failed, tile {name_of(tile)} with {text}"
            )


def _describe(error: BaseException) -> str:
    if isinstance(error, KilledWorker):
        return "its worker died each time it was tried (out of memory, or a crash in the kernel)"
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def _raise_if_disk(store: Store, error: BaseException) -> None:
    if isinstance(error, StoreError):
        raise error
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        raise cannot_write(store, error)
