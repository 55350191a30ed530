"""Submit: hand a job over to a cluster, where its driver runs as a task, so that the client may go."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

from distributed import Client, get_client, get_worker, secede

from mandeldask import config as configs
from mandeldask.cluster import SchedulerReference, Session, Size, size_of_client
from mandeldask.errors import ClusterError, ConfigError, MandeldaskError, StoreError
from mandeldask.job.background import LINGER_SECONDS, kept_cluster
from mandeldask.job.dispatcher import Submission
from mandeldask.job.driver import drive, tell_started
from mandeldask.job.events import Event, Expected, Notice, Observer, Orbit, Plan, Preparing, Summary, ignore
from mandeldask.job.handle import Job
from mandeldask.job.job_status import SPACE, driver_key, on_scheduler, quietly, status_of_jobs, topic_of
from mandeldask.job.lease import HEARTBEAT_SECONDS, outcome, release, reserve
from mandeldask.job.ledger import MAX_ERROR_LENGTH, MAX_ERRORS
from mandeldask.job.periodic import every
from mandeldask.job.plan import NO_STORE, make_plan
from mandeldask.job.runs import AnyConfig, read_description
from mandeldask.kernels import choose
from mandeldask.store import Store, open_store, place_of
from mandeldask.telemetry import Progress, TileFailed, job_id
from mandeldask.text import plural
from mandeldask.tile import tile_name

PRIORITY = 100  # a driver does not wait for other people's tasks: it takes no thread for longer than a moment
LOG_SECONDS = 5.0  # between two lines about the reference orbit
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True)
class _Request:
    """What is sent to the cluster."""

    name: str
    config: Any  # what `make_plan` wants of the run description: a driver may lack what reads one
    kernel: str
    run_id: str  # of this submission: a name may be used again
    ignore_space: bool
    identity: str = ""  # of the store, once it is there

    def plan(self, size: Size, overwrite: bool = False) -> Plan:
        make = partial(make_plan, run_id=self.run_id, ignore_space=self.ignore_space)
        return make(self.config, self.kernel, size, overwrite, picture=self.config.picture)

    def reserve(self, store: Store, sent: bool = False) -> None:
        reserve(store, self.name, self.run_id, sent)

    def release(self, ended: Mapping[str, Any] | None = None) -> None:
        """Let go of the store; where that cannot be, the hold on it is forgotten after a while."""
        with suppress(MandeldaskError, OSError):
            release(self.config.store, self.run_id, ended)


def submit(
    config: AnyConfig,
    out: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    name: str | None = None,
    cluster: configs.AnyCluster | None = None,
    client: Client | None = None,
    trust: bool = False,
    upload: bool = False,
    ignore_space: bool = False,
    tell: Observer = ignore,
) -> Job:
    """Compute a field into a store on a cluster, without waiting for it.

    The driver is a task of the cluster: it is started again elsewhere when its worker dies, and needs no client. A
    cluster of a kind that has to be started (local, a batch system) is kept by a process of its own in the background,
    and ends a while after its last job.

    Parameters
    ----------
    config, out, overrides, overwrite, cluster, trust, upload, ignore_space
        As for `run`. The store's path is one that the workers see; of a bucket they need credentials.
    name : str, optional
        Of the job; by default the store's name and a few random digits.
    client : distributed.Client, optional
        A cluster that is already there.
    tell : callable, optional
        Is given each event until the job is sent: `Preparing`, `Notice`, `Plan`, `Started`.

    Returns
    -------
    Job
        To wait for, ask, cancel. `mandeldask.job(name, cluster)` finds it again from any process.

    Raises
    ------
    ConfigError, StoreError, ClusterError
        One or two lines that say what is wrong and what to do; then nothing was submitted.
    """
    described = read_description(config, overrides, out, trust or bool(cluster) or client is not None)
    if not described.store:
        raise ConfigError(NO_STORE)
    place = place_of(described.store)
    kernel, reason = choose(described.kernel, described.view, here=False)
    tell(Preparing(kernel, reason))
    wanted = {name: getattr(described, name) for name in ("view", "max_iter", "fields", "tile", "proof")}
    name = _new_name(place.url) if name is None else _checked(name)
    wanted |= {"store": place, "picture": configs.picture_options(described)}
    request = _Request(name, SimpleNamespace(**wanted), kernel, uuid.uuid4().hex, ignore_space)
    with Session(
        cluster or described.cluster,
        kernel=kernel,
        client=client,
        upload=upload,
        needs="mandeldask.job",
        say=lambda text: tell(Notice(text)),
        start=kept_cluster,
    ) as there:
        if there.runs_already:
            there.connect()  # before a job is spoken of
        tell(Notice(f"{name}, on {there.description.introduction if there.description else 'your cluster'}", "job"))
        if upload and client is None and not there.runs_already:
            raise ConfigError(
                "upload is for a cluster that runs already; the workers of one that is started have mandeldask"
            )
        if not there.runs_already:
            ends = f"ends {LINGER_SECONDS:.0f} s after its last job"
            tell(Notice(f"the cluster is started as a process of its own, and {ends}", "background"))
        return _submit(request, there, overwrite, tell)


def _new_name(store: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", os.path.basename(store).removesuffix(".zarr")).lstrip("._-") or "job"
    return f"{stem[:50]}-{secrets.token_hex(3)}"


def _checked(name: str) -> str:
    """A job's name as given; ConfigError where it could not be typed again or shown."""
    if not re.fullmatch(NAME, name) or name.endswith(".zarr"):
        raise ConfigError(
            "a job's name is letters, digits, dots, dashes and underscores, at most 64, and does not end in .zarr as "
            f"stores do; got {name!r}"
        )
    return name


