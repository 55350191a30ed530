"""A page in the Dask dashboard that shows the picture as it forms: `install`, or `dask scheduler --preload` this room.

A plugin on the scheduler takes in what workers and drivers tell (`mandeldask.telemetry`); `page` shows it; `hooks` is
the one place that touches what Dask does not document. `running` finds the dashboards that processes `announce`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from distributed import Client, Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from numpy.typing import NDArray

from mandeldask.dashboard import hooks
from mandeldask.dashboard.hooks import SWITCHED_OFF
from mandeldask.dashboard.state import JobState
from mandeldask.telemetry import TOPIC, DriverEvent, TileEvent, parse_event, parse_key

__all__ = [
    "SWITCHED_OFF",
    "Plugin",
    "announce",
    "install",
    "page_of",
    "picture_of",
    "problem_with",
    "running",
    "ssh_tunnel",
]

PAGE = "mandeldask"
MAX_JOBS = 20  # shown; the oldest are forgotten
TIMEOUT_SECONDS = 5.0  # of a page that is fetched
logger = logging.getLogger(__name__)


class Plugin(SchedulerPlugin):  # type: ignore[misc]  # distributed is taken as untyped
    """Keeps what is told of jobs, and mounts the page; `problem` says why there is no page, if so."""

    name = PAGE
    idempotent = True

    def __init__(self) -> None:
        self.jobs: dict[str, JobState] = {}  # the one whose latest run was heard of last at the end
        self.problem = ""
        self._warned = False

    async def start(self, scheduler: Scheduler) -> None:
        """Take what was told before, and mount the page; a page that cannot be is one warning."""
        for _, event in scheduler.get_events(TOPIC):
            self.log_event(TOPIC, event)
        try:
            from mandeldask.dashboard.page import page_document  # needs Bokeh, which not every scheduler has

            self.problem = hooks.mount(scheduler, PAGE, page_document)
        except ImportError as error:
            self.problem = f"the scheduler has no Bokeh that its dashboard can use ({error})"
        if self.problem:
            logger.warning("no page %s: %s", PAGE, self.problem)

    def log_event(self, topic: str, msg: object) -> None:
        """Dask calls this for each event of each topic. One that is none of ours costs one warning in all."""
        if topic != TOPIC:
            return
        try:
            self._take(parse_event(msg))
        except Exception as error:
            if not self._warned:
                logger.warning("an event that is not one of mandeldask's was dropped, and others will be: %r", error)
            self._warned = True

    def transition(self, key: object, start: str, finish: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 (Dask's)
        """Dask calls this for each change of a task's state."""
        if finish in ("memory", "erred") and (found := parse_key(key)) and found[0] in self.jobs:
            self.jobs[found[0]].take_state(found[2], finish == "memory")

    def _take(self, event: TileEvent | DriverEvent) -> None:
        """Enter an event. A tile of a job that no driver has told of is passed over."""
        if isinstance(event, TileEvent):
            if event.job in self.jobs:
                self.jobs[event.job].take_tile(event)
            return
        hooks.forget_keys()  # about once a second
        job = self.jobs.get(event.job.id)
        if job is None or job.grid != event.job.preview:
            job = JobState(event.job)
        run = job.job.run
        job.take_driver(event)
        if job.job.run != run:
            del self.jobs[event.job.id]
        self.jobs[event.job.id] = job
        if len(self.jobs) > MAX_JOBS:
            del self.jobs[next((key for key, other in self.jobs.items() if other.ended), next(iter(self.jobs)))]


async def dask_setup(scheduler: object) -> None:
    """For `dask scheduler --preload mandeldask.dashboard`."""
    if isinstance(scheduler, Scheduler):
        await scheduler.register_scheduler_plugin(Plugin(), idempotent=True)


def install(client: Client) -> str:
    """Put the page on the client's scheduler, unless it is there; gives why there is none, or "".

    The scheduler must be able to import mandeldask. Nothing is raised: a run can do without.
    """
    return page_of(client)[1]


def picture_of(job: str, stamp: int, dask_scheduler: Scheduler = None) -> tuple[int, NDArray[Any], int] | None:
    """On the scheduler: the picture of a job as far as it is there, its stamp, escape times and max_iter.

    None where there is none, or no other than that of `stamp`.
    """
    state = getattr(dask_scheduler.plugins.get(PAGE), "jobs", {}).get(job)
    if state is None or state.stamp == stamp:
        return None
    return state.stamp, state.preview.astype(state.grid.sample_type), state.grid.max_iter


def _problem(dask_scheduler: Scheduler) -> str:
    return str(dask_scheduler.plugins[PAGE].problem)


def page_of(client: Client, add: bool = True) -> tuple[str, str]:
    """The link of the page, and ""; unless it is not to be added, it is installed where it is missing.

    Where there is none, Dask's own link and why; where the dashboard is switched off, "" and that.
    """
    try:
        if add:
            client.register_plugin(Plugin())
        problem = str(client.run_on_scheduler(_problem))
    except Exception as error:
        problem = f"the scheduler cannot load mandeldask.dashboard ({type(error).__name__}: {error})"
    if problem == SWITCHED_OFF:
        return "", problem
    link = str(client.dashboard_link)
    return link if problem else f"{link.removesuffix('/status')}/{PAGE}", problem


def announce(link: str, store: str, pid: int) -> None:
    """Let `running` find the dashboard of a process while it lives. Costs nothing where it cannot be written."""
    with suppress(OSError):
        _folder().mkdir(parents=True, exist_ok=True)
        (_folder() / str(pid)).write_text(json.dumps([link, store]))


def running() -> list[tuple[str, str]]:
    """The dashboards of this user on this machine: links and stores, the latest first."""
    found = []
    with suppress(OSError):
        for path in list(_folder().iterdir()):
            written = path.stat().st_mtime
            try:
                lives = psutil.Process(int(path.name)).create_time() <= written  # else it has another's number
            except (ValueError, psutil.Error):
                lives = False
            if not lives:
                path.unlink()
                continue
            with suppress(ValueError):  # it is being written
                link, store = json.loads(path.read_text())
                found.append((written, link, store))
    return [(link, store) for _, link, store in sorted(found, reverse=True)]


def _folder() -> Path:
    """The folder of this machine: a home may be shared by several."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "mandeldask", "dashboards", socket.gethostname())


def problem_with(link: str) -> str:
    """Fetch a page; gives what is wrong, or "" where it is there."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a cluster is not behind the proxy
    try:
        with direct.open(link, timeout=TIMEOUT_SECONDS):
            return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return str(getattr(reason, "strerror", None) or reason)


def ssh_tunnel(link: str) -> tuple[str, str] | None:
    """The ssh command to type on one's own machine, and the link that then works there; None where none is needed."""
    parts = urlsplit(link)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    here = host in ("localhost", "127.0.0.1", "::1", socket.gethostname())
    by_ssh = os.environ.get("SSH_CONNECTION", "").split()
    if here and len(by_ssh) != 4:
        return None
    login = by_ssh[2] if here else host
    target = f"[{host}]" if ":" in host else host
    return f"ssh -N -L {port}:{target}:{port} {login}", f"{parts.scheme}://localhost:{port}{parts.path}"
