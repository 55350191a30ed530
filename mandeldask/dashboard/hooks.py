"""The one place that touches what Dask does not document: a page in a dashboard that is already serving, and a cache.

See dask/distributed#2790. Each hook is tried; where one is missing, `mount` says which, and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from dask.utils import key_split
from distributed import Scheduler
from tornado.ioloop import IOLoop

SWITCHED_OFF = "the dashboard of the scheduler is switched off"


def mount(scheduler: Scheduler, page: str, document: Callable[..., None]) -> str:
    """Serve `/page`, which `document` fills, and link it in the navigation bar; gives why that cannot be, or "".

    A second time does nothing. ImportError where the scheduler has no Bokeh, or one that this Dask refuses.
    """
    from bokeh.server.tornado import BokehTornado
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables

    try:
        applications = [a for a in scheduler.http_application.applications if isinstance(a, BokehTornado)]
        if not applications:
            return SWITCHED_OFF
        if any(path.endswith(f"/{page}") for a in applications for path in a.app_paths):
            return ""
        variables = template_variables(scheduler)  # one mapping, which every page of the dashboard shares
        served = BokehApplication(
            {f"/{page}": document}, scheduler, prefix=applications[0].prefix, template_variables=variables
        )
        scheduler.http_application.add_application(served)
        served.initialize(IOLoop.current())
        served.start()
        if page not in variables["pages"]:
            variables["pages"].insert(1, page)
    except Exception as error:
        return f"this version of Dask does not take a page of ours ({type(error).__name__}: {error})"
    return ""


def forget_keys() -> None:
    """Empty Dask's cache of how the last 100,000 keys begin: it takes 0.6 KiB a key, and no tile has its key twice."""
    if hasattr(key_split, "cache_clear"):
        key_split.cache_clear()


def template() -> Any:
    """The page within the frame of Dask's dashboard: its navigation bar and style."""
    from distributed.dashboard.components.scheduler import env

    return env.from_string(asset("page.html"))


def asset(name: str) -> str:
    """A file beside this one, which may be in a zip file."""
    return (files(__package__) / name).read_text("utf-8")
