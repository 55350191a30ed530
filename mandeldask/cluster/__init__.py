"""cluster description -> a connected Client. What we start listens on loopback unless the description names more."""

from mandeldask.cluster.preflight import version_lines, versions
from mandeldask.cluster.queues import job_script
from mandeldask.cluster.scheduler import SchedulerReference
from mandeldask.cluster.session import Session, connect, resolve
from mandeldask.cluster.workers import IDLE_WORKER_BYTES, Size, size_of, size_of_client, workers_of

__all__ = [
    "IDLE_WORKER_BYTES",
    "SchedulerReference",
    "Session",
    "Size",
    "connect",
    "job_script",
    "resolve",
    "size_of",
    "size_of_client",
    "version_lines",
    "versions",
    "workers_of",
]