def _submit(request: _Request, there: Session, overwrite: bool, tell: Observer) -> Job:
    with ExitStack() as stack:
        if there.planned_size:
            # A cluster that is started has this machine's files. Its workers may take their time: the driver checks
            # the plan again when it begins.
            plan = _prepare(request, there.planned_size, overwrite)
            stack.callback(request.release)  # unless all goes well
            with every(HEARTBEAT_SECONDS, partial(request.reserve, plan.store), "lease"):  # then its keeper does so
                client = there.connect()
            tell(plan)
        else:
            client = there.ready()
            plan = _prepare_there(client, request, overwrite)
            stack.callback(_there, client, request.release)
            there.check_store(plan.store)
            tell(plan)
            _there(client, partial(request.reserve, plan.store, sent=True))
        _send(client, replace(request, identity=plan.store.identity), plan)
        stack.pop_all()
    reach, link = SchedulerReference(client, None if there.description else client), tell_started(client, tell)
    return Job(request.name, plan.store.path, reach.address, link, plan.tiles, plan.pending, reach)


def _prepare(request: _Request, size: Size, overwrite: bool) -> Plan:
    """Create or open the store as the workers see it, and hold it for the job, whose driver is not there yet."""
    folder = os.path.dirname(request.config.store.url)
    if request.config.store.is_folder and not os.path.isdir(folder):
        raise StoreError(
            f"there is no directory {folder} on {socket.gethostname()}, where the workers run: "
            "name a store where they can see it, or make the directory there"
        )
    plan = request.plan(size, overwrite)
    request.reserve(plan.store)
    return plan


def _prepare_there(client: Client, request: _Request, overwrite: bool) -> Plan:
    """The store is made by a worker, as the workers see it: this machine may not."""
    if any(status.job == request.name and not status.ended for status in status_of_jobs(client)):
        raise _name_taken(request.name)
    worker = min(client.nthreads())
    prepare = partial(_prepare, request, size_of_client(client), overwrite)
    try:
        plan = client.run(quietly, prepare, workers=[worker])[worker]
    except OSError as error:
        raise ClusterError(f"a worker was lost while it made the store: {error}; submit again") from None
    if isinstance(plan, OSError):
        raise StoreError(f"the workers cannot use {request.config.store.url}: {plan.strerror or plan}")
    if isinstance(plan, MandeldaskError):
        raise plan
    assert isinstance(plan, Plan)
    return plan


def _there(client: Client, action: Callable[[], None]) -> None:
    """Hold or let go of the store on a worker, as one made it; where that fails, the hold is soon forgotten."""
    with suppress(OSError):
        if client.status == "running" and (workers := client.nthreads()):
            client.run(quietly, action, workers=[min(workers)])


def _send(client: Client, request: _Request, plan: Plan) -> None:
    """Start the driver on the cluster, where it outlives this client."""
    job = {
        "name": request.name,
        "run": request.run_id,
        "store": plan.store.path,
        "submitted": time.time(),
        "tiles": plan.tiles,
        "done": plan.done,
        "id": job_id(plan.store.identity, plan.store.path),  # on the dashboard
    }
    if not on_scheduler(client, _claim, job):
        raise _name_taken(request.name)
    key = driver_key(request.name, request.run_id)
    future = client.submit(_run_driver, request, key=key, priority=PRIORITY, pure=False)
    client.publish_dataset(future, name=topic_of(request.name), override=True)


def _name_taken(name: str) -> ConfigError:
    return ConfigError(f"the scheduler has a job {name} that has not ended: choose another name, or cancel it")


