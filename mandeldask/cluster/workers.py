"""The workers of a cluster: how many, of which size, and waiting for the first."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dask.utils import format_bytes
from distributed import Client, Status
from distributed.system import MEMORY_LIMIT

from mandeldask.errors import ClusterError
from mandeldask.text import plural

START_SECONDS = 60.0  # to wait for the first worker where no description says otherwise
FIRST_LINE_SECONDS = 5.0  # of waiting; the next line comes after twice as long


@dataclass(frozen=True)
class Size:
    """Workers, the threads of each, and the memory of each."""

    workers: int
    threads_per_worker: int
    memory_limit: int  # bytes a worker

    @property
    def threads(self) -> int:
        return self.workers * self.threads_per_worker

    def __str__(self) -> str:
        threads = plural(self.threads_per_worker, "thread")
        return f"{plural(self.workers, 'worker')} of {threads} and {format_bytes(self.memory_limit)}"


def workers_of(client: Client) -> dict[str, Any]:
    """What the scheduler knows of each worker, by its address; `client.scheduler_info` may give none (2026.8)."""
    return dict(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


def size_of_client(client: Client) -> Size:
    """The size of the cluster a client is connected to, the smallest worker speaking for all; ClusterError for none."""
    workers = workers_of(client).values()
    if not workers:
        raise ClusterError("the cluster has no workers: start some, `dask worker ADDRESS`, and try again")
    return Size(
        len(workers),
        max(1, round(sum(w["nthreads"] for w in workers) / len(workers))),
        min(w["memory_limit"] or MEMORY_LIMIT for w in workers),
    )


def silent(text: str, /) -> None:
    """What to say where nobody is to be told."""


def wait_for_worker(client: Client, seconds: float = START_SECONDS, say: Callable[[str], None] = silent) -> None:
    """Wait for the first worker; `say` is given a line now and then.

    Raises
    ------
    ClusterError
        None came in time, the batch system refused, or all of a local cluster's ended while they started.
    """
    begun, next_line = time.monotonic(), FIRST_LINE_SECONDS
    while (waited := time.monotonic() - begun) < seconds:
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=min(0.5, seconds))
            return
        raise_if_none_will_come(client)
        if waited >= next_line:
            say(f"no worker yet after {waited:.0f} s: {_remedy(client)}")
            next_line *= 2
    raise ClusterError(f"no worker came up within {seconds:.0f} s: {_remedy(client)}")


def raise_if_none_will_come(client: Client) -> None:
    """ClusterError where no worker will ever come: all have failed, or the batch system refuses."""
    nannies = getattr(client.cluster, "workers", {}).values()
    if nannies and all(nanny.status is Status.failed for nanny in nannies):
        raise ClusterError(
            "no worker could be started: each ended while it imported the calling script. "
            'A script that runs mandeldask needs `if __name__ == "__main__":` around what it does'
        )
    jobs = jobs_of(client)
    if jobs and jobs.refusal and not jobs.ids:
        raise ClusterError(f"the batch system refused the job: {jobs.refusal}; see the cluster description")


def jobs_of(client: Client) -> Any:
    """The `Jobs` of a cluster that a batch system runs, else None."""
    return getattr(client.cluster, "mandeldask_jobs", None)


def _remedy(client: Client) -> str:
    """What a person can do while no worker comes."""
    if client.cluster is None:
        return f"start some with `dask worker {client.scheduler.address}`"
    waiting = "the jobs are waiting, or ended early: look at the batch system's queue, and at their output"
    why = waiting if jobs_of(client) else "they are being started"
    return f"{why}; start_timeout in the cluster description sets how long to wait"
