"""The explorer's server: the page and its tiles, on loopback, for its own page and no other."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from mandeldask.errors import ClusterError, ConfigError, MandeldaskError, StoreError
from mandeldask.explorer.live import BusyError, LiveTiles, TileRequest
from mandeldask.explorer.render import Rendering
from mandeldask.explorer.scene import Scene
from mandeldask.explorer.tiles import MAX_ITER, Address, Content, PackedTile, stored_tile

LOOPBACK = "127.0.0.1"
MAX_READS = 128  # stored tiles that wait to be read
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
STATUS = {BusyError: 503, ClusterError: 503, ConfigError: 400, StoreError: 409}


class Explorer:
    """What the handlers share: the scene, the live tiles, the rendering, and what was last seen of the store."""

    def __init__(self, scene: Scene, live: LiveTiles) -> None:
        self.scene, self.live, self.rendering = scene, live, Rendering(scene, live)
        self.readers = ThreadPoolExecutor(2, "mandeldask-read")
        self.reading = 0
        self.done = self.tiles = 0
        self.problem = ""
        self._refreshed = 0.0

    async def read(self, level: int, row: int, column: int, content: Content) -> PackedTile:
        """A tile of the store; StoreError where it is gone, BusyError where too many are asked for."""
        store = self.scene.store
        if store is None:
            raise ConfigError("no store is shown")
        if self.reading >= MAX_READS:
            raise BusyError(f"{MAX_READS} stored tiles are being read already; ask again later")
        self.reading += 1
        try:
            await self._in_thread(self._check)
            packed: PackedTile = await self._in_thread(stored_tile, store, level, row, column, content)
            return packed
        finally:
            self.reading -= 1

    async def refresh(self) -> None:
        """Count the store's tiles, now and then."""
        if self.scene.store is None or time.monotonic() - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = time.monotonic()
        try:
            await self._in_thread(self._check)
            if not self.tiles or self.done < self.tiles:
                self.done, self.tiles = await self._in_thread(self.scene.tiles)
            self.problem = ""
        except (MandeldaskError, OSError) as error:
            self.problem = str(error)

    def _check(self) -> None:
        store = self.scene.store
        assert store is not None
        try:
            store.check_identity()
        except (StoreError, OSError):
            raise StoreError(f"{store.path} is gone, or another by now: open it anew") from None

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.readers, function, *arguments)


class Handler(RequestHandler):  # type: ignore[misc]
    """Answers only the page of this server; errors are JSON."""

    explorer: Explorer
    hosts: frozenset[str]
    work: asyncio.Task[PackedTile] | None = None
    gone = False

    def initialize(self, explorer: Explorer, hosts: frozenset[str]) -> None:
        self.explorer, self.hosts = explorer, hosts

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse requests of other sites' pages, direct ones and those by a name that leads here (DNS rebinding)."""
        origin, site = self.request.headers.get("Origin"), self.request.headers.get("Sec-Fetch-Site", "none")
        if self.request.host.lower() not in self.hosts:
            self.refuse(421, f"this server answers as {' or '.join(sorted(self.hosts))}, not as {self.request.host}")
            return
        foreign = (origin and urlsplit(origin).netloc.lower() not in self.hosts) or site not in ("same-origin", "none")
        if foreign and self.request.path != "/":  # a link from elsewhere may lead to the page
            self.refuse(403, "this server answers its own page alone")

    def refuse(self, status: int, message: str) -> None:
        """End with a message."""
        if self._finished:
            return
        self.set_status(status)
        if status == 503:
            self.set_header("Retry-After", "1")
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": message}))

    def write_error(self, status_code: int, **_: Any) -> None:
        self.refuse(status_code, self._reason)

    def on_connection_close(self) -> None:
        """The page aborted the request: its tile is no longer wanted."""
        self.gone = True
        if self.work is not None:
            self.work.cancel()

    async def send(self, tile: Awaitable[PackedTile]) -> None:
        """Answer with a tile, unless the page has aborted the request."""
        self.work = asyncio.ensure_future(tile)
        try:
            packed = await self.work
        except asyncio.CancelledError:
            if not self.gone:
                self.refuse(503, "the tile was cancelled; ask again")
            return
        except (MandeldaskError, OSError) as error:
            status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
            self.refuse(status, str(error))
            return
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Tile", f"{packed.kind} {packed.shape[0]} {packed.shape[1]}")
        if packed.deflated:
            self.set_header("Content-Encoding", "deflate")
        self.finish(packed.data)

    def content(self) -> Content:
        return "fraction" if self.get_query_argument("what", "counts") == "fraction" else "counts"


