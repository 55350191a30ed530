"""Render a view: a job that makes a store of it, on the cluster that computes the live tiles."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import Any

from mandeldask import config as configs
from mandeldask import job
from mandeldask.errors import ConfigError, MandeldaskError
from mandeldask.explorer.live import LiveTiles
from mandeldask.explorer.scene import Scene
from mandeldask.text import short_path

MAX_SAMPLES = 2**34  # 17 gigasamples: a slip of the pointer must not fill a disk
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}"


class Rendering:
    """The job that renders a view, one at a time. Its `state` is none, running, done or failed."""

    def __init__(self, scene: Scene, live: LiveTiles) -> None:
        beside = scene.store.path if scene.store else scene.config.store if scene.config and scene.config.store else ""
        self.folder = Path(beside).parent if beside and "://" not in beside else Path.cwd()
        self.live = live
        self.state, self.message, self.store = "none", "", ""
        self.done = self.tiles = 0
        self._task: asyncio.Task[None] | None = None
        self._stop = threading.Event()

    def start(self, description: Any, name: str) -> None:
        """Begin; `description` is a run description without a store, `name` the store's.

        Raises
        ------
        ConfigError
            One runs already; the description has a fault, or the view is too large; the name is not a store's.
        """
        if self.state == "running":
            raise ConfigError("a view is being rendered already; wait for its end")
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            raise ConfigError(f"a store's name has letters, digits, dots and dashes, no more; got {str(name)[:80]!r}")
        store = self.folder / (name if name.endswith(".zarr") else f"{name}.zarr")
        config = configs.parse(description, "the view").model_copy(update={"store": str(store), "cluster": None})
        if config.view.size > MAX_SAMPLES:
            raise ConfigError(f"a view is rendered from here up to {MAX_SAMPLES} samples; got {config.view.size}")
        self.state, self.message, self.store, self.done, self.tiles = "running", "waiting for workers", str(store), 0, 0
        self._stop = threading.Event()
        self._task = asyncio.create_task(self._run(config))

    async def _run(self, config: configs.Config) -> None:
        try:
            client = await self.live.connected()
            summary = await asyncio.to_thread(job.run, config, client=client, tell=self._tell)
        except _StoppedError:
            self.state, self.message = "failed", f"stopped; what is done is in {short_path(self.store)}"
        except (MandeldaskError, OSError) as error:
            self.state, self.message = "failed", str(error)
        except Exception as error:
            self.state, self.message = "failed", repr(error)
            raise
        else:
            self.state = "failed" if summary.failed else "done"
            self.message = (
                f"{summary.failed} tiles failed" if summary.failed else f"mandeldask explore {short_path(self.store)}"
            )

    def _tell(self, event: job.Event) -> None:
        """Runs in the job's thread. Progress comes in another thread, which a stop must not end with a traceback."""
        if isinstance(event, job.Progress):
            return
        if self._stop.is_set():
            raise _StoppedError
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


class _StoppedError(Exception):
    pass
