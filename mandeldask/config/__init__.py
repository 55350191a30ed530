"""The run description: one YAML file, or a dict, to a frozen `Config` of checked values.

What reads one is imported when it is first used: a driver on a cluster is given what is read, and may lack pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mandeldask.config.examples import locate, no_such, shipped
    from mandeldask.config.models import (
        Cluster,
        ClusterClass,
        Config,
        LocalCluster,
        Queue,
        RunningScheduler,
        SchedulerAddress,
        SchedulerFile,
        json_schema,
    )
    from mandeldask.config.reading import (
        AnyCluster,
        load,
        load_cluster,
        parse,
        picture_options,
        refuse_untrusted,
    )

__all__ = [
    "AnyCluster",
    "Cluster",
    "ClusterClass",
    "Config",
    "LocalCluster",
    "Queue",
    "RunningScheduler",
    "SchedulerAddress",
    "SchedulerFile",
    "json_schema",
    "load",
    "load_cluster",
    "locate",
    "no_such",
    "parse",
    "picture_options",
    "refuse_untrusted",
    "shipped",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mandeldask.config' has no attribute {name!r}")
    rooms = (importlib.import_module(f"mandeldask.config.{room}") for room in ("examples", "models", "reading"))
    return next(getattr(room, name) for room in rooms if hasattr(room, name))
