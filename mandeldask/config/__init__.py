"""The run description: one YAML file, or a dict, to a frozen `Config` of checked values."""

from mandeldask.config.clusters import (
    Cluster,
    ClusterClass,
    LocalCluster,
    Queue,
    RunningScheduler,
    SchedulerAddress,
    SchedulerFile,
)
from mandeldask.config.reading import AnyCluster, load, load_cluster, parse
from mandeldask.config.run import Config, PictureDescription, cluster_schema, json_schema
from mandeldask.config.view import ViewDescription

__all__ = [
    "AnyCluster",
    "Cluster",
    "ClusterClass",
    "Config",
    "LocalCluster",
    "PictureDescription",
    "Queue",
    "RunningScheduler",
    "SchedulerAddress",
    "SchedulerFile",
    "ViewDescription",
    "cluster_schema",
    "json_schema",
    "load",
    "load_cluster",
    "parse",
]
