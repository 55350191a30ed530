"""Mandelbrot escape-time fields of any size, on Dask, stored as Zarr.

>>> import mandeldask as md
>>> view = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(1000, 1000))
>>> grid = md.complex_grid(view, chunks=(500, 500))
>>> md.escape_time(grid, max_iter=100, kernel="numpy").sum().compute()
20943298
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mandeldask.errors import ClusterError, ConfigError, MandeldaskError, StoreError
    from mandeldask.field import escape_time
    from mandeldask.grid import complex_grid
    from mandeldask.job import Plan, Summary, resume, run
    from mandeldask.store import open_field as open
    from mandeldask.view import View

__version__ = "0.1.0"

_HOMES = {
    "ClusterError": "errors",
    "ConfigError": "errors",
    "MandeldaskError": "errors",
    "Plan": "job",
    "StoreError": "errors",
    "Summary": "job",
    "View": "view",
    "complex_grid": "grid",
    "escape_time": "field",
    "open": "store:open_field",
    "resume": "job",
    "run": "job",
}
__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 (all are strings)


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used: dask and zarr take a second that `--help` need not wait for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mandeldask' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(f"mandeldask.{module}"), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