def _claim(job: dict[str, Any], dask_scheduler: Any = None) -> bool:
    """On the scheduler: enter a job, unless one of its name has not ended."""
    known = dask_scheduler.task_metadata.setdefault(SPACE, {})
    there = known.get(job["name"])
    if isinstance(there, dict) and not there.get("outcome"):
        task = dask_scheduler.tasks.get(driver_key(job["name"], str(there.get("run"))))
        if task is not None and task.state != "erred":
            return False
    known[job["name"]] = job
    return True


def _run_driver(request: _Request) -> None:
    """The task: compute what is missing. How it ended is in the scheduler's metadata."""
    client, home = get_client(), get_worker().address
    secede()
    entered = client.get_metadata([SPACE, request.name], default={})
    if entered.get("run") != request.run_id or entered.get("outcome"):
        return  # it has ended: its result, this None, died with a worker, and Dask makes it anew
    client.run_on_scheduler(_forget_deaths, driver_key(request.name, request.run_id))
    reporter = _JobReporter(client, request.name)
    reporter.log(f"the driver runs on {home}, process {os.getpid()} of {socket.gethostname()}")
    try:
        summary = _drive(request, client, home, reporter)
        state = "incomplete" if summary.exit_code else "finished"
        ended = {"state": state, "summary": asdict(summary), "exit_code": summary.exit_code}
        reporter.log(f"{state}: {plural(summary.computed, 'tile')} computed, {summary.failed} failed")
    except (MandeldaskError, OSError) as error:
        ended = outcome(error)
        reporter.log(f"{ended['state']}: {ended['message']}")
        request.release(ended)
    client.set_metadata([SPACE, request.name, "outcome"], ended | {"ended": time.time()})


def _forget_deaths(key: tuple[str, str], dask_scheduler: Any = None) -> None:
    """On the scheduler: a driver whose worker died is not to blame, however often; each start clears its record.

    A driver that cannot even start is given up by the scheduler after `distributed.scheduler.allowed-failures` tries.
    """
    task = dask_scheduler.tasks.get(key)
    if task is not None:
        task.suspicious = 0


def _drive(request: _Request, client: Client, home: str, reporter: _JobReporter) -> Summary:
    _check_store(request)
    is_cancelled = partial(client.get_metadata, [SPACE, request.name, "cancel"], default=None)
    submission = Submission(request.name, request.run_id, home, lambda: bool(is_cancelled()))
    with Session(kernel=request.kernel, client=client) as cluster:
        plan = request.plan(cluster.size)
        reporter(plan)
        return drive(plan, cluster, reporter, submission)


def _check_store(request: _Request) -> None:
    """Raise StoreError where the store that the job was submitted for is not to be seen: none is made here."""
    try:
        same = open_store(request.config.store).identity == request.identity
    except StoreError as error:
        if not request.config.store.is_folder:  # it says why
            raise StoreError(f"{socket.gethostname()}, where the driver runs: {error}") from None
        same = False
    if not same:
        raise StoreError(
            f"{socket.gethostname()}, where the driver runs, does not see the store that was made for this job at "
            f"{request.config.store.url}: name one where all machines of the cluster see it, and submit again"
        )


class _JobReporter:
    """An observer on the cluster: progress to the scheduler's metadata, what happens to the job's topic."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name
        self.done_before, self.logged = 0, 0.0
        self.errors: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Plan():
                self.done_before = event.done
                self.log(f"{event.pending} of {plural(event.tiles, 'tile')} to compute")
                self._note(None)  # no rate yet; that of a driver that died says nothing
            case Notice():
                self.log(event.text)
            case Orbit() if time.monotonic() - self.logged >= LOG_SECONDS:
                self.log(event.words)
            case Expected():
                self.log(f"expected: {event.words}")
            case TileFailed():
                then = "given up" if event.final else "to be tried again"
                self.log(f"tile {tile_name(event.tile)}, attempt {event.attempt}, {then}: {event.error}")
                if event.final and len(self.errors) < MAX_ERRORS:
                    self.errors[tile_name(event.tile)] = event.error[:MAX_ERROR_LENGTH]
            case Progress():
                self._note(event)

    def _note(self, progress: Progress | None) -> None:
        told = {
            "progress": progress and asdict(progress),
            "errors": dict(self.errors),
            "done": self.done_before + (progress.done if progress else 0),
            "time": time.time(),
        }
        self.client.set_metadata([SPACE, self.name, "told"], told)

    def log(self, text: str) -> None:
        self.logged = time.monotonic()
        self.client.log_event(topic_of(self.name), {"time": time.time(), "text": text})
