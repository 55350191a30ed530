"""cluster description -> a connected Client. What we start listens on loopback unless the description names more."""

from mandeldask.cluster.preflight import check_store, table, versions
from mandeldask.cluster.queues import job_script
from mandeldask.cluster.session import Session, connect, resolve
from mandeldask.cluster.workers import Size, size_of_client, wait_for_worker, workers_of

__all__ = [
    "Session",
    "Size",
    "check_store",
    "connect",
    "job_script",
    "resolve",
    "size_of_client",
    "table",
    "versions",
    "wait_for_worker",
    "workers_of",
]
