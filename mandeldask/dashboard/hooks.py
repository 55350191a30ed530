"""The one place that touches what Dask does not document: a page in a dashboard that is already serving.

See dask/distributed#2790. Each hook is tried; where one is missing, `mount` says which, and nothing is changed.
"""

from __future__ import annotations

from typing import Any

from distributed import Scheduler
from tornado.ioloop import IOLoop

SWITCHED_OFF = "the dashboard of the scheduler is switched off"


def mount(scheduler: Scheduler, page: str) -> str:
    """Serve `/page` and link it in the navigation bar; gives why that cannot be, or "". A second time does nothing."""
    try:
        from bokeh.server.tornado import BokehTornado
        from distributed.dashboard.core import BokehApplication
        from distributed.dashboard.scheduler import template_variables

        from mandeldask.dashboard.page import page_document
    except ImportError as error:  # Bokeh missing, or one that this Dask refuses
        return f"the scheduler has no Bokeh that its dashboard can use ({error})"
    try:
        applications = scheduler.http_application.applications
        main = next((a for a in applications if isinstance(a, BokehTornado)), None)
        if main is None:
            return SWITCHED_OFF
        if any(
            isinstance(a, BokehTornado) and any(path.endswith(f"/{page}") for path in a.app_paths) for a in applications
        ):
            return ""
        variables = template_variables(scheduler)  # one mapping, which every page of the dashboard shares
        served = BokehApplication(
            {f"/{page}": page_document}, scheduler, prefix=main.prefix, template_variables=variables
        )
        scheduler.http_application.add_application(served)
        served.initialize(IOLoop.current())
        served.start()
        if page not in variables["pages"]:
            variables["pages"].insert(1, page)
    except Exception as error:
        return f"this version of Dask does not take a page of ours ({type(error).__name__}: {error})"
    return ""


def template(content: str) -> Any:
    """A page within the frame of Dask's dashboard: its navigation bar and style."""
    from distributed.dashboard.components.scheduler import env

    return env.from_string(content)
