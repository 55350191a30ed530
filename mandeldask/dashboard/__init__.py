"""A page in the Dask dashboard that shows the picture as it forms: `install`, or `dask scheduler --preload` this room.

A plugin on the scheduler takes in what workers and drivers tell (`mandeldask.telemetry`); `page` shows it; `hooks` is
the one place that touches what Dask does not document.
"""

from __future__ import annotations

import logging
from typing import Any

from distributed import Client, Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from mandeldask.dashboard import hooks
from mandeldask.dashboard.hooks import SWITCHED_OFF
from mandeldask.dashboard.state import JobState
from mandeldask.telemetry import TOPIC, DriverEvent, Tile, TileEvent, job_and_tile, read

__all__ = ["PAGE", "SWITCHED_OFF", "Plugin", "install", "link"]

PAGE = "mandeldask"
MAX_JOBS = 20  # shown; the oldest are forgotten
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
            self._take(read(msg))
        except Exception as error:
            if not self._warned:
                logger.warning("an event that is not one of mandeldask's was dropped, and others will be: %r", error)
            self._warned = True

    def transition(self, key: object, start: str, finish: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 (Dask's)
        """Dask calls this for each change of a task's state."""
        if finish in ("memory", "erred") and (found := job_and_tile(key)) and found[0] in self.jobs:
            self.jobs[found[0]].take_state(found[2], finish == "memory")

    def previews_wanted(self, job: str) -> list[Tile]:
        """Some of the finished tiles of a job whose samples are not in its preview."""
        return self.jobs[job].previews_wanted() if job in self.jobs else []

    def _take(self, event: TileEvent | DriverEvent) -> None:
        """Enter an event. A tile of a job that no driver has told of is passed over."""
        if isinstance(event, TileEvent):
            if event.job in self.jobs:
                self.jobs[event.job].take_tile(event)
            return
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
    try:
        client.register_plugin(Plugin())
        return str(client.run_on_scheduler(_problem))
    except Exception as error:
        return f"the scheduler cannot load mandeldask.dashboard ({type(error).__name__}: {error})"


def link(client: Client) -> str:
    """The address of the page on the client's scheduler."""
    return str(client.dashboard_link).removesuffix("/status") + f"/{PAGE}"


def _problem(dask_scheduler: Scheduler) -> str:
    return str(dask_scheduler.plugins[PAGE].problem)
