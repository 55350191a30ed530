"""cluster description -> a connected Client. What we start listens on loopback unless the description names more."""

from mandeldask.cluster.local import leave_if_being_spawned
from mandeldask.cluster.preflight import check, check_store, table, versions
from mandeldask.cluster.queues import job_script
from mandeldask.cluster.session import Session, session
from mandeldask.cluster.start import connect, introduce, resolve, size_of
from mandeldask.cluster.workers import Size, size_of_client, wait_for_worker, workers_of

__all__ = [
    "Session",
    "Size",
    "check",
    "check_store",
    "connect",
    "introduce",
    "job_script",
    "leave_if_being_spawned",
    "resolve",
    "session",
    "size_of",
    "size_of_client",
    "table",
    "versions",
    "wait_for_worker",
    "workers_of",
]
