"""An explorer's server, in a thread or as the command, and what a page would ask it for."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from distributed import Event
from services import ENV, poll

from mandeldask.config import load_cluster
from mandeldask.explorer import serve
from mandeldask.explorer.live import LiveTiles

DEADLINE = 180  # seconds; a live tile waits for numba's compiler, on a machine that may be busy
PLACE = [  # a benchmark of Kalles Fraktaler, 5e113, to 100 decimals
    "-1.4798157761324732607229845259787785469224072577404536968987851013986492074100229382025051732928201122",
    "-0.0006391119326136172715213963225567157295730391894398473604739493647122095196181332192857306703646615",
]


class Asked:
    """What can be asked of the server at `link`."""

    link = ""

    @property
    def port(self):
        return int(self.link.rstrip("/").rpartition(":")[2])

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)

    def ask(self, path, method="GET", body=None, **headers):
        """Send a request; the connection, to read from or to close."""
        connection = self.connect()
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return connection

    def get(self, path, method="GET", body=None, **headers):
        """Status, headers, body."""
        connection = self.ask(path, method, body, **headers)
        try:
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def error(self, path, **options):
        """Status and message of a request that is refused."""
        status, headers, body = self.get(path, **options)
        assert headers["Content-Type"] == "application/json"
        return status, json.loads(body)["error"]

    def state(self):
        return json.loads(self.get("/state")[2])

    def tile(self, path):
        """A tile's samples, the lowest y first."""
        return self.both(path)[0]

    def both(self, path):
        """A tile's samples, and their fractions; None where there are none."""
        status, headers, body = self.get(path)
        assert status == 200, body
        return read_tile(headers, body)


class Served(Asked):
    """A server in a thread of this process, for as long as the context lasts.

    with Served(open_scene(store), address) as explorer:
        explorer.tile("/stored/0/0/0")       # an array
        explorer.get("/live/0/0/0")          # status, headers, body
    """

    def __init__(self, scene, cluster, kernel="numpy"):
        self.scene, self.cluster, self.kernel = scene, load_cluster(cluster), kernel
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self):
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        self.live = LiveTiles(self.cluster, self.kernel)
        await serve(self.scene, self.live, 0, self._ready, self.stop)

    def _ready(self, link):
        self.link = link

    def __enter__(self):
        self.thread.start()
        poll(lambda: self.link, "the link", DEADLINE)
        return self

    def __exit__(self, *error):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()


class Explorer(Asked):
    """`mandeldask explore` as a process of its own, for as long as the context lasts."""

    def __init__(self, what, folder, *words):
        self.log = Path(folder) / f"explore-{Path(what).name}.log"
        command = [sys.executable, "-m", "mandeldask", "explore", str(what), "--no-browser", *map(str, words)]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, env=ENV, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def __enter__(self):
        try:
            self.link = poll(self._link, "the link", DEADLINE)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error):
        self.close()

    def _link(self):
        text = self.log.read_text(errors="replace")
        assert self.process.poll() is None, text
        return next((word for word in text.split() if word.startswith("http://")), None)

    def close(self):
        """End it in order; by force where it does not."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def read_tile(headers, body):
    kind, rows, columns, what, *_ = headers["Tile"].split()
    shape = int(rows), int(columns)
    if headers["Content-Encoding"] == "deflate":
        body = zlib.decompress(body)
    counts = np.frombuffer(body, np.dtype(kind).newbyteorder("<"), np.prod(shape)).reshape(shape)
    rest = np.frombuffer(body, "<u2" if what == "smooth" else "u1", offset=counts.nbytes)
    return counts, rest.reshape(shape) if what == "smooth" else None


@contextmanager
def workers_held(client):
    """Every thread of a cluster waits while the context lasts."""
    event = Event("held", client=client)
    event.clear()
    workers = list(client.nthreads())
    tasks = [client.submit(hold, pure=False, workers=[worker], priority=100) for worker in workers]
    try:
        poll(lambda: sum(len(keys) for keys in client.processing().values()) >= len(workers), "the workers' wait")
        yield
    finally:
        event.set()
        client.gather(tasks)


def hold():
    """Runs on a worker: keep it busy until the event."""
    Event("held").wait(DEADLINE)


def waiting_tiles(client):
    """The keys of the live tiles that the scheduler knows."""
    return client.run_on_scheduler(_tiles)


def _tiles(dask_scheduler=None):
    return {key for key in dask_scheduler.tasks if str(key).startswith("explorer-tile")}
