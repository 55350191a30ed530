"""The run description: one YAML file, or a dict, to a frozen `Config` of checked values."""

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
from mandeldask.config.reading import AnyCluster, load, load_cluster, parse
from mandeldask.config.shipped import find, no_such, shipped, title

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
    "find",
    "json_schema",
    "load",
    "load_cluster",
    "no_such",
    "parse",
    "shipped",
    "title",
]
