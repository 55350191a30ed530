"""The explorer: pan and zoom in the browser over a store and beyond it. See README.md beside this file.

Its server has the page and its tiles, on loopback, for its own page and no other.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from mandeldask import cluster as clusters
from mandeldask import config as configs
from mandeldask.errors import ClusterError, ConfigError, MandeldaskError, StoreError
from mandeldask.explorer.deep import deep_tile
from mandeldask.explorer.live import LiveTiles, Rendering
from mandeldask.explorer.tiles import LIVE_FIELDS, MAX_ITER, SIDE, PackedTile, Scene, live_view, open_scene, stored_tile
from mandeldask.job.plan import check_memory
from mandeldask.store import Store

__all__ = ["explore", "open_scene", "serve"]

LOOPBACK = "127.0.0.1"
REFRESH_SECONDS = 3.0  # between two counts of the tiles of a store that are done
MAX_BODY = 2**16
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FULL_SECONDS = 0.05  # between two tries to take a connection without a file descriptor for it
STATUS = {ClusterError: 503, ConfigError: 400, StoreError: 409}

logger = logging.getLogger(__name__)
_Action = Callable[..., Awaitable[Any]]


class _Explorer:
    """What the page asks for: the scene, its tiles, stored and live, and the rendering."""

    def __init__(self, scene: Scene, live: LiveTiles) -> None:
        self.scene, self.live, self.rendering = scene, live, Rendering(scene, live)
        self.done = self.tiles = 0
        self.problem = ""
        self._refreshed = 0.0

    async def page(self, handler: _Handler, name: str = "index.html") -> bytes:
        file = files("mandeldask.explorer") / "page" / name
        if not file.is_file():
            raise HTTPError(404, reason="no such page")
        handler.set_header("Content-Type", f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8")
        return file.read_bytes()

    async def show(self, _: _Handler) -> dict[str, Any]:
        return self.scene.to_json()

    async def state(self, _: _Handler) -> dict[str, Any]:
        live = self.live
        threads = await live.threads()
        if self.scene.store and time.monotonic() - self._refreshed >= REFRESH_SECONDS:
            await self._refresh(self.scene.store)
        return {
            "cluster": {"state": live.state, "words": live.message, "threads": threads},
            "store": {"done": self.done, "tiles": self.tiles, "problem": self.problem},
            "reference": live.references.words() if live.references else "",
            "tiles": {"computed": live.computed, "cancelled": live.cancelled},
            "rendering": self.rendering.to_json(),
        }

    async def start(self, _: _Handler) -> dict[str, Any]:
        self.live.start()
        return {}

    async def stored(self, _: _Handler, level: str, row: str, column: str) -> PackedTile:
        store = self.scene.store
        if store is None:
            raise ConfigError("no store is shown")
        await asyncio.to_thread(_check, store)
        return await asyncio.to_thread(stored_tile, store, int(level), int(row), int(column))

    async def computed(self, handler: _Handler, level: str, column: str, row: str) -> PackedTile:
        origin = handler.get_query_argument("origin", "")
        address = int(level), int(column), int(row)
        tile = deep_tile(*address, origin, handler.get_query_argument("proof", "")) if origin else live_view(*address)
        text = handler.get_query_argument("max_iter", "1000")
        max_iter = int(text) if re.fullmatch("[0-9]{1,12}", text) else 0
        if not 1 <= max_iter <= MAX_ITER:
            raise ConfigError(f"max_iter of live tiles is a whole number from 1 to {MAX_ITER}; got {text[:40]!r}")
        return await self.live.tile(tile, max_iter)

    async def render(self, handler: _Handler) -> dict[str, Any]:
        if handler.request.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            raise HTTPError(415, reason="a view to render comes as application/json")
        try:
            wanted = json.loads(handler.request.body)
            self.rendering.start(wanted["description"], wanted["name"])
        except ConfigError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"no view to render: {error}") from None
        return self.rendering.to_json()

    async def cancel(self, _: _Handler) -> dict[str, Any]:
        self.rendering.cancel()
        return {}

    async def _refresh(self, store: Store) -> None:
        """Count the store's tiles."""
        self._refreshed = time.monotonic()
        try:
            await asyncio.to_thread(_check, store)
            if not self.tiles or self.done < self.tiles:
                self.done, self.tiles = await asyncio.to_thread(self.scene.tiles)
            self.problem = ""
        except (MandeldaskError, OSError) as error:
            self.problem = str(error)

    def application(self, port: int) -> Application:
        """What answers which path and method on a port of loopback."""
        logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
        hosts = frozenset({f"{LOOPBACK}:{port}", f"localhost:{port}"})
        number = r"(-?[0-9]{1,4300})"
        routes: list[tuple[str, dict[str, _Action]]] = [
            (r"/", {"GET": self.page}),
            (r"/([a-z]+\.(?:js|css|svg))", {"GET": self.page}),
            (r"/scene", {"GET": self.show}),
            (r"/state", {"GET": self.state}),
            (r"/start", {"POST": self.start}),
            (r"/render", {"POST": self.render, "DELETE": self.cancel}),
            (r"/stored/([0-9]{1,3})/([0-9]{1,10})/([0-9]{1,10})", {"GET": self.stored}),
            (rf"/live/(-?[0-9]{{1,5}})/{number}/{number}", {"GET": self.computed}),
            (r"/.*", {}),
        ]
        return Application([(path, _Handler, {"actions": actions, "hosts": hosts}) for path, actions in routes])


