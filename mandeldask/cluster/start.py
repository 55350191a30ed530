"""Clusters that we start: worker processes on this machine, or any Dask class of clusters by its import path."""

from __future__ import annotations

import inspect
import logging
import pkgutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from textwrap import shorten

import dask
import distributed
from distributed import Client
from distributed.utils import silence_logging_cmgr

from mandeldask import config as configs
from mandeldask.cluster.origins import guard
from mandeldask.cluster.workers import size_of
from mandeldask.errors import ClusterError

LOOPBACK = "127.0.0.1"
DASHBOARD = f"{LOOPBACK}:8787"

# Dask waits 5 minutes for a worker that stands still and 30 s for each try to reach a host, and a tile is held for as
# long. A healthy worker is heard every second, but not while a compiler or a kernel holds its interpreter, which takes
# 10 s on a loaded machine. A timeout of TCP below 11 s breaks every connection.
SETTINGS = {
    "distributed.scheduler.worker-ttl": "30s",
    "distributed.comm.timeouts.tcp": "20s",
    "distributed.comm.timeouts.connect": "20s",
    # A tile that ends its worker does so twice among others and twice alone: each costs the start of a worker.
    "distributed.scheduler.allowed-failures": 1,
    # Once a page of Dask's shows the task stream, the scheduler keeps that of 100,000 tasks: 1.1 KiB each.
    "distributed.scheduler.dashboard.tasks.task-stream-length": 10_000,
}


def our_settings() -> dict[str, object]:
    """Dask's settings for a cluster that we start, without those that the user has set."""
    by_user, defaults = dask.config.collect(), dask.config.merge(*dask.config.defaults)
    return {
        key: value
        for key, value in SETTINGS.items()
        if dask.config.get(key, None, config=by_user) is None
        and dask.config.get(key) == dask.config.get(key, None, config=defaults)
    }


@contextmanager
def cluster_settings(**settings: object) -> Iterator[None]:
    """Dask's settings while a cluster that we start is there."""
    with dask.config.set({**our_settings(), **settings}), warnings.catch_warnings():
        # another dashboard may have the usual port: the link that is printed says which was taken instead
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        yield


def one_line(error: BaseException) -> str:
    """What a batch system, or whatever starts a cluster, said of its failure."""
    text = str(error.__cause__ or error)
    return shorten(text.partition("stderr:\n")[2] or text, 400, placeholder="...") or type(error).__name__


@contextmanager
def start_local(cluster: configs.LocalCluster) -> Iterator[Client]:
    """A client of a new local cluster that ends with the context; all of it listens on loopback alone."""
    if getattr(sys.modules["__main__"], "__file__", "") == "<stdin>":
        raise ClusterError("worker processes cannot import a program from standard input: save it in a file, run that")
    size = size_of(cluster)
    assert size is not None
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
            raise ClusterError(f"cannot start a local cluster: {one_line(error)}") from None
        guard(local)
        with local, Client(local) as client:
            local.scale(size.workers)
            yield client


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


@contextmanager
def start_class(cluster: configs.ClusterClass) -> Iterator[Client]:
    """A client of a new cluster of the class described, which ends with the context.

    One of this machine is kept on loopback, where its class takes a host and is given no other.
    """
    ours = {"host": LOOPBACK, "dashboard_address": DASHBOARD}
    with silence_logging_cmgr(logging.CRITICAL), cluster_settings(), ExitStack() as stack:
        try:
            made = pkgutil.resolve_name(cluster.type)
            takes = ours.keys() <= inspect.signature(made).parameters.keys()
            manager = stack.enter_context(made(**(ours if takes else {}) | cluster.arguments))
            guard(manager)
            if cluster.workers is not None:
                manager.scale(cluster.workers)
            client = stack.enter_context(manager.get_client())
        except Exception as error:  # whatever a manager of clusters may raise
            raise ClusterError(
                f"cannot start {cluster.type}, which has to be a class of Dask clusters: "
                f"{type(error).__name__}: {one_line(error)}"
            ) from None
        yield client
