"""Clusters that we start: worker processes on this machine, jobs of a batch system, or any Dask class by its path.

The jobs are dask-jobqueue's. Their scheduler runs here, and so must stay until the end.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import pkgutil
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from textwrap import shorten
from typing import Any

import dask
import distributed
from distributed import Client, Status
from distributed.utils import silence_logging_cmgr
from tornado.ioloop import PeriodicCallback

from mandeldask import config as configs
from mandeldask.cluster.origins import guard
from mandeldask.cluster.workers import size_of
from mandeldask.errors import ClusterError
from mandeldask.text import pip_install

LOOPBACK = "127.0.0.1"
DASHBOARD = f"{LOOPBACK}:8787"
MAX_STAGGER_SECONDS = 300  # workers end one by one, the last so long, or a 20th of the walltime, before the walltime
LOST_SECONDS = 30.0  # without a worker: then a job is over, and submitted again; a nanny brings a killed one back in 3
LOOK_MILLISECONDS = 250  # a worker that comes and goes between two looks was never there
# What `start_local` does for its workers, in the nanny of a job.
KEEP_FREED_MEMORY = (
    'import dask; dask.config.get("distributed.nanny.pre-spawn-environ").pop("MALLOC_TRIM_THRESHOLD_", None)'
)

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
def _settings(**settings: object) -> Iterator[None]:
    """Dask's settings while a cluster that we start is there."""
    with dask.config.set({**our_settings(), **settings}), warnings.catch_warnings():
        # another dashboard may have the usual port: the link that is printed says which was taken instead
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        yield


def _one_line(error: BaseException) -> str:
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
    with _settings(**{"distributed.nanny.pre-spawn-environ": environment}):
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
            raise ClusterError(f"cannot start a local cluster: {_one_line(error)}") from None
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
    with silence_logging_cmgr(logging.CRITICAL), _settings(), ExitStack() as stack:
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
                f"{type(error).__name__}: {_one_line(error)}"
            ) from None
        yield client


@contextmanager
def start_queue(cluster: configs.Queue) -> Iterator[Client]:
    """A client of a new scheduler, here, and of the jobs that it submits; all are cancelled when the context ends."""
    made, arguments = _class(cluster), _arguments(cluster)
    jobs = _Jobs(cluster)
    with _settings():
        try:
            queue = made(**arguments, job_cls=jobs.recorded(made.job_cls), silence_logs=logging.CRITICAL)
        except (TypeError, ValueError, OSError, RuntimeError, ImportError) as error:
            raise _cannot_start(cluster, error) from None
        guard(queue)
        queue.mandeldask_jobs = jobs  # for `wait_for_worker`, which has nothing but a client
        with queue, jobs.kept(queue), Client(queue) as client:
            yield client


def job_script(cluster: configs.Queue) -> str:
    """The script of each job, as it would be submitted; nothing is started."""

    async def script() -> str:  # a cluster made in a running event loop starts no scheduler
        return str(_class(cluster)(**_arguments(cluster), asynchronous=True).job_script())

    try:
        return asyncio.run(script())
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise _cannot_start(cluster, error) from None


class _Jobs:
    """The jobs of one cluster: what became of their submission, and those that end submitted again."""

    def __init__(self, cluster: configs.Queue) -> None:
        self.wanted, self.minimum = cluster.jobs, cluster.minimum_jobs or cluster.jobs
        self.ids: list[str] = []
        self.refusal = ""  # what the batch system said when it last refused a job
        self._heard: dict[str, float] = {}  # job -> when it last had a worker, or was refused

    def recorded(self, job_class: Any) -> Any:
        """`job_class`, with the ids that it is given, and with refusals kept rather than raised in an event loop."""
        jobs = self

        class Job(job_class):  # type: ignore[misc]
            async def start(self) -> None:
                try:
                    await super().start()
                    jobs.ids.append(self.job_id)
                except (OSError, RuntimeError, ValueError) as error:
                    jobs.refusal = _one_line(error)
                    jobs._heard[self.name] = time.monotonic()
                    self.status = Status.running  # to be closed like any other

        return Job

    @contextmanager
    def kept(self, queue: Any) -> Iterator[None]:
        """Submit the jobs, and those that end again, until the context ends.

        Dask's own adaptive scaling does so for jobs of one worker only (distributed 2026.8, dask-jobqueue 0.9).
        """
        if self.minimum < self.wanted:
            queue.adapt(minimum_jobs=self.minimum, maximum_jobs=self.wanted)
        else:
            queue.scale(jobs=self.wanted)

        async def look() -> None:
            over = self._over(queue, time.monotonic())
            if over and queue.status is Status.running:
                await queue.scale_down(over)
                queue.scale(jobs=max(len(queue.worker_spec) + len(over), self.minimum))

        periodic = PeriodicCallback(look, LOOK_MILLISECONDS)
        queue.loop.add_callback(periodic.start)
        try:
            yield
        finally:
            queue.loop.add_callback(periodic.stop)

    def _over(self, queue: Any, now: float) -> set[str]:
        """The jobs whose workers were there and are gone, and those that were refused, some time ago."""
        workers = {str(w["name"]) for w in queue.scheduler_info["workers"].values()}
        for name, spec in queue.worker_spec.items():
            if workers & {f"{name}{suffix}" for suffix in spec.get("group", [""])}:
                self._heard[name] = now
        over = {name for name in queue.worker_spec if now - self._heard.get(name, now) > LOST_SECONDS}
        for name in over:
            del self._heard[name]
        return over