def _check(store: Store) -> None:
    try:
        store.check_identity()
    except (StoreError, OSError):
        raise StoreError(f"{store.path} is gone, or another by now: open it anew") from None


class _Handler(RequestHandler):  # type: ignore[misc]
    """Answers only the page of this server; errors are JSON."""

    def initialize(self, actions: Mapping[str, _Action], hosts: frozenset[str]) -> None:
        self.actions, self.hosts = actions, hosts
        self.work: asyncio.Task[Any] | None = None

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse requests of other sites' pages, direct ones and those by a name that leads here (DNS rebinding)."""
        origin, site = self.request.headers.get("Origin"), self.request.headers.get("Sec-Fetch-Site", "none")
        if self.request.host.lower() not in self.hosts:
            raise HTTPError(421, reason=f"this server answers as {' or '.join(sorted(self.hosts))} alone")
        foreign = (origin and urlsplit(origin).netloc.lower() not in self.hosts) or site not in ("same-origin", "none")
        if foreign and self.request.path != "/":  # a link from elsewhere may lead to the page
            raise HTTPError(403, reason="this server answers its own page alone")

    async def answer(self, *arguments: str) -> None:
        """Do what the route names; the work is cancelled where the page aborts its request."""
        if not self.actions:
            raise HTTPError(404, reason="no such page")
        if self.request.method not in self.actions:
            raise HTTPError(405)
        self.work = asyncio.ensure_future(self.actions[self.request.method](self, *arguments))
        try:
            self.send(await self.work)
        except asyncio.CancelledError:
            if self.work:
                self.refuse(503, "the request was cancelled; ask again")
        except (MandeldaskError, OSError) as error:
            self.refuse(next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500), str(error))

    get = post = delete = answer

    def send(self, found: PackedTile | dict[str, Any] | bytes) -> None:
        if isinstance(found, PackedTile):
            self.set_header("Content-Type", "application/octet-stream")
            what = "smooth" if found.smooth else "counts"
            self.set_header("Tile", f"{found.kind} {found.shape[0]} {found.shape[1]} {what} {found.unproven}")
            if found.deflated:
                self.set_header("Content-Encoding", "deflate")
            found = found.data
        self.finish(found)

    def refuse(self, status: int, message: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": message}))

    def write_error(self, status_code: int, **_: Any) -> None:
        self.refuse(status_code, self._reason)

    def on_connection_close(self) -> None:
        if self.work:
            self.work.cancel()
            self.work = None


class _LoopErrors:
    """Takes the errors of an event loop: that no file descriptor is left is one line, however often it is so."""

    def __init__(self) -> None:
        self.told = False

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if getattr(context.get("exception"), "errno", None) not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
            return
        if not self.told:
            logger.warning("mandeldask: no file descriptor is left (ulimit -n): connections wait until others end")
        self.told = True
        time.sleep(FULL_SECONDS)  # the socket stays readable: without a pause this would take a core


def explore(
    scene: Scene,
    cluster: configs.Cluster | None = None,
    *,
    port: int = 0,
    trust: bool = False,
    upload: bool = False,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the explorer on loopback until it is interrupted. ConfigError where the port cannot be used; 0 is any.

    The cluster computes live tiles; by default it is the one that the scene's run description names, where that is to
    `trust` (see `run`), else as for a run.
    Worker processes on this machine are started at once; another cluster where the scene has no complete store, or else
    with the first live tile. `ready` is told the link.
    """
    named = scene.config.cluster if scene.config else None
    if not (cluster or trust):
        configs.refuse_untrusted(named)
    described = clusters.resolve(cluster or named)
    if size := clusters.size_of(described):
        check_memory(LIVE_FIELDS, (SIDE, SIDE), size)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(scene, LiveTiles(described, scene.kernel, upload), port, ready, asyncio.Event()))


async def serve(scene: Scene, live: LiveTiles, port: int, ready: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve in the running event loop until `stop` is set."""
    try:
        sockets = bind_sockets(port, LOOPBACK)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on port {port}: {reason}. Leave --port out for a free one") from None
    asyncio.get_running_loop().set_exception_handler(_LoopErrors())
    port = sockets[0].getsockname()[1]
    explorer = _Explorer(scene, live)
    server = HTTPServer(
        explorer.application(port), max_body_size=MAX_BODY, max_header_size=2**14, idle_connection_timeout=600
    )
    server.add_sockets(sockets)
    try:
        done, tiles = await asyncio.to_thread(scene.tiles)
        if done < tiles or not tiles or isinstance(live.cluster, configs.LocalCluster):
            live.start()
        ready(f"http://{LOOPBACK}:{port}/")
        await stop.wait()
    finally:
        server.stop()
        explorer.rendering.cancel()
        await live.close()
