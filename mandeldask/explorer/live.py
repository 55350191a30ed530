"""What a cluster computes for the page, from when it is first needed: live tiles, and one rendering at a time."""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from distributed import Client
from zict import LRU

from mandeldask import config as configs
from mandeldask import image, job
from mandeldask.cluster import Session
from mandeldask.errors import ClusterError, ConfigError, JobCancelledError, MandeldaskError, StoreError
from mandeldask.explorer.deep import DeepTile, References
from mandeldask.explorer.tiles import PackedTile, Scene, compute_tile, live_view, same_field
from mandeldask.text import command, is_url, plural, short_path
from mandeldask.view import View

CACHE_BYTES = 2**27
END_SECONDS = 30.0  # for a cluster to end; it ends with the process anyway
SOON_MAX_ITER = 5000  # of a tile that is computed in this process: NumPy takes a second or two
WARM = live_view(8, -192, 26)  # at the seahorse valley: 2^-16 apart
MAX_SAMPLES = 2**34  # 17 gigasamples: a slip of the pointer must not fill a disk
PICTURE_SIDE = 4096  # pixels, at most about; `mandeldask image` makes larger ones
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}"

Asked = tuple[View | DeepTile, int]  # a tile and its max_iter


class LiveTiles:
    """Computes live tiles on a cluster; a request that is cancelled is cancelled on the scheduler too.

    It runs in one event loop, except for the thread that holds the cluster. `message` explains the `state`.
    """

    def __init__(self, cluster: configs.Cluster, kernel: str, upload: bool = False) -> None:
        self.cluster, self.kernel, self.upload = cluster, kernel, upload
        self.state: Literal["off", "starting", "ready", "lost"] = "off"
        self.message = ""
        self.client: Client | None = None  # asynchronous, of the event loop
        self.thread_client: Client | None = None  # of the thread that holds the cluster: for jobs
        self.cache: LRU[Asked, PackedTile] = LRU(CACHE_BYTES, {}, weight=lambda _, packed: len(packed.data))
        self.references: References | None = None  # once the cluster is up
        self.computed = self.cancelled = 0  # tiles
        self._slots = asyncio.Semaphore(8)
        self._soon = asyncio.Lock()  # one tile at a time is computed here while the workers start: a coarse picture
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
        self.references = References(self.client)
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

    async def tile(self, tile: View | DeepTile, max_iter: int) -> PackedTile:
        """A tile, from the cache or computed; ClusterError where the cluster could not be started, or was lost."""
        asked = tile, max_iter
        if asked in self.cache:
            return self.cache[asked]
        if self.state == "lost":
            raise ClusterError(self.message)
        if self.state == "starting" and max_iter <= SOON_MAX_ITER and isinstance(tile, View):
            async with self._soon:
                if self.state == "starting":
                    self.cache[asked] = await asyncio.to_thread(compute_tile, tile, max_iter, "numpy-compact")
                    return self.cache[asked]
        await self.connected()
        async with self._slots:
            packed = await self._compute(*asked)
        self.cache[asked] = packed
        return packed

    async def connected(self) -> Client:
        """The client for threads, once the cluster is up; ClusterError where it could not be started, or was lost."""
        self.start()
        if self._starting:
            await asyncio.shield(self._starting)
        if self.thread_client is None or self.state != "ready":
            raise ClusterError(self.message)
        return self.thread_client

    async def _compute(self, tile: View | DeepTile, max_iter: int) -> PackedTile:
        client, references = self.client, self.references
        if self.state != "ready" or client is None or references is None:
            raise ClusterError(self.message)
        key = f"explorer-tile-{uuid.uuid4().hex}"  # never the key of a task that was cancelled
        shallow = compute_tile, tile, max_iter, self.kernel
        task = references.task(tile, max_iter) if isinstance(tile, DeepTile) else shallow
        future = client.submit(*task, key=key, pure=False)
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
            raise ClusterError(f"tile {tile}, max_iter {max_iter}, failed on its worker: {error}") from None
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


class Rendering:
    """The job that makes a store of a view, one at a time. Its `state` is none, running, done or failed."""

    def __init__(self, scene: Scene, live: LiveTiles) -> None:
        beside = scene.store.path if scene.store else scene.config.store if scene.config else None
        self.folder = Path(beside).parent if beside and not is_url(beside) else Path.cwd()
        self.live = live
        self.state, self.message, self.store = "none", "", ""
        self.done = self.tiles = 0
        self._task: asyncio.Task[None] | None = None
        self._stop = threading.Event()

    def start(self, description: Any, name: str) -> None:
        """Begin; `description` is a run description without a store, `name` the store's.

        ConfigError where one runs already, the description has a fault, the view is too large, or the name is not a
        store's, or that of something else.
        """
        if self.state == "running":
            raise ConfigError("a view is being rendered already; wait for its end")
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            raise ConfigError(f"a store's name has letters, digits, dots and dashes, no more; got {str(name)[:80]!r}")
        store = self.folder / (name if name.endswith(".zarr") else f"{name}.zarr")
        config = configs.parse(description, "the view").model_copy(update={"store": str(store), "cluster": None})
        try:
            same_field(config)
        except StoreError:
            raise ConfigError(f"{store.name} exists, and holds something else: choose another name") from None
        if config.view.size > MAX_SAMPLES:
            raise ConfigError(f"a view is rendered from here up to {MAX_SAMPLES} samples; got {config.view.size}")
        self.state, self.message, self.store, self.done, self.tiles = "running", "waiting for workers", str(store), 0, 0
        self._stop = threading.Event()
        self._task = asyncio.create_task(self._run(config))

    async def _run(self, config: configs.Config) -> None:
        try:
            client = await self.live.connected()
            made = await asyncio.to_thread(self._make, config, client)
        except (MandeldaskError, OSError) as error:
            self.state, self.message = "failed", str(error)
        except Exception as error:
            self.state, self.message = "failed", repr(error)
            raise
        else:
            self.state, self.message = "done", f"{made}. To open it: {command('explore', short_path(self.store))}"

    def _make(self, config: configs.Config, client: Client) -> str:
        """Runs in a thread: the store, then the picture beside it; what was made."""
        summary = job.run(config, client=client, tell=self._tell)
        if summary.failed:
            raise MandeldaskError(f"{plural(summary.failed, 'tile')} of {short_path(self.store)} failed")
        self.message = "drawing the picture"
        path, made = Path(self.store).with_suffix(".png"), f"Made {short_path(self.store)}"
        if path.exists() and not image.is_ours(path):
            return f"{made}, no picture: {path.name} exists and was not made by mandeldask"
        image.picture(self.store, **{"size": PICTURE_SIDE, **configs.picture_options(config)}).save(path)
        return f"{made} and {path.name}"

    def _tell(self, event: job.Event) -> None:
        """Runs in the job's thread. Progress comes in another thread, which a stop must not end with a traceback."""
        if isinstance(event, job.Progress):
            return
        if self._stop.is_set():
            raise JobCancelledError(f"stopped; what is done is in {short_path(self.store)}")
        if isinstance(event, job.Plan):
            self.tiles, self.done, self.message = event.tiles, event.done, "computing"
        elif isinstance(event, job.TileDone):
            self.done += 1

    def cancel(self) -> None:
        """Stop the job, with the first tile that is done; what is done stays in its store."""
        self._stop.set()
        if self.state == "running":
            self.message = "stopping with the tiles at work"

    def to_json(self) -> dict[str, Any]:
        return {"state": self.state, "words": self.message, "store": self.store, "done": self.done, "tiles": self.tiles}
