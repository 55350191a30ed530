"""Which cluster is meant, what it comes to, and how a cluster of each kind is started or reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client

from mandeldask.cluster import local, managers, queues, running
from mandeldask.cluster.workers import Size
from mandeldask.config import (
    AnyCluster,
    Cluster,
    ClusterClass,
    LocalCluster,
    Queue,
    SchedulerAddress,
    SchedulerFile,
    load_cluster,
)
from mandeldask.errors import ConfigError


def resolve(cluster: AnyCluster | None) -> Cluster:
    """The cluster described; where none is, the scheduler that Dask's settings name, else a local cluster."""
    if cluster:
        return load_cluster(cluster)
    address = dask.config.get("scheduler-address", None)
    if not address:
        return LocalCluster.model_validate({})
    address = address if "://" in address else f"tcp://{address}"  # as Dask reads it
    try:
        return load_cluster({"kind": "address", "address": address})
    except ConfigError as error:
        raise ConfigError(f"Dask's setting scheduler-address (DASK_SCHEDULER_ADDRESS): {error}") from None


def size_of(cluster: Cluster) -> Size | None:
    """The size a cluster will have, as far as its description tells: None where only the scheduler knows."""
    if isinstance(cluster, LocalCluster):
        return local.size_of(cluster)
    return queues.size_of(cluster) if isinstance(cluster, Queue) else None


def introduce(cluster: Cluster) -> str:
    """Which cluster it is, in a few words; "" for workers on this machine, whose size says it all."""
    match cluster:
        case SchedulerAddress():
            return f"the scheduler at {cluster.address}"
        case SchedulerFile():
            return f"the scheduler of {cluster.path}"
        case Queue():
            jobs = f"{cluster.jobs} {cluster.kind} job{'' if cluster.jobs == 1 else 's'}"
            return f"{jobs} of {cluster.cores} cores and {cluster.memory}, for {cluster.walltime} each"
        case ClusterClass():
            return cluster.type
    return ""


@contextmanager
def connect(cluster: Cluster) -> Iterator[Client]:
    """A client of the cluster described. What was started for it ends with the context; what ran already stays.

    The workers may still come up while the caller goes on: `wait_for_worker` waits for the first.

    Raises
    ------
    ClusterError
        It cannot be started or reached: why, and what to do.
    """
    if isinstance(cluster, LocalCluster):
        connected = local.started(cluster)
    elif isinstance(cluster, Queue):
        connected = queues.started(cluster)
    elif isinstance(cluster, ClusterClass):
        connected = managers.started(cluster)
    else:
        connected = running.connected(cluster)
    with connected as client:
        yield client
