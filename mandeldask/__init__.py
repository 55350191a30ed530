"""Mandelbrot escape-time fields of any size, on Dask, stored as Zarr.

>>> import mandeldask as md
>>> view = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(1000, 1000))
>>> grid = md.complex_grid(view, chunks=(500, 500))
>>> int(md.escape_time(grid, max_iter=100, kernel="numpy").sum().compute())
20943298
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mandeldask.errors import ClusterError, ConfigError, MandeldaskError, StoreError
    from mandeldask.field import escape_time
    from mandeldask.grid import complex_grid
    from mandeldask.image import picture
    from mandeldask.job import (
        Job,
        Plan,
        Status,
        Summary,
        Verification,
        deepen,
        jobs,
        resume,
        run,
        status,
        submit,
        verify,
    )
    from mandeldask.kernels.nuclei import find
    from mandeldask.measure import Area, area
    from mandeldask.store import open_field as open
    from mandeldask.view import View

__version__ = "0.1.0"

__all__ = [
    "Area",
    "ClusterError",
    "ConfigError",
    "Job",
    "MandeldaskError",
    "Plan",
    "Status",
    "StoreError",
    "Summary",
    "Verification",
    "View",
    "area",
    "complex_grid",
    "deepen",
    "escape_time",
    "find",
    "job",
    "jobs",
    "open",
    "picture",
    "resume",
    "run",
    "status",
    "submit",
    "verify",
]
# Where a name is, unless in mandeldask.job, a room that can be called
_ROOMS = {
    "complex_grid": "grid",
    "escape_time": "field",
    "find": "kernels.nuclei",
    "open": "store",
    "picture": "image",
    "View": "view",
}
_ROOMS |= {"Area": "measure", "area": "measure"}
_ROOMS |= dict.fromkeys(("ClusterError", "ConfigError", "MandeldaskError", "StoreError"), "errors")


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: dask and zarr take a second that --help need not wait for."""
    if name not in __all__:
        raise AttributeError(f"module 'mandeldask' has no attribute {name!r}")
    module = importlib.import_module(f"mandeldask.{_ROOMS.get(name, 'job')}")
    value = module if name == "job" else getattr(module, "open_field" if name == "open" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return ["__version__", *__all__]