class PageHandler(Handler):
    """The page and its parts, by their names in the package."""

    def get(self, name: str = "") -> None:
        name = name or "index.html"
        file = files("mandeldask.explorer") / "page" / name
        if not file.is_file():
            raise HTTPError(404)
        self.set_header("Content-Type", f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8")
        self.finish(file.read_bytes())


class SceneHandler(Handler):
    def get(self) -> None:
        self.finish(self.explorer.scene.to_json())


class StateHandler(Handler):
    """What changes: the cluster, the store, the rendering."""

    async def get(self) -> None:
        explorer, live = self.explorer, self.explorer.live
        threads = await live.threads()
        await explorer.refresh()
        self.finish(
            {
                "cluster": {"state": live.state, "words": live.message, "threads": threads},
                "store": {"done": explorer.done, "tiles": explorer.tiles, "problem": explorer.problem},
                "tiles": {"computed": live.computed, "cancelled": live.cancelled, "waiting": live.waiting},
                "rendering": explorer.rendering.to_json(),
            }
        )


class StartHandler(Handler):
    """Start the cluster, or start it again."""

    def post(self) -> None:
        self.explorer.live.start()
        self.finish({})


class StoredTileHandler(Handler):
    async def get(self, level: str, row: str, column: str) -> None:
        await self.send(self.explorer.read(int(level), int(row), int(column), self.content()))


class LiveTileHandler(Handler):
    async def get(self, level: str, column: str, row: str) -> None:
        try:
            address = Address(int(level), int(column), int(row))
            max_iter = _max_iter(self.get_query_argument("max_iter", "1000"))
            _ = address.view
        except ConfigError as error:
            self.refuse(400, str(error))
            return
        await self.send(self.explorer.live.tile(TileRequest(address, max_iter, self.content())))


class RenderHandler(Handler):
    """Make a store of a view: a job on the cluster that computes the live tiles."""

    def post(self) -> None:
        if self.request.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            self.refuse(415, "a view to render comes as application/json")
            return
        try:
            wanted = json.loads(self.request.body)
            self.explorer.rendering.start(wanted["description"], wanted["name"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self.refuse(400, f"no view to render: {error}")
        except MandeldaskError as error:
            self.refuse(STATUS.get(type(error), 400), str(error))
        else:
            self.finish(self.explorer.rendering.to_json())

    def delete(self) -> None:
        self.explorer.rendering.cancel()
        self.finish({})


class NotFoundHandler(Handler):
    def get(self, *_: str) -> None:
        self.refuse(404, "no such page")


def _max_iter(text: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", text) or not 1 <= int(text) <= MAX_ITER:
        raise ConfigError(f"max_iter of live tiles is a whole number from 1 to {MAX_ITER}; got {text[:40]!r}")
    return int(text)


def listen(explorer: Explorer, port: int) -> tuple[HTTPServer, int]:
    """Serve on loopback; port 0 takes a free one. Gives the port.

    Raises
    ------
    ConfigError
        The port is taken, or may not be used.
    """
    try:
        sockets = bind_sockets(port, LOOPBACK)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on port {port}: {reason}. Leave --port out for a free one") from None
    port = sockets[0].getsockname()[1]
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    common = {"explorer": explorer, "hosts": frozenset({f"{LOOPBACK}:{port}", f"localhost:{port}"})}
    number = r"(-?[0-9]{1,400})"
    routes = [
        (r"/", PageHandler),
        (r"/([a-z]+\.(?:js|css|svg))", PageHandler),
        (r"/scene", SceneHandler),
        (r"/state", StateHandler),
        (r"/start", StartHandler),
        (r"/render", RenderHandler),
        (r"/stored/([0-9]{1,3})/([0-9]{1,10})/([0-9]{1,10})", StoredTileHandler),
        (rf"/live/(-?[0-9]{{1,5}})/{number}/{number}", LiveTileHandler),
        (r"/.*", NotFoundHandler),
    ]
    application = Application([(path, handler, common) for path, handler in routes])
    server = HTTPServer(application, max_body_size=MAX_BODY, max_header_size=2**14, idle_connection_timeout=600)
    server.add_sockets(sockets)
    return server, port
