"""The workers of a cluster: how many, of which size, and waiting for the first."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from distributed import Client, Status
from distributed.system import MEMORY_LIMIT

from mandeldask.config import Cluster, ClusterClass, Queue
from mandeldask.errors import ClusterError

START_SECONDS: dict[type, int] = {
    ClusterClass: 600,  # a machine may have to be rented first
    Queue: 3600,
}
USUAL_START_SECONDS = 60
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


def workers_of(client: Client) -> dict[str, Any]:
    """What the scheduler knows of each worker, by its address.

    `client.scheduler_info` gives what the client has last heard. Its own heartbeat, which asks for no workers, comes
    between once in some thousand calls (distributed 2026.8).
    """
    return dict(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


def size_of_client(client: Client) -> Size:
    """The size of the cluster a client is connected to; the smallest worker speaks for all.

    Raises
    ------
    ClusterError
        It has no workers.
    """
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


def wait_for_worker(client: Client, cluster: Cluster | None = None, say: Callable[[str], None] = silent) -> None:
    """Wait for the first worker, at most the description's `start_timeout`; `say` is given a line now and then.

    Raises
    ------
    ClusterError
        None came in time, the batch system refused, or all of a local cluster's ended while they started.
    """
    begun = time.monotonic()
    timeout = start_seconds(cluster)
    next_line = FIRST_LINE_SECONDS
    while (waited := time.monotonic() - begun) < timeout:
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=min(0.5, timeout))
            return
        raise_if_none_will_come(client)
        if waited >= next_line:
            say(f"no worker yet after {waited:.0f} s: {_remedy(client)}")
            next_line *= 2
    raise ClusterError(f"no worker came up within {timeout:.0f} s: {_remedy(client)}")


def start_seconds(cluster: Cluster | None) -> float:
    """How long to wait for a cluster's first worker."""
    return getattr(cluster, "start_timeout", None) or START_SECONDS.get(type(cluster), USUAL_START_SECONDS)


def raise_if_none_will_come(client: Client) -> None:
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
    in_description = "start_timeout in the cluster description sets how long to wait"
    if jobs := _jobs(client):
        return f"the jobs are waiting, or ended early; look with `{jobs.look()}`, and at their output; {in_description}"
    if client.cluster is None:
        return f"start some with `dask worker {client.scheduler_info(n_workers=0)['address']}`"
    return f"they are being started; {in_description}"


def _jobs(client: Client) -> Any:
    return getattr(client.cluster, "mandeldask_jobs", None)
