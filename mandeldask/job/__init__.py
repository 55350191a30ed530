"""The one room that joins graph, cluster and store: run, resume, submit, and ask for jobs.

It can be called: `mandeldask.job(name, cluster)` is the submitted `Job` of that name, see `mandeldask.job.find`.
"""

from __future__ import annotations

import sys
from types import ModuleType

from distributed import Client

from mandeldask import config as configs
from mandeldask.job.events import (
    Event,
    Expected,
    Notice,
    Observer,
    Orbit,
    Plan,
    Preparing,
    Started,
    Summary,
    TileDone,
    ignore,
)
from mandeldask.job.handle import Job, find, jobs, scheduler_of
from mandeldask.job.job_status import Status, status, wait
from mandeldask.job.runs import deepen, resume, run
from mandeldask.job.submission import submit
from mandeldask.job.verification import Verification, verify
from mandeldask.telemetry import Progress, TileFailed

__all__ = [
    "Event",
    "Expected",
    "Job",
    "Notice",
    "Observer",
    "Orbit",
    "Plan",
    "Preparing",
    "Progress",
    "Started",
    "Status",
    "Summary",
    "TileDone",
    "TileFailed",
    "Verification",
    "deepen",
    "find",
    "ignore",
    "jobs",
    "resume",
    "run",
    "scheduler_of",
    "status",
    "submit",
    "verify",
    "wait",
]


class _Room(ModuleType):
    """A module whose name is that of a function too: an import of the room would take `mandeldask.job` from it."""

    def __call__(self, name: str, cluster: configs.AnyCluster | None = None, *, client: Client | None = None) -> Job:
        return find(name, cluster, client=client)


sys.modules[__name__].__class__ = _Room