def _class(cluster: configs.Queue) -> Any:
    before = signal.getsignal(signal.SIGINT)
    try:
        classes = vars(importlib.import_module("dask_jobqueue"))
        return next(made for name, made in classes.items() if name.lower() == f"{cluster.kind}cluster")
    except ImportError:
        raise ClusterError(f"a {cluster.kind} cluster needs dask-jobqueue: {pip_install('jobqueue')}") from None
    finally:
        if signal.getsignal(signal.SIGINT) is not before:  # dask-jobqueue 0.9 answers Ctrl-C with sys.exit()
            signal.signal(signal.SIGINT, before)


def _arguments(cluster: configs.Queue) -> dict[str, Any]:
    """The arguments of dask-jobqueue's class: the description's, beside those of Dask's own settings."""
    settings = dask.config.get(f"jobqueue.{cluster.kind}", {})
    options = dict(cluster.options)
    # what reaches the scheduler can run code, so it is loopback unless an interface is named; the dashboard always is
    interface = cluster.interface or options.pop("interface", None) or settings.get("interface")
    scheduler = {
        **({"interface": interface} if interface else {"host": LOOPBACK}),
        "dashboard_address": DASHBOARD,
        **(settings.get("scheduler-options") or {}),
        **options.pop("scheduler_options", {}),
    }
    seconds = _seconds(cluster.walltime)
    stagger = min(MAX_STAGGER_SECONDS, seconds // 20)
    lifetime = ["--lifetime", f"{seconds - 2 * stagger}s", "--lifetime-stagger", f"{stagger}s"]
    taken = inspect.signature(_class(cluster).job_cls.__init__).parameters  # which name the system's own options
    named = {"queue": cluster.queue, "account" if "account" in taken else "project": cluster.account}
    if "walltime" in taken:
        minutes, rest = divmod(seconds, 60)
        named["walltime"] = f"{minutes // 60:02}:{minutes % 60:02}" + (f":{rest:02}" if cluster.kind != "lsf" else "")
    worker = [
        *(lifetime if "walltime" in taken else []),
        *([] if interface else ["--host", LOOPBACK]),
        *["--no-dashboard", "--dashboard-address", f"{LOOPBACK}:0"],  # its HTTP server is there all the same
        *["--preload-nanny", shlex.quote(KEEP_FREED_MEMORY)],
        *(settings.get("worker-extra-args") or []),
        *options.pop("worker_extra_args", []),
    ]
    return {
        "cores": cluster.cores,
        "processes": cluster.processes or cluster.cores,
        "memory": cluster.memory,
        "job_name": "mandeldask",
        "interface": interface,
        "scheduler_options": scheduler,
        "worker_extra_args": worker,
        **{name: value for name, value in named.items() if value is not None},
        **options,
    }


def _seconds(walltime: str) -> int:
    """Seconds of [days-]hours:minutes[:seconds]."""
    days, _, rest = walltime.rpartition("-")
    hours, minutes, *seconds = map(int, rest.split(":"))
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + sum(seconds)


def _cannot_start(cluster: configs.Queue, error: Exception) -> ClusterError:
    return ClusterError(f"cannot start a {cluster.kind} cluster: {_one_line(error)}; see the cluster description")
