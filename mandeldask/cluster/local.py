"""Worker processes on this machine, bound to loopback."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import current_process, resource_tracker

import dask
import distributed
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Client
from distributed.system import MEMORY_LIMIT

from mandeldask.cluster.settings import DASHBOARD, LOOPBACK, cluster_settings, said
from mandeldask.cluster.workers import Size
from mandeldask.config import LocalCluster
from mandeldask.errors import ClusterError


def size_of(cluster: LocalCluster) -> Size:
    """The size a local cluster will have: left-out values come from this machine's usable cores and memory."""
    workers = cluster.workers or max(1, CPU_COUNT // cluster.threads_per_worker)
    limit = parse_bytes(cluster.memory_limit) if cluster.memory_limit else MEMORY_LIMIT // workers
    return Size(workers, cluster.threads_per_worker, limit)


@contextmanager
def started(cluster: LocalCluster) -> Iterator[Client]:
    """A client of a new local cluster that ends with the context; all of it listens on loopback alone."""
    if getattr(sys.modules["__main__"], "__file__", "") == "<stdin>":
        raise ClusterError("worker processes cannot import a program from standard input: save it in a file, run that")
    size = size_of(cluster)
    # Dask's nanny makes its workers give freed memory back at once, and a tile's buffers then cost a page fault every
    # 4 KiB: 6951 faults instead of 83 for a 2048 x 2048 tile.
    environment = dict(dask.config.get("distributed.nanny.pre-spawn-environ") or {})
    environment.pop("MALLOC_TRIM_THRESHOLD_", None)
    with cluster_settings(**{"distributed.nanny.pre-spawn-environ": environment}):
        try:
            with _signals_kept_from_children():
                local = distributed.LocalCluster(
                    n_workers=0,
                    threads_per_worker=size.threads_per_worker,
                    memory_limit=size.memory_limit,
                    host=LOOPBACK,
                    dashboard_address=DASHBOARD,
                    silence_logs=logging.CRITICAL,
                )
        except (OSError, RuntimeError) as error:  # distributed wraps most of its own
            raise ClusterError(f"cannot start a local cluster: {said(error)}") from None
        with local, Client(local) as client:
            local.scale(size.workers)
            yield client


def leave_if_being_spawned() -> None:
    """End a worker that is importing a script without a main guard; `wait_for_worker` tells its parent's user."""
    if getattr(current_process(), "_inheriting", False):
        raise SystemExit(1)


@contextmanager
def _signals_kept_from_children() -> Iterator[None]:
    """Threads made in this context, and the processes that they spawn, never see a terminal's signals.

    Ctrl-C reaches every process of a terminal's foreground group. Workers that are still starting would answer with
    tracebacks; the run ends them in order instead.
    """
    signals = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    resource_tracker.ensure_running()  # the first process to be spawned; it unblocks SIGINT in this thread
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
