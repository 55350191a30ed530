"""Waiting for the first worker, but not silently, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from distributed import Client, Status

from mandeldask.config import Cluster, ClusterClass, Queue
from mandeldask.errors import ClusterError

WORKER_START_SECONDS = 60
MANAGED_START_SECONDS = 600  # where a machine may have to be rented first
QUEUE_START_SECONDS = 3600
FIRST_WORD_SECONDS = 5.0  # of waiting; then again after twice as long


def silent(text: str, /) -> None:
    """What to say where nobody listens."""


def wait_for_worker(client: Client, cluster: Cluster | None = None, say: Callable[[str], None] = silent) -> None:
    """Wait until one worker is there, for the description's `start_timeout`; `say` is given a line now and then.

    Raises
    ------
    ClusterError
        None came in time, the batch system refused, or all of a local cluster's ended while they started.
    """
    begun = time.monotonic()
    timeout = start_seconds(cluster)
    next_word = FIRST_WORD_SECONDS
    while (waited := time.monotonic() - begun) < timeout:
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=min(0.5, timeout))
            return
        raise_if_hopeless(client)
        if waited >= next_word:
            say(f"no worker yet after {waited:.0f} s: {_remedy(client)}")
            next_word *= 2
    raise ClusterError(f"no worker came up within {timeout:.0f} s: {_remedy(client)}")


def start_seconds(cluster: Cluster | None) -> float:
    """How long to wait for a cluster's first worker."""
    by_kind = {Queue: QUEUE_START_SECONDS, ClusterClass: MANAGED_START_SECONDS}
    given = getattr(cluster, "start_timeout", None)
    return given or by_kind.get(type(cluster), WORKER_START_SECONDS)  # type: ignore[arg-type]


def raise_if_hopeless(client: Client) -> None:
    """ClusterError where no worker will ever come: all have failed, or the batch system refuses."""
    nannies = getattr(client.cluster, "workers", {}).values()
    if nannies and all(nanny.status is Status.failed for nanny in nannies):
        raise ClusterError(
            "no worker could be started: each ended while it imported the calling script. "
            'A script that runs mandeldask needs `if __name__ == "__main__":` around what it does'
        )
    jobs = _jobs(client)
    if jobs and jobs.refusal and not jobs.ids:
        raise ClusterError(f"the batch system refused the job: {jobs.refusal}; see the cluster description")


def _remedy(client: Client) -> str:
    """What a person can do while no worker comes."""
    jobs = _jobs(client)
    if jobs:
        return (
            f"the jobs are waiting, or ended early; look with `{jobs.look()}`, and into what they wrote; "
            "start_timeout in the cluster description sets how long to wait"
        )
    if client.cluster is None:
        return f"start some with `dask worker {client.scheduler_info(n_workers=0)['address']}`"
    return "they are being started; start_timeout in the cluster description sets how long to wait"


def _jobs(client: Client) -> Any:
    return getattr(client.cluster, "mandeldask_jobs", None)
