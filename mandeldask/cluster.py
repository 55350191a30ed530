"""cluster description -> a connected Client, on loopback only."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT

from mandeldask.config import LocalCluster as LocalDescription
from mandeldask.errors import ClusterError

LOOPBACK = "127.0.0.1"
WORKER_START_SECONDS = 60


@dataclass(frozen=True)
class Size:
    """How much of a machine a cluster gives."""

    workers: int
    threads_per_worker: int
    memory_limit: int  # bytes a worker

    @property
    def threads(self) -> int:
        return self.workers * self.threads_per_worker


def size_of(cluster: LocalDescription) -> Size:
    """The size a local cluster will have: left-out values come from this machine's usable cores and memory."""
    workers = cluster.workers or max(1, CPU_COUNT // cluster.threads_per_worker)
    limit = parse_bytes(cluster.memory_limit) if cluster.memory_limit else MEMORY_LIMIT // workers
    return Size(workers, cluster.threads_per_worker, limit)


def size_of_client(client: Client) -> Size:
    """The size of the cluster a client is connected to; the smallest worker speaks for all."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        raise ClusterError("the cluster has no workers; start some, or wait for them with client.wait_for_workers(1)")
    return Size(
        len(workers),
        max(1, round(sum(w["nthreads"] for w in workers) / len(workers))),
        min(w["memory_limit"] or MEMORY_LIMIT for w in workers),
    )


@contextmanager
def connect(cluster: LocalDescription) -> Iterator[Client]:
    """A client of a new local cluster that ends with the context; all of it listens on loopback alone.

    The workers come up while the caller goes on: `wait_for_worker` waits for the first.
    """
    size = size_of(cluster)
    # Dask's nanny makes its workers give freed memory back at once, and a tile's buffers then cost a page fault every
    # 4 KiB: 6951 faults instead of 83 for a 2048 x 2048 tile.
    environ = {k: v for k, v in _pre_spawn_environ().items() if k != "MALLOC_TRIM_THRESHOLD_"}
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environ}), warnings.catch_warnings():
        # another dashboard may have the usual port: the link that is printed says which was taken instead
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        try:
            local = LocalCluster(
                n_workers=0,
                threads_per_worker=size.threads_per_worker,
                memory_limit=size.memory_limit,
                host=LOOPBACK,
                dashboard_address=f"{LOOPBACK}:8787",
                silence_logs=logging.CRITICAL,
            )
        except OSError as error:
            raise ClusterError(f"cannot start a local cluster: {error}") from None
        with local, Client(local) as client:
            local.scale(size.workers)
            yield client


def wait_for_worker(client: Client, timeout: float = WORKER_START_SECONDS) -> None:
    """Wait until one worker is there.

    Raises
    ------
    ClusterError
        None came in time.
    """
    try:
        client.wait_for_workers(1, timeout=timeout)
    except TimeoutError:
        raise ClusterError(f"no worker came up within {timeout:.0f} s; see the workers' output above") from None


def _pre_spawn_environ() -> dict[str, object]:
    return dask.config.get("distributed.nanny.pre-spawn-environ") or {}
