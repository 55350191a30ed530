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
from mandeldask.dashboard.state import Board
from mandeldask.telemetry import TOPIC, job_and_tile, read

__all__ = ["PAGE", "SWITCHED_OFF", "Plugin", "install", "link"]

PAGE = "mandeldask"
logger = logging.getLogger(__name__)


class Plugin(SchedulerPlugin):  # type: ignore[misc]  # distributed is taken as untyped
    """Keeps what is told of tiles, and mounts the page; `problem` says why there is no page, if so."""

    name = PAGE
    idempotent = True

    def __init__(self) -> None:
        self.board = Board(logger.warning)
        self.problem = ""

    async def start(self, scheduler: Scheduler) -> None:
        """Take what was told before, and mount the page; a page that cannot be is one warning."""
        for _, event in scheduler.get_events(TOPIC):
            self.log_event(TOPIC, event)
        self.problem = _mount(scheduler)
        if self.problem:
            logger.warning("no page %s: %s", PAGE, self.problem)

    def log_event(self, topic: str, msg: object) -> None:
        """Dask calls this for each event of each topic."""
        if topic != TOPIC:
            return
        try:
            self.board.take(read(msg))
        except Exception as error:
            self.board.refuse(str(error))

    def transition(self, key: object, start: str, finish: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 (Dask's)
        """Dask calls this for each change of a task's state."""
        if finish in ("memory", "erred") and (found := job_and_tile(key)) and found[0] in self.board.jobs:
            self.board.jobs[found[0]].take_state(found[2], finish == "memory")


def _mount(scheduler: Scheduler) -> str:
    try:
        from mandeldask.dashboard.page import page_document  # needs Bokeh, which not every scheduler has

        return hooks.mount(scheduler, PAGE, page_document)
    except ImportError as error:
        return f"the scheduler has no Bokeh that its dashboard can use ({error})"


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
    plugin = dask_scheduler.plugins.get(PAGE)
    return str(getattr(plugin, "problem", "")) if plugin else "the plugin was not kept"
