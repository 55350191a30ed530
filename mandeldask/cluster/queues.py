"""Workers as jobs of a batch system, through dask-jobqueue. The scheduler runs here, and so must stay until the end."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import shlex
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from dask.utils import parse_bytes
from distributed import Client, Status
from tornado.ioloop import PeriodicCallback

from mandeldask.cluster.settings import DASHBOARD, LOOPBACK, cluster_settings
from mandeldask.cluster.workers import Size
from mandeldask.config import Queue
from mandeldask.errors import ClusterError

SYSTEMS = {  # dask-jobqueue's class, and the command that shows what becomes of jobs
    "slurm": ("SLURMCluster", "squeue --jobs={}"),
    "pbs": ("PBSCluster", "qstat {}"),
    "sge": ("SGECluster", "qstat"),
    "lsf": ("LSFCluster", "bjobs {}"),
    "htcondor": ("HTCondorCluster", "condor_q {}"),
    "oar": ("OARCluster", "oarstat"),
    "moab": ("MoabCluster", "showq"),
}
STAGGER = 0.05  # of the walltime, at most 5 minutes: workers end one by one, the last this long before the walltime
MAX_STAGGER_SECONDS = 300
LOST_SECONDS = 15.0  # a job without a worker for so long is over; a nanny brings a killed worker back in 3
LOOK_MILLISECONDS = 250  # a worker that comes and goes between two looks was never there
RETRY_SECONDS = 60.0  # until a job that was refused is submitted again
# Dask's nanny makes its workers give freed memory back at once, which costs page faults: see local.py.
KEEP_FREED_MEMORY = (
    'import dask; dask.config.get("distributed.nanny.pre-spawn-environ").pop("MALLOC_TRIM_THRESHOLD_", None)'
)


def size_of(cluster: Queue) -> Size:
    """The size the cluster has when all of its jobs run."""
    processes = cluster.processes or cluster.cores
    return Size(cluster.jobs * processes, cluster.cores // processes, parse_bytes(cluster.memory) // processes)


@contextmanager
def started(cluster: Queue) -> Iterator[Client]:
    """A client of a new scheduler, here, and of the jobs that it submits; all are cancelled when the context ends.

    Raises
    ------
    ClusterError
        dask-jobqueue is missing, or does not take the arguments; no command here that submits jobs.
    """
    made, arguments = _class(cluster), _arguments(cluster)
    command = shlex.split(made.job_cls.submit_command)[0]
    if not shutil.which(command):
        raise ClusterError(
            f"there is no {command} here, the command that submits jobs: start this where jobs are submitted, such as "
            "the login node. `mandeldask cluster` shows the job script without it"
        )
    jobs = Jobs(cluster)
    with cluster_settings():
        try:
            queue = made(**arguments, job_cls=jobs.recorded(made.job_cls), silence_logs=logging.CRITICAL)
        except (TypeError, ValueError, OSError, RuntimeError, ImportError) as error:
            raise _cannot_start(cluster, error) from None
        queue.mandeldask_jobs = jobs  # for `wait_for_worker`, which has nothing but a client
        with queue, jobs.kept(queue), Client(queue) as client:
            yield client


def job_script(cluster: Queue) -> str:
    """The script of each job, as it would be submitted; nothing is started."""

    async def script() -> str:  # a cluster made in a running event loop starts no scheduler
        return str(_class(cluster)(**_arguments(cluster), asynchronous=True).job_script())

    try:
        return asyncio.run(script())
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise _cannot_start(cluster, error) from None


class Jobs:
    """The jobs of one cluster: what became of their submission, and those that end submitted again."""

    def __init__(self, cluster: Queue) -> None:
        self.kind, self.wanted, self.minimum = cluster.kind, cluster.jobs, cluster.minimum_jobs
        self.ids: list[str] = []
        self.refusal = ""  # what the batch system said when it last refused a job
        self._missing: dict[str, float] = {}  # jobs without a worker, and since when
        self._arrived: set[str] = set()

    def recorded(self, job_class: Any) -> Any:
        """`job_class`, with the ids that it is given, and with refusals kept rather than raised in an event loop."""
        jobs = self

        class Job(job_class):  # type: ignore[misc]
            async def start(self) -> None:
                try:
                    await super().start()
                    jobs.ids.append(self.job_id)
                except (OSError, RuntimeError, ValueError) as error:
                    jobs.refusal = _said(error)
                    self.status = Status.running  # to be closed like any other

        return Job

    @contextmanager
    def kept(self, queue: Any) -> Iterator[None]:
        """Submit the jobs, and those that end again, until the context ends.

        Dask's own adaptive scaling does so for jobs of one worker only (distributed 2026.8, dask-jobqueue 0.9).
        """
        if self.minimum is not None and self.minimum < self.wanted:
            queue.adapt(minimum_jobs=self.minimum, maximum_jobs=self.wanted)
        else:
            queue.scale(jobs=self.wanted)

        async def look() -> None:
            over = self._over(queue, time.monotonic())
            if over and queue.status is Status.running:
                await queue.scale_down(over)
                queue.scale(jobs=max(len(queue.worker_spec) + len(over), self.minimum or self.wanted))

        keeper = PeriodicCallback(look, LOOK_MILLISECONDS)
        queue.loop.add_callback(keeper.start)
        try:
            yield
        finally:
            queue.loop.add_callback(keeper.stop)

    def _over(self, queue: Any, now: float) -> set[str]:
        """The jobs that are over: their workers were there and are gone, or they were refused some time ago."""
        workers = {str(w["name"]) for w in queue.scheduler_info["workers"].values()}
        over = set()
        for name, spec in queue.worker_spec.items():
            if workers & {f"{name}{suffix}" for suffix in spec.get("group", [""])}:
                self._arrived.add(name)
                self._missing.pop(name, None)
                continue
            job = queue.workers.get(name)
            refused = job is not None and job.status is Status.running and job.job_id is None
            if refused or name in self._arrived:
                since = self._missing.setdefault(name, now)
                if now - since > (RETRY_SECONDS if refused else LOST_SECONDS):
                    over.add(name)
                    self._missing.pop(name)
                    self._arrived.discard(name)
        return over

    def look(self) -> str:
        """What to type to see what becomes of the jobs."""
        return SYSTEMS[self.kind][1].format(("," if self.kind == "slurm" else " ").join(self.ids))


def _class(cluster: Queue) -> Any:
    before = signal.getsignal(signal.SIGINT)
    try:
        module = importlib.import_module("dask_jobqueue")  # 0.9 answers Ctrl-C with sys.exit() from here on
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)
        return getattr(module, SYSTEMS[cluster.kind][0])
    except ImportError:
        raise ClusterError(
            f"a {cluster.kind} cluster needs dask-jobqueue: pip install 'mandeldask[jobqueue]'"
        ) from None


def _arguments(cluster: Queue) -> dict[str, Any]:
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
    worker = [
        *_lifetime(cluster),
        *([] if interface else ["--host", LOOPBACK]),
        *["--no-dashboard", "--dashboard-address", f"{LOOPBACK}:0"],  # its HTTP server is there all the same
        *["--preload-nanny", shlex.quote(KEEP_FREED_MEMORY)],
        *(settings.get("worker-extra-args") or []),
        *options.pop("worker_extra_args", []),
    ]
    return {
        "cores": cluster.cores,
        "processes": cluster.processes or cluster.cores,
        "memory": str(cluster.memory),
        "job_name": "mandeldask",
        "interface": interface,
        "scheduler_options": scheduler,
        "worker_extra_args": worker,
        **_named_by_system(cluster),
        **options,
    }


def _lifetime(cluster: Queue) -> list[str]:
    """Options that make workers leave one by one before the walltime; HTCondor has none."""
    if cluster.kind == "htcondor":
        return []
    seconds = _seconds(cluster.walltime)
    stagger = min(MAX_STAGGER_SECONDS, int(STAGGER * seconds))
    return ["--lifetime", f"{seconds - 2 * stagger}s", "--lifetime-stagger", f"{stagger}s"]


def _named_by_system(cluster: Queue) -> dict[str, str]:
    """Queue, account and walltime, as far as the batch system has them and by its names."""
    taken = inspect.signature(_class(cluster).job_cls.__init__).parameters
    given = {"queue": cluster.queue, "account" if "account" in taken else "project": cluster.account}
    named = {name: value for name, value in given.items() if value is not None}
    for name in named.keys() - taken.keys():
        raise ClusterError(f"a {cluster.kind} cluster has no {name}; leave it out, or say it in options")
    return named | ({"walltime": _walltime(cluster)} if "walltime" in taken else {})


def _seconds(walltime: str) -> int:
    """Seconds of [days-]hours:minutes[:seconds]."""
    days, _, rest = walltime.rpartition("-")
    hours, minutes, *seconds = map(int, rest.split(":"))
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + sum(seconds)


def _walltime(cluster: Queue) -> str:
    """The time limit as the batch system reads it: LSF takes no seconds."""
    minutes, seconds = divmod(_seconds(cluster.walltime), 60)
    text = f"{minutes // 60:02}:{minutes % 60:02}"
    return text if cluster.kind == "lsf" else f"{text}:{seconds:02}"


def _cannot_start(cluster: Queue, error: Exception) -> ClusterError:
    text = str(error.__cause__ or error).splitlines() or [type(error).__name__]
    return ClusterError(f"cannot start a {cluster.kind} cluster: {text[0]}; see the cluster description")


def _said(error: Exception) -> str:
    """What the batch system said on stderr, on one line; else what went wrong."""
    text = str(error).partition("stderr:\n")[2] or str(error)
    return " ".join(text.split())[:400]
