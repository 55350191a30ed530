"""A submitted job on its cluster: the driver as a task, and what the scheduler holds of the job."""

from __future__ import annotations

import getpass
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from distributed import Client, Future, get_client, get_worker, secede

from mandeldask import config as configs
from mandeldask.cluster import Session, Size
from mandeldask.errors import ClusterError, ConfigError, MandeldaskError, StoreError
from mandeldask.job.driver import Submission, drive
from mandeldask.job.events import Event, Expected, Notice, Plan, Progress, Summary, TileFailed
from mandeldask.job.lease import release, reserve
from mandeldask.job.ledger import MAX_ERROR_LENGTH, MAX_ERRORS
from mandeldask.job.plan import make_plan
from mandeldask.store import Place, open_store
from mandeldask.tile import tile_name

SPACE = "mandeldask"  # of the scheduler's metadata, published data and event topics
PRIORITY = 100  # a driver does not wait for other people's tasks: it takes no thread for longer than a moment
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True)
class Request:
    """What is sent to the cluster."""

    name: str
    config: Mapping[str, Any]
    kernel: str
    run_id: str  # of this submission: a name may be used again
    place: Place  # of the store
    identity: str = ""  # of the store, once it is there
    ignore_space: bool = False


def check_name(name: str) -> str:
    """A job's name as given; ConfigError where it could not be typed again or shown."""
    if not re.fullmatch(NAME, name) or name.endswith(".zarr"):
        raise ConfigError(
            "a job's name is letters, digits, dots, dashes and underscores, at most 64, and does not end in .zarr as "
            f"stores do; got {name!r}"
        )
    return name


def driver_key(name: str, run_id: str) -> tuple[str, str]:
    """The key of a job's driver on the scheduler; the first part is what Dask's own pages call it."""
    return (f"{SPACE}-driver", f"{name}-{run_id}")


def topic_of(name: str) -> str:
    """The topic of a job's log lines, and the name under which its future is published, to outlive its client."""
    return f"{SPACE}-{name}"


def prepare(request: Request, size: Size, overwrite: bool) -> Plan:
    """Create or open the store as the workers see it, and hold it for the job, whose driver is not there yet.

    Raises
    ------
    ConfigError, StoreError, ClusterError
        As `make_plan`; StoreError also where the directory that the store is to stand in is missing.
    """
    folder = os.path.dirname(request.place.url)
    if request.place.is_folder and not os.path.isdir(folder):
        raise StoreError(
            f"there is no directory {folder} on {socket.gethostname()}, where the workers run: "
            "name a store where they can see it, or make the directory there"
        )
    plan = _plan(request, size, overwrite)
    reserve(plan.store, request.name, request.run_id)
    return plan


def send(client: Client, request: Request, plan: Plan) -> Future:
    """Start the driver on the cluster, where it outlives this client.

    Raises
    ------
    ConfigError
        The scheduler has a job of this name that has not ended.
    """
    claimed = on_scheduler(
        client,
        _claim,
        {
            "name": request.name,
            "run": request.run_id,
            "store": plan.store.path,
            "field": plan.store.description.to_json(),
            "kernel": request.kernel,
            "submitted": time.time(),
            "submitted_by": f"{getpass.getuser()}@{socket.gethostname()}",
            "tiles": plan.tiles,
            "done_before": plan.done,
        },
    )
    if not claimed:
        raise name_taken(request.name)
    key = driver_key(request.name, request.run_id)
    future = client.submit(run_driver, request, key=key, priority=PRIORITY, pure=False)
    client.publish_dataset(future, name=topic_of(request.name), override=True)
    return future


def name_taken(name: str) -> ConfigError:
    return ConfigError(f"the scheduler has a job {name} that has not ended: choose another --name, or cancel it")


