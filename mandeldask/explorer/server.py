"""The explorer's server: the page and its tiles, on loopback, for pages of its own and no others."""

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
from mandeldask.explorer.live import BusyError, Live, Request
from mandeldask.explorer.render import Rendering
from mandeldask.explorer.scene import Scene
from mandeldask.explorer.tiles import MAX_ITER, Address, Packed, What, stored

LOOPBACK = "127.0.0.1"
MAX_READS = 128  # stored tiles that wait to be read
LOOK_SECONDS = 3.0  # between two looks at which tiles of a store are done
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


class Shown:
    """What the handlers share: the scene, the live tiles, the rendering, and what was last seen of the store."""

    def __init__(self, scene: Scene, live: Live) -> None:
        self.scene, self.live, self.rendering = scene, live, Rendering(scene, live)
        self.readers = ThreadPoolExecutor(2, "mandeldask-read")
        self.reading = 0
        self.done = self.tiles = 0
        self.problem = ""
        self._looked = 0.0

    async def read(self, level: int, row: int, column: int, what: What) -> Packed:
        """A tile of the store; StoreError where it is gone, BusyError where too many are asked for."""
        store = self.scene.store
        if store is None:
            raise ConfigError("no store is shown")
        if self.reading >= MAX_READS:
            raise BusyError(f"{MAX_READS} stored tiles are being read already; ask again later")
        self.reading += 1
        try:
            await self._in_thread(self._check)
            packed: Packed = await self._in_thread(stored, store, level, row, column, what)
            return packed
        finally:
            self.reading -= 1

    async def look(self) -> None:
        """Count the store's tiles, now and then."""
        if self.scene.store is None or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
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
    """Answers pages of this server alone, and tells what is wrong as JSON."""

    shown: Shown
    hosts: frozenset[str]
    work: asyncio.Task[Packed] | None = None
    gone = False

    def initialize(self, shown: Shown, hosts: frozenset[str]) -> None:
        self.shown, self.hosts = shown, hosts

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse what another site's page asks for, by a name that leads here (DNS rebinding) or straight."""
        origin, site = self.request.headers.get("Origin"), self.request.headers.get("Sec-Fetch-Site", "none")
        if self.request.host.lower() not in self.hosts:
            self.refuse(421, f"this server answers as {' or '.join(sorted(self.hosts))}, not as {self.request.host}")
            return
        foreign = (origin and urlsplit(origin).netloc.lower() not in self.hosts) or site not in ("same-origin", "none")
        if foreign and self.request.path != "/":  # a link from elsewhere may lead to the page
            self.refuse(403, "this server answers its own page alone")

    def refuse(self, status: int, words: str) -> None:
        """End with a message."""
        if self._finished:
            return
        self.set_status(status)
        if status == 503:
            self.set_header("Retry-After", "1")
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": words}))

    def write_error(self, status_code: int, **_: Any) -> None:
        self.refuse(status_code, self._reason)

    def on_connection_close(self) -> None:
        """The page has gone on: what it waited for is no longer wanted."""
        self.gone = True
        if self.work is not None:
            self.work.cancel()

    async def send(self, tile: Awaitable[Packed]) -> None:
        """Answer with a tile, unless nobody waits for it any more."""
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

    def what(self) -> What:
        return "fraction" if self.get_query_argument("what", "counts") == "fraction" else "counts"


class Page(Handler):
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
        self.finish(self.shown.scene.to_json())


class State(Handler):
    """What changes: the cluster, the store, the rendering."""

    async def get(self) -> None:
        shown, live = self.shown, self.shown.live
        threads = await live.threads()
        await shown.look()
        self.finish(
            {
                "cluster": {"state": live.state, "words": live.words, "threads": threads},
                "store": {"done": shown.done, "tiles": shown.tiles, "problem": shown.problem},
                "tiles": {"computed": live.computed, "cancelled": live.cancelled, "waiting": live.waiting},
                "rendering": shown.rendering.to_json(),
            }
        )


class Start(Handler):
    """Start the cluster, or start it again."""

    def post(self) -> None:
        self.shown.live.start()
        self.finish({})


class StoredTile(Handler):
    async def get(self, level: str, row: str, column: str) -> None:
        await self.send(self.shown.read(int(level), int(row), int(column), self.what()))


class LiveTile(Handler):
    async def get(self, level: str, column: str, row: str) -> None:
        try:
            address = Address(int(level), int(column), int(row))
            max_iter = _max_iter(self.get_query_argument("max_iter", "1000"))
            _ = address.view
        except ConfigError as error:
            self.refuse(400, str(error))
            return
        await self.send(self.shown.live.tile(Request(address, max_iter, self.what())))


class Render(Handler):
    """Make a store of a view: a job on the cluster that the tiles come from."""

    def post(self) -> None:
        if self.request.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            self.refuse(415, "a view to render comes as application/json")
            return
        try:
            wanted = json.loads(self.request.body)
            self.shown.rendering.start(wanted["description"], wanted["name"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self.refuse(400, f"no view to render: {error}")
        except MandeldaskError as error:
            self.refuse(STATUS.get(type(error), 400), str(error))
        else:
            self.finish(self.shown.rendering.to_json())

    def delete(self) -> None:
        self.shown.rendering.cancel()
        self.finish({})


class Nothing(Handler):
    def get(self, *_: str) -> None:
        self.refuse(404, "no such page")


def _max_iter(text: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", text) or not 1 <= int(text) <= MAX_ITER:
        raise ConfigError(f"max_iter of live tiles is a whole number from 1 to {MAX_ITER}; got {text[:40]!r}")
    return int(text)


def listen(shown: Shown, port: int) -> tuple[HTTPServer, int]:
    """Serve on loopback; port 0 takes a free one. Gives the port.

    Raises
    ------
    ConfigError
        The port is taken, or not to be had.
    """
    try:
        sockets = bind_sockets(port, LOOPBACK)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on port {port}: {reason}. Leave --port out for a free one") from None
    port = sockets[0].getsockname()[1]
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    common = {"shown": shown, "hosts": frozenset({f"{LOOPBACK}:{port}", f"localhost:{port}"})}
    number = r"(-?[0-9]{1,400})"
    routes = [
        (r"/", Page),
        (r"/([a-z]+\.(?:js|css|svg))", Page),
        (r"/scene", SceneHandler),
        (r"/state", State),
        (r"/start", Start),
        (r"/render", Render),
        (r"/stored/([0-9]{1,3})/([0-9]{1,10})/([0-9]{1,10})", StoredTile),
        (rf"/live/(-?[0-9]{{1,5}})/{number}/{number}", LiveTile),
        (r"/.*", Nothing),
    ]
    application = Application([(path, handler, common) for path, handler in routes])
    server = HTTPServer(application, max_body_size=MAX_BODY, max_header_size=2**14, idle_connection_timeout=600)
    server.add_sockets(sockets)
    return server, port
