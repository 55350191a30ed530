"""The workers of a cluster: how many, of which size, waiting for the first, and what comes of their work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Client, Future, Status, as_completed
from distributed.scheduler import KilledWorker
from distributed.system import MEMORY_LIMIT

from mandeldask import config as configs
from mandeldask.errors import ClusterError
from mandeldask.text import data_size, plural

START_SECONDS = 60.0  # to wait for the first worker where no description says otherwise
IDLE_WORKER_BYTES = 240 * 2**20  # an interpreter with distributed, zarr and numba: scripts/bench_run
FIRST_LINE_SECONDS = 5.0  # of waiting; the next line comes after twice as long
MIN_IN_FLIGHT, IN_FLIGHT = 8, 4  # tasks, and tasks a thread
T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """How many workers, and the threads and the memory of each; of unequal ones those of the one with the least memory
    a thread.
    """

    workers: int
    threads_per_worker: int
    memory_limit: int  # bytes a worker
    all_threads: int | None = None  # where workers differ in threads or memory

    @property
    def threads(self) -> int:
        return self.all_threads or self.workers * self.threads_per_worker

    def __str__(self) -> str:
        each = f"{plural(self.threads_per_worker, 'thread')} and {data_size(self.memory_limit)}"
        if self.all_threads is None:
            return f"{plural(self.workers, 'worker')} of {each}"
        together = f"{plural(self.workers, 'worker')} of {plural(self.threads, 'thread')} together"
        return f"{together}; the one with the least memory a thread has {each}"


def size_of(cluster: configs.Cluster) -> Size | None:
    """The size that a description asks for; None where only the scheduler knows.

    ClusterError for more workers than this machine has memory for, even where they do nothing.
    """
    match cluster:
        case configs.LocalCluster():  # what is left out comes from this machine's usable cores and memory
            workers = cluster.workers or max(1, CPU_COUNT // cluster.threads_per_worker)
            if workers > (most := max(1, MEMORY_LIMIT // IDLE_WORKER_BYTES)):
                raise ClusterError(
                    f"{workers} workers need {data_size(workers * IDLE_WORKER_BYTES)} before they compute anything, "
                    f"and this machine has {data_size(MEMORY_LIMIT)}: use at most {most}"
                )
            memory = parse_bytes(cluster.memory_limit) if cluster.memory_limit else MEMORY_LIMIT // workers
            return Size(workers, cluster.threads_per_worker, memory)
        case configs.Queue():  # when all of its jobs run
            processes = cluster.processes or cluster.cores
            memory = parse_bytes(cluster.memory) // processes
            return Size(cluster.jobs * processes, cluster.cores // processes, memory)
    return None


def workers_of(client: Client) -> dict[str, Any]:
    """What the scheduler knows of each worker, by its address; `client.scheduler_info` may give none (2026.8)."""
    return dict(client.sync(client.scheduler.identity)["workers"])


def size_of_client(client: Client) -> Size:
    """The size of the cluster a client is connected to, the worker with the least memory a thread speaking for all.

    Workers that its cluster object has yet to start count too. ClusterError for none.
    """
    workers = [(w["nthreads"], w["memory_limit"] or MEMORY_LIMIT) for w in workers_of(client).values()]
    if not workers:
        raise ClusterError("the cluster has no workers: start some, `dask worker ADDRESS`, and try again")
    threads, memory = min(workers, key=lambda worker: worker[1] / worker[0])
    alike = len(set(workers)) == 1
    planned = len(getattr(getattr(client, "cluster", None), "plan", ()))
    count = max(planned, len(workers)) if alike else len(workers)
    return Size(count, threads, memory, None if alike else sum(nthreads for nthreads, _ in workers))


def wait_for_worker(
    client: Client, seconds: float = START_SECONDS, say: Callable[[str], None] = lambda _: None
) -> None:
    """Wait for the first worker; `say` is given a line now and then.

    ClusterError where none came in time, the batch system refused, or all of a local cluster's ended as they started.
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
    """What `start` keeps of the jobs of a cluster that a batch system runs, else None."""
    return getattr(client.cluster, "mandeldask_jobs", None)


def _remedy(client: Client) -> str:
    """What a person can do while no worker comes."""
    if client.cluster is None:
        return f"start some with `dask worker {client.scheduler.address}`"
    waiting = "the jobs are waiting, or ended early: look at the batch system's queue, and at their output"
    why = waiting if jobs_of(client) else "they are being started"
    return f"{why}; start_timeout in the cluster description sets how long to wait"


def results(futures: Iterator[tuple[Future, T]], client: Client, what: str, tasks: int = 1) -> Iterator[tuple[Any, T]]:
    """What comes of futures, each with what it is about; a few a thread are asked for at a time.

    Each takes so many `tasks`. ClusterError where the cluster is lost, or a worker dies each time it did `what`.
    """
    room = max(MIN_IN_FLIGHT, IN_FLIGHT * sum(client.nthreads().values())) // tasks + 1
    in_flight: dict[Future, T] = {}
    completed = as_completed(loop=client.loop)
    try:
        while True:
            for future, about in islice(futures, room - len(in_flight)):
                in_flight[future] = about
                completed.add(future)
            if not in_flight:
                return
            future = next(completed)
            about = in_flight.pop(future)
            try:
                yield future.result(), about
            except CancelledError:
                raise ClusterError("the cluster was lost: its scheduler is gone or cancelled the work") from None
            except KilledWorker:
                raise ClusterError(f"a worker died each time it {what}: give workers more memory") from None
            future.release()
    finally:
        client.cancel(list(in_flight), force=True)
