"""Run, resume, submit, and ask for jobs: the one room that joins graph, cluster and store."""

from __future__ import annotations

from mandeldask.job.events import Event, Expected, Notice, Observer, Plan, Preparing, Started, Summary, TileDone, ignore
from mandeldask.job.job_status import Status, cancel, logs, status, status_of_jobs, wait
from mandeldask.job.runs import deepen, resume, run
from mandeldask.job.submission import Submitted, submit
from mandeldask.job.verification import Verification, verify
from mandeldask.telemetry import Progress, TileFailed

__all__ = [
    "Event",
    "Expected",
    "Notice",
    "Observer",
    "Plan",
    "Preparing",
    "Progress",
    "Started",
    "Status",
    "Submitted",
    "Summary",
    "TileDone",
    "TileFailed",
    "Verification",
    "cancel",
    "deepen",
    "ignore",
    "logs",
    "resume",
    "run",
    "status",
    "status_of_jobs",
    "submit",
    "verify",
    "wait",
]
