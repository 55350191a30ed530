"""How much of a machine a cluster gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distributed import Client
from distributed.system import MEMORY_LIMIT

from mandeldask.errors import ClusterError


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

    `client.scheduler_info` gives what the client has last heard, and once in some thousand calls its own heartbeat,
    which asks for no workers, comes between (distributed 2026.8).
    """
    return dict(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


def size_of_client(client: Client) -> Size:
    """The size of the cluster a client is connected to; the smallest worker speaks for all."""
    workers = workers_of(client).values()
    if not workers:
        raise ClusterError("the cluster has no workers: start some, `dask worker ADDRESS`, and try again")
    return Size(
        len(workers),
        max(1, round(sum(w["nthreads"] for w in workers) / len(workers))),
        min(w["memory_limit"] or MEMORY_LIMIT for w in workers),
    )
