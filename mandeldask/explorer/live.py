"""Live tiles: a cluster that is started when it is first needed, and a bounded queue in front of it."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from distributed import Client

from mandeldask import cluster as clusters
from mandeldask.config import Cluster
from mandeldask.errors import ClusterError, MandeldaskError
from mandeldask.explorer.tiles import Address, Packed, What, live
from mandeldask.words import plural

MAX_WAITING = 256  # requests: a screen of 4k has 150 tiles
CACHE_BYTES = 2**27
END_SECONDS = 30.0  # for a cluster to end; it ends with the process anyway
WARM = Address(8, -192, 26)  # at the seahorse valley: 2^-16 apart


class BusyError(MandeldaskError):
    """More requests wait than a page would make."""


@dataclass(frozen=True)
class Request:
    """A tile to compute."""

    address: Address
    max_iter: int
    what: What = "counts"

    def __str__(self) -> str:
        at = self.address
        return f"{at.level}/{at.column}/{at.row}, {self.what}, max_iter {self.max_iter}"


@dataclass
class _Work:
    task: asyncio.Task[Packed]
    waiters: int = 0


class Live:
    """Computes live tiles on a cluster: one for all who ask for it, cancelled when none of them waits any more.

    All of it runs in one event loop, but for the thread that holds the cluster. `state`: off, starting, ready, lost.
    """

    def __init__(self, cluster: Cluster, kernel: str, upload: bool = False) -> None:
        self.cluster, self.kernel, self.upload = cluster, kernel, upload
        self.state: Literal["off", "starting", "ready", "lost"] = "off"
        self.words = ""
        self.client: Client | None = None  # of the loop
        self.held: Client | None = None  # of the thread that holds the cluster, for jobs
        self.work: dict[Request, _Work] = {}
        self.cache: OrderedDict[Request, Packed] = OrderedDict()
        self.cached_bytes = 0
        self.waiting = 0
        self.computed = self.cancelled = 0  # tiles
        self._slots = asyncio.Semaphore(8)
        self._starting: asyncio.Task[None] | None = None
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._warm: list[Any] = []  # futures; one that is let go is not computed

    def start(self) -> None:
        """Begin to start the cluster, unless that was done already; again where it was lost."""
        if self.state in ("off", "lost"):
            self.state, self.words = "starting", clusters.introduce(self.cluster) or "worker processes on this machine"
            self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        await self._close()
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Client] = loop.create_future()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(loop, ready, self._end), daemon=True)
        self._thread.start()
        try:
            self.held = held = await ready
            address, security = held.scheduler.address, held.security
            self.client = await Client(address, security=security, asynchronous=True, set_as_default=False)
            workers = await self.client.nthreads()
        except (MandeldaskError, OSError) as error:
            self._lost(str(error))
            return
        except Exception as error:
            self._lost(f"the cluster could not be reached: {error!r}")
            return
        threads = sum(workers.values())
        self._slots = asyncio.Semaphore(2 * threads + 2)
        self.state, self.words = "ready", plural(threads, "thread")
        for worker in workers:  # numba compiles for a second or so: before the first tile asks
            self._warm.append(self.client.submit(live, WARM, 100, self.kernel, workers=[worker], pure=False))

    def _hold(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[Client], end: threading.Event) -> None:
        """In a thread of its own: connect, say that it is so, and stay until the end."""

        def tell(function: Callable[..., object], *arguments: Any) -> None:
            with suppress(RuntimeError):  # a loop that has ended meanwhile
                loop.call_soon_threadsafe(lambda: ready.done() or function(*arguments))

        try:
            with clusters.connect(self.cluster) as client:
                clusters.wait_for_worker(client, self.cluster, lambda words: tell(self._say, words))
                clusters.check(client, self.kernel, upload=self.upload, say=lambda words: tell(self._say, words))
                tell(ready.set_result, client)
                end.wait()
        except MandeldaskError as error:
            tell(ready.set_exception, error)
        except Exception as error:
            tell(ready.set_exception, ClusterError(f"the cluster could not be started: {error!r}"))

    def _say(self, words: str) -> None:
        self.words = words

    def _lost(self, words: str) -> None:
        self.state, self.words = "lost", words
        self._end.set()

    async def tile(self, request: Request) -> Packed:
        """The tile, from the cache or computed.

        Raises
        ------
        BusyError
            Too many wait already.
        ClusterError
            The cluster could not be started, or was lost.
        """
        packed = self.cache.get(request)
        if packed:
            self.cache.move_to_end(request)
            return packed
        if self.waiting >= MAX_WAITING:
            raise BusyError(f"{MAX_WAITING} tiles are being waited for already; ask again later")
        work = self.work.get(request)
        if work is None:
            work = self.work[request] = _Work(asyncio.create_task(self._compute(request)))
        work.waiters += 1
        self.waiting += 1
        try:
            return await asyncio.shield(work.task)
        finally:
            self.waiting -= 1
            work.waiters -= 1
            if not work.waiters and not work.task.done():
                self.work.pop(request, None)
                work.task.cancel()

    async def _compute(self, request: Request) -> Packed:
        try:
            if self.state == "lost":
                raise ClusterError(self.words)
            await self.connected()
            async with self._slots:
                packed = await self._ask(request)
            self._keep(request, packed)
            return packed
        finally:
            if (work := self.work.get(request)) and work.task is asyncio.current_task():
                del self.work[request]

    async def connected(self) -> Client:
        """The client, for threads, of the cluster: once it is up.

        Raises
        ------
        ClusterError
            It could not be started, or was lost.
        """
        self.start()
        if self._starting:
            await asyncio.shield(self._starting)
        if self.held is None or self.state != "ready":
            raise ClusterError(self.words)
        return self.held

    async def _ask(self, request: Request) -> Packed:
        client = self.client
        if self.state != "ready" or client is None:
            raise ClusterError(self.words)
        key = f"explorer-tile-{uuid.uuid4().hex}"  # a key that was cancelled must not come back
        arguments = request.address, request.max_iter, self.kernel, request.what
        future = client.submit(live, *arguments, key=key, pure=False)
        # Dask fetches results for all who wait at once: to cancel one of them would cancel what the others wait for
        result: asyncio.Future[Packed] = asyncio.ensure_future(future)
        try:
            packed = await asyncio.shield(result)
        except asyncio.CancelledError:
            self.cancelled += 1
            result.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody asks for it
            await future.cancel(reason="nobody waits for the tile")
            raise
        except (CancelledError, OSError):  # by the loss of the scheduler: nothing else cancels a future that is ours
            self._lost(f"the scheduler at {client.scheduler.address if client.scheduler else '?'} was lost")
            raise ClusterError(self.words) from None
        except Exception as error:
            raise ClusterError(f"tile {request} failed on its worker: {error}") from None
        self.computed += 1
        return packed

    def _keep(self, request: Request, packed: Packed) -> None:
        self.cache[request] = packed
        self.cached_bytes += len(packed.data)
        while self.cached_bytes > CACHE_BYTES:
            _, old = self.cache.popitem(last=False)
            self.cached_bytes -= len(old.data)

    def look(self) -> None:
        """Notice that the scheduler is gone while nothing is asked for."""
        if self.state == "ready" and self.client is not None and self.client.status != "running":
            self._lost("the scheduler was lost")

    async def threads(self) -> int:
        """Of the workers that are there now."""
        self.look()
        if self.state != "ready" or self.client is None:
            return 0
        with suppress(OSError, CancelledError):
            return sum((await self.client.nthreads()).values())
        return 0

    async def close(self) -> None:
        """End the cluster, if it was started."""
        if self._starting:
            self._starting.cancel()
        for work in list(self.work.values()):
            work.task.cancel()
        await self._close()

    async def _close(self) -> None:
        self._end.set()
        if self.client is not None:
            with suppress(Exception):
                await asyncio.wait_for(self.client.close(), 5)
        self.client = self.held = None
        self._warm.clear()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, END_SECONDS)
