"""The explorer's server: the page and its tiles, on loopback, for its own page and no other."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from mandeldask.errors import ClusterError, ConfigError, MandeldaskError, StoreError
from mandeldask.explorer.live import LiveTiles, TileRequest
from mandeldask.explorer.render import Rendering
from mandeldask.explorer.scene import Scene
from mandeldask.explorer.tiles import MAX_ITER, Address, PackedTile, stored_tile

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
STATUS = {ClusterError: 503, ConfigError: 400, StoreError: 409}


class Explorer:
    """What the page asks for: the scene, its tiles, stored and live, and the rendering."""

    def __init__(self, scene: Scene, live: LiveTiles) -> None:
        self.scene, self.live, self.rendering = scene, live, Rendering(scene, live)
        self.done = self.tiles = 0
        self.problem = ""
        self._refreshed = 0.0

    async def page(self, handler: Handler, name: str = "index.html") -> bytes:
        """A file of the page."""
        file = files("mandeldask.explorer") / "page" / name
        if not file.is_file():
            raise HTTPError(404, reason="no such page")
        handler.set_header("Content-Type", f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8")
        return file.read_bytes()

    async def show(self, _: Handler) -> dict[str, Any]:
        """The scene."""
        return self.scene.to_json()

    async def state(self, _: Handler) -> dict[str, Any]:
        """What changes: the cluster, the store, the rendering."""
        live = self.live
        threads = await live.threads()
        if self.scene.store and time.monotonic() - self._refreshed >= REFRESH_SECONDS:
            await self._refresh()
        return {
            "cluster": {"state": live.state, "words": live.message, "threads": threads},
            "store": {"done": self.done, "tiles": self.tiles, "problem": self.problem},
            "tiles": {"computed": live.computed, "cancelled": live.cancelled, "waiting": live.waiting},
            "rendering": self.rendering.to_json(),
        }

    async def start(self, _: Handler) -> dict[str, Any]:
        """Start the cluster, or start it again."""
        self.live.start()
        return {}

    async def stored(self, handler: Handler, level: str, row: str, column: str) -> PackedTile:
        """A tile of the store; StoreError where that is gone."""
        store = self.scene.store
        if store is None:
            raise ConfigError("no store is shown")
        await asyncio.to_thread(self._check)
        return await asyncio.to_thread(stored_tile, store, int(level), int(row), int(column), handler.content)

    async def computed(self, handler: Handler, level: str, column: str, row: str) -> PackedTile:
        """A live tile."""
        address = Address(int(level), int(column), int(row))
        text = handler.get_query_argument("max_iter", "1000")
        max_iter = int(text) if re.fullmatch("[0-9]{1,12}", text) else 0
        if not 1 <= max_iter <= MAX_ITER:
            raise ConfigError(f"max_iter of live tiles is a whole number from 1 to {MAX_ITER}; got {text[:40]!r}")
        address.view  # noqa: B018 (refuses what binary64 cannot resolve)
        return await self.live.tile(TileRequest(address, max_iter, handler.content))

    async def render(self, handler: Handler) -> dict[str, Any]:
        """Make a store of a view: a job on the cluster that computes the live tiles."""
        if handler.request.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            raise HTTPError(415, reason="a view to render comes as application/json")
        try:
            wanted = json.loads(handler.request.body)
            self.rendering.start(wanted["description"], wanted["name"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"no view to render: {error}") from None
        return self.rendering.to_json()

    async def cancel(self, _: Handler) -> dict[str, Any]:
        """Stop the rendering."""
        self.rendering.cancel()
        return {}

    async def missing(self, _: Handler) -> None:
        """Whatever else is asked for."""
        raise HTTPError(404, reason="no such page")

    async def _refresh(self) -> None:
        """Count the store's tiles."""
        self._refreshed = time.monotonic()
        try:
            await asyncio.to_thread(self._check)
            if not self.tiles or self.done < self.tiles:
                self.done, self.tiles = await asyncio.to_thread(self.scene.tiles)
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

    def routes(self) -> list[tuple[str, dict[str, Action]]]:
        """What answers which path and method."""
        number = r"(-?[0-9]{1,400})"
        return [
            (r"/", {"GET": self.page}),
            (r"/([a-z]+\.(?:js|css|svg))", {"GET": self.page}),
            (r"/scene", {"GET": self.show}),
            (r"/state", {"GET": self.state}),
            (r"/start", {"POST": self.start}),
            (r"/render", {"POST": self.render, "DELETE": self.cancel}),
            (r"/stored/([0-9]{1,3})/([0-9]{1,10})/([0-9]{1,10})", {"GET": self.stored}),
            (rf"/live/(-?[0-9]{{1,5}})/{number}/{number}", {"GET": self.computed}),
            (r"/.*", {"GET": self.missing}),
        ]


class Handler(RequestHandler):  # type: ignore[misc]
    """Answers only the page of this server; errors are JSON."""

    def initialize(self, actions: Mapping[str, Action], hosts: frozenset[str]) -> None:
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
        """Answer with a tile, JSON or a file."""
        if isinstance(found, PackedTile):
            self.set_header("Content-Type", "application/octet-stream")
            self.set_header("Tile", f"{found.kind} {found.shape[0]} {found.shape[1]}")
            if found.deflated:
                self.set_header("Content-Encoding", "deflate")
            found = found.data
        self.finish(found)

    def refuse(self, status: int, message: str) -> None:
        """Answer with an error."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": message}))

    def write_error(self, status_code: int, **_: Any) -> None:
        self.refuse(status_code, self._reason)

    def on_connection_close(self) -> None:
        if self.work:
            self.work.cancel()
            self.work = None

    @property
    def content(self) -> Any:
        """Which bytes of a tile are asked for."""
        return "fraction" if self.get_query_argument("what", "counts") == "fraction" else "counts"


Action = Callable[..., Awaitable[Any]]


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
    hosts = frozenset({f"{LOOPBACK}:{port}", f"localhost:{port}"})
    routes = [(path, Handler, {"actions": actions, "hosts": hosts}) for path, actions in explorer.routes()]
    server = HTTPServer(Application(routes), max_body_size=MAX_BODY, max_header_size=2**14, idle_connection_timeout=600)
    server.add_sockets(sockets)
    return server, port
