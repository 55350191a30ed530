"""A page in the Dask dashboard that shows the picture as it forms: `install`, or `dask scheduler --preload` this room.

A plugin on the scheduler listens to what runs broadcast (`mandeldask.messages`); `page` shows what it knows; `hooks`
is the one place that touches what Dask does not document.
"""

from __future__ import annotations

import logging

from distributed import Client, Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from mandeldask.dashboard import hooks
from mandeldask.dashboard.hooks import SWITCHED_OFF
from mandeldask.dashboard.state import Board
from mandeldask.messages import TOPIC, read

__all__ = ["PAGE", "SWITCHED_OFF", "Plugin", "install", "link"]

PAGE = "mandeldask"
logger = logging.getLogger(__name__)


class Plugin(SchedulerPlugin):  # type: ignore[misc]  # distributed is taken as untyped
    """Keeps what runs tell of their tiles, and mounts the page; `problem` says why there is no page, if so."""

    name = PAGE
    idempotent = True

    def __init__(self) -> None:
        self.board = Board(logger.warning)
        self.problem = ""

    async def start(self, scheduler: Scheduler) -> None:
        """Take what was told before, and mount the page; a page that cannot be is one warning."""
        for _, message in scheduler.get_events(TOPIC):
            self.log_event(TOPIC, message)
        self.problem = hooks.mount(scheduler, PAGE)
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