def run_driver(request: Request) -> dict[str, Any]:
    """The task: compute what is missing. How it ended is in the scheduler's metadata, and returned."""
    client, home = get_client(), get_worker().address
    secede()
    client.run_on_scheduler(_forget_deaths, driver_key(request.name, request.run_id))
    reporter = _JobReporter(client, request.name)
    reporter.log(f"the driver runs on {home}, process {os.getpid()} of {socket.gethostname()}")
    started = time.time()
    try:
        summary = _drive(request, client, home, reporter)
        outcome = {"state": "finished", "summary": asdict(summary), "exit_code": summary.exit_code}
        reporter.log(f"finished: {summary.computed} tiles computed, {summary.failed} failed")
    except MandeldaskError as error:
        state = "cancelled" if error.exit_code == 130 else "failed"
        outcome = {"state": state, "message": str(error), "exit_code": error.exit_code}
        reporter.log(f"{state}: {error}")
        with suppress(MandeldaskError, OSError):  # told already
            release(request.place, request.run_id)
    client.set_metadata([SPACE, request.name, "outcome"], outcome | {"started": started, "ended": time.time()})
    return outcome


def _drive(request: Request, client: Client, home: str, reporter: _JobReporter) -> Summary:
    _check_store(request)
    is_cancelled = partial(client.get_metadata, [SPACE, request.name, "cancel"], default=None)
    submission = Submission(request.name, request.run_id, home, lambda: bool(is_cancelled()))
    with Session(kernel=request.kernel, client=client) as cluster:
        plan = _plan(request, cluster.size)
        reporter(plan)
        return drive(plan, cluster, reporter, submission)


def _plan(request: Request, size: Size, overwrite: bool = False) -> Plan:
    return make_plan(
        configs.parse(request.config),
        request.kernel,
        size,
        overwrite,
        run_id=request.run_id,
        ignore_space=request.ignore_space,
        place=request.place,
    )


def _check_store(request: Request) -> None:
    """Raise StoreError where the store that the job was submitted for is not to be seen: none is made here."""
    try:
        same = open_store(request.place).identity == request.identity
    except StoreError as error:
        if not request.place.is_folder:  # it says why
            raise StoreError(f"{socket.gethostname()}, where the driver runs: {error}") from None
        same = False
    if not same:
        raise StoreError(
            f"{socket.gethostname()}, where the driver runs, does not see the store that was made for this job at "
            f"{request.place.url}: name one where all machines of the cluster see it, and submit again"
        )


def on_scheduler(client: Client, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of mandeldask gives on the scheduler.

    Raises
    ------
    ClusterError
        The scheduler has no mandeldask, or is gone.
    """
    address = client.scheduler.address
    try:
        return client.run_on_scheduler(function, *arguments)
    except (ImportError, AttributeError):
        raise ClusterError(
            f"the scheduler at {address} has no mandeldask of this version, so no jobs either: "
            "install it there, or submit with --upload"
        ) from None
    except OSError:
        raise ClusterError(f"the scheduler at {address} was lost. What is finished is in the stores") from None


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


def _forget_deaths(key: tuple[str, str], dask_scheduler: Any = None) -> None:
    """On the scheduler: a driver whose worker died is not to blame, however often; each start clears its record.

    A driver that cannot even start is given up by the scheduler after `distributed.scheduler.allowed-failures` tries.
    """
    task = dask_scheduler.tasks.get(key)
    if task is not None:
        task.suspicious = 0


class _JobReporter:
    """An observer on the cluster: progress to the scheduler's metadata, what happens to the job's topic."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name
        self.done_before = 0
        self.errors: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Plan():
                self.done_before = event.done
                self.log(f"{event.pending} of {event.tiles} tiles to compute")
                self._note(None)  # no rate yet; that of a driver that died says nothing
            case Notice():
                self.log(event.text)
            case Expected():
                self.log(f"{event.seconds:.3g} s of kernel expected, {event.seconds_by_row:.3g} s row by row")
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
            "done_before": self.done_before,
            "time": time.time(),
        }
        self.client.set_metadata([SPACE, self.name, "told"], told)

    def log(self, text: str) -> None:
        self.client.log_event(topic_of(self.name), {"time": time.time(), "text": text})
