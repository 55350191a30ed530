"""Which requests the web server of a scheduler answers: those of its own pages, by a name that is its own.

Dask's answers all. So the page of any site reads the dashboard through its websocket, or by a name of that site that is
made to lead here (DNS rebinding). `dask scheduler --preload mandeldask.cluster.origins` does the same. The way to its
server is not documented: `mandeldask.dashboard.hooks` takes it too.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Scheduler
from tornado.httputil import HTTPServerRequest
from tornado.routing import Matcher, Rule
from tornado.web import RequestHandler

logger = logging.getLogger(__name__)
SETTING = "distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin"


def guard(server: Any) -> None:
    """Have a scheduler refuse other sites, if it runs in this process; a worker, or a cluster elsewhere, stays.

    Where this version of Dask has no place for that, a warning says so.
    """
    scheduler = getattr(server, "scheduler", server)
    if not isinstance(scheduler, Scheduler):
        return
    others = [host for host in dask.config.get(SETTING, ()) if host != "*"]  # which is Dask's own default
    try:
        scheduler.http_application.default_router.rules.insert(0, Rule(_Foreign(others), _Refused))
    except AttributeError as error:
        logger.warning("pages of other sites can read the dashboard: Dask takes no check of ours (%s)", error)


dask_setup = guard  # the name by which `--preload` finds it


class _Foreign(Matcher):  # type: ignore[misc]
    """Matches requests that a browser sends for another site."""

    def __init__(self, others: Sequence[str]) -> None:
        self.others = [host.lower() for host in others]

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        host = request.host.lower()
        site = request.headers.get("Origin", f"//{host}").lower().partition("//")[2]
        known = _is_here(host) or self._listed(host)
        return None if known and (site == host or self._listed(site)) else {}

    def _listed(self, host: str) -> bool:
        name = host.partition(":")[0]  # an entry without a port is for any
        return any(fnmatchcase(host if ":" in other else name, other) for other in self.others)


def _is_here(host: str) -> bool:
    """Whether a name, with a port or without, cannot be that of another site: localhost, whatever its port in a tunnel,
    and addresses.
    """
    with suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    return False


class _Refused(RequestHandler):  # type: ignore[misc]
    def prepare(self) -> None:
        self.set_status(403)
        self.finish(
            "This dashboard answers its own pages alone, as localhost or by its address. "
            f"Another name that leads here goes into Dask's setting {SETTING}.\n"
        )
