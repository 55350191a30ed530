"""Live tiles: a cluster that is started when it is first needed, and as many tiles at once as it has use for."""

from __future__ import annotations

import asyncio
import threading
import uuid
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from distributed import Client
from zict import LRU

from mandeldask.cluster import Session
from mandeldask.config import Cluster
from mandeldask.errors import ClusterError, MandeldaskError
from mandeldask.explorer.tiles import Address, Content, PackedTile, compute_tile
from mandeldask.text import plural

CACHE_BYTES = 2**27
END_SECONDS = 30.0  # for a cluster to end; it ends with the process anyway
WARM = Address(8, -192, 26)  # at the seahorse valley: 2^-16 apart


@dataclass(frozen=True)
class TileRequest:
    """A tile to compute."""

    address: Address
    max_iter: int
    content: Content = "counts"

    def __str__(self) -> str:
        at = self.address
        return f"{at.level}/{at.column}/{at.row}, {self.content}, max_iter {self.max_iter}"


class LiveTiles:
    """Computes live tiles on a cluster; a request that is cancelled is cancelled on the scheduler too.

    It runs in one event loop, except for the thread that holds the cluster. `message` explains the `state`.
    """

    def __init__(self, cluster: Cluster, kernel: str, upload: bool = False) -> None:
        self.cluster, self.kernel, self.upload = cluster, kernel, upload
        self.state: Literal["off", "starting", "ready", "lost"] = "off"
        self.message = ""
        self.client: Client | None = None  # asynchronous, of the event loop
        self.thread_client: Client | None = None  # of the thread that holds the cluster: for jobs
        self.cache: LRU[TileRequest, PackedTile] = LRU(CACHE_BYTES, {}, weight=lambda _, packed: len(packed.data))
        self.waiting = self.computed = self.cancelled = 0  # tiles
        self._slots = asyncio.Semaphore(8)
        self._starting: asyncio.Task[None] | None = None
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._warm: list[Any] = []  # futures: Dask drops a task whose future is gone

    def start(self) -> None:
        """Start the cluster in the background, unless it is up or starting; again where it was lost."""
        if self.state in ("off", "lost"):
            self.state, self.message = "starting", self.cluster.introduction
            self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        await self._close()
        ready: Future[Client] = Future()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(ready, self._end), daemon=True)
        self._thread.start()
        try:
            self.thread_client = thread_client = await asyncio.wrap_future(ready)
            address, security = thread_client.scheduler.address, thread_client.security
            self.client = await Client(address, security=security, asynchronous=True, set_as_default=False)
            workers = await self.client.nthreads()
        except Exception as error:
            known = isinstance(error, MandeldaskError | OSError)
            self._lost(str(error) if known else f"the cluster could not be started: {error!r}")
            return
        threads = sum(workers.values())
        self._slots = asyncio.Semaphore(2 * threads + 2)
        self.state, self.message = "ready", plural(threads, "thread")
        for worker in workers:  # numba compiles for a second or so: before the first tile asks
            self._warm.append(self.client.submit(compute_tile, WARM, 100, self.kernel, workers=[worker], pure=False))

    def _hold(self, ready: Future[Client], end: threading.Event) -> None:
        """Runs in a thread of its own: connect, hand the client over, and keep the connection until the end."""
        try:
            with Session(self.cluster, kernel=self.kernel, upload=self.upload, say=self._say) as there:
                ready.set_result(there.ready())
                end.wait()
        except Exception as error:
            if not ready.done():  # else the explorer has ended meanwhile
                ready.set_exception(error)

    def _say(self, text: str) -> None:
        self.message = text

    def _lost(self, text: str) -> None:
        self.state, self.message = "lost", text
        self._end.set()

    async def tile(self, request: TileRequest) -> PackedTile:
        """The tile, from the cache or computed.

        Raises
        ------
        ClusterError
            The cluster could not be started, or was lost.
        """
        if request in self.cache:
            return self.cache[request]
        if self.state == "lost":
            raise ClusterError(self.message)
        self.waiting += 1
        try:
            await self.connected()
            async with self._slots:
                packed = await self._compute(request)
        finally:
            self.waiting -= 1
        self.cache[request] = packed
        return packed

    async def connected(self) -> Client:
        """The client for threads, once the cluster is up.

        Raises
        ------
        ClusterError
            It could not be started, or was lost.
        """
        self.start()
        if self._starting:
            await asyncio.shield(self._starting)
        if self.thread_client is None or self.state != "ready":
            raise ClusterError(self.message)
        return self.thread_client

    async def _compute(self, request: TileRequest) -> PackedTile:
        client = self.client
        if self.state != "ready" or client is None:
            raise ClusterError(self.message)
        key = f"explorer-tile-{uuid.uuid4().hex}"  # never the key of a task that was cancelled
        arguments = request.address, request.max_iter, self.kernel, request.content
        future = client.submit(compute_tile, *arguments, key=key, pure=False)
        # Dask fetches the results of several futures together: cancelling one fetch would cancel the others
        result: asyncio.Future[PackedTile] = asyncio.ensure_future(future)
        try:
            packed = await asyncio.shield(result)
        except asyncio.CancelledError:
            self.cancelled += 1
            result.add_done_callback(lambda done: done.cancelled() or done.exception())  # no warning of it
            await future.cancel(reason="nobody waits for the tile")
            raise
        except (CancelledError, OSError):  # only the loss of the scheduler cancels a future of ours
            self._lost(f"the scheduler at {client.scheduler.address if client.scheduler else '?'} was lost")
            raise ClusterError(self.message) from None
        except Exception as error:
            raise ClusterError(f"tile {request} failed on its worker: {error}") from None
        self.computed += 1
        return packed

    async def threads(self) -> int:
        """How many threads the workers have now; notices the loss of the scheduler while no tile is asked for."""
        if self.state != "ready" or self.client is None:
            return 0
        if self.client.status != "running":
            self._lost("the scheduler was lost")
            return 0
        with suppress(OSError, CancelledError):
            return sum((await self.client.nthreads()).values())
        return 0

    async def close(self) -> None:
        """End the cluster, if it was started."""
        if self._starting:
            self._starting.cancel()
        await self._close()

    async def _close(self) -> None:
        self._end.set()
        if self.client is not None:
            with suppress(Exception):
                await asyncio.wait_for(self.client.close(), 5)
        self.client = self.thread_client = None
        self._warm.clear()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, END_SECONDS)
