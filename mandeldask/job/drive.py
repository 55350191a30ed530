"""A submitted job: the driver as a task of the cluster, and what it tells those who ask for it."""

from __future__ import annotations

import getpass
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from distributed import Client, Future, get_client, get_worker, secede

from mandeldask import cluster as clusters
from mandeldask import config as configs
from mandeldask.errors import ClusterError, ConfigError, MandeldaskError, StoreError
from mandeldask.job import space
from mandeldask.job.compute import compute, finish
from mandeldask.job.driver import Driver
from mandeldask.job.events import Event, Expected, Plan, Progress, Summary, TileFailed
from mandeldask.job.ledger import MAX_ERROR_LENGTH, MAX_ERRORS, Ledger, let_go, name_of, reserve, swept
from mandeldask.job.plan import make_plan
from mandeldask.job.pulse import every
from mandeldask.kernels import KERNELS
from mandeldask.store import Place, open_store

SPACE = "mandeldask"  # of the scheduler's metadata, published data and event topics
ASK_SECONDS = 0.5
PRIORITY = 100  # a driver does not wait for other people's tasks: it takes no thread for longer than a moment
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True)
class Job:
    """What is sent to the cluster."""

    name: str
    config: Mapping[str, Any]
    kernel: str
    run: str  # this submission: a name may be used again
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


def key_of(name: str, run: str) -> tuple[str, str]:
    """The key of a job's driver on the scheduler; the first part is what Dask's own pages call it."""
    return (f"{SPACE}-driver", f"{name}-{run}")


def data_of(name: str) -> str:
    """The name under which a job's future is published, so that it outlives its client."""
    return f"{SPACE}-{name}"


def topic_of(name: str) -> str:
    """The topic of a job's log lines."""
    return f"{SPACE}-{name}"


def prepare(job: Job, size: clusters.Size, overwrite: bool) -> Plan:
    """Create or open the store as the workers see it, and hold it for the job, whose driver is not there yet.

    Raises
    ------
    ConfigError, StoreError, ClusterError
        As `make_plan`; StoreError also where the directory that the store is to stand in is missing.
    """
    config = configs.parse(job.config)
    folder = os.path.dirname(job.place.url)
    if job.place.is_folder and not os.path.isdir(folder):
        raise StoreError(
            f"there is no directory {folder} on {socket.gethostname()}, where the workers run: "
            "name a store where they can see it, or make the directory there"
        )
    plan = make_plan(config, job.kernel, size, overwrite, job.run, job.ignore_space, job.place)
    reserve(plan.store, job.name, job.run)
    return plan


def send(client: Client, job: Job, plan: Plan) -> Future:
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
            "name": job.name,
            "run": job.run,
            "store": plan.store.path,
            "field": plan.store.description.to_json(),
            "kernel": job.kernel,
            "submitted": time.time(),
            "submitted_by": f"{getpass.getuser()}@{socket.gethostname()}",
            "tiles": plan.tiles,
            "done_before": plan.done,
        },
    )
    if not claimed:
        raise ConfigError(f"the scheduler has a job {job.name} that has not ended: choose another --name, or cancel it")
    future = client.submit(drive, job, key=key_of(job.name, job.run), priority=PRIORITY, pure=False)
    client.publish_dataset(future, name=data_of(job.name), override=True)
    return future


def drive(job: Job) -> dict[str, Any]:
    """The task: compute what is missing. How it ended is in the scheduler's metadata, and returned."""
    client, home = get_client(), get_worker().address
    secede()
    client.run_on_scheduler(_forgive, key_of(job.name, job.run))
    teller = _Teller(client, job)
    teller.log(f"the driver runs on {home}, process {os.getpid()} of {socket.gethostname()}")
    started = time.time()
    try:
        summary = _drive(job, client, home, teller)
        outcome = {"state": "finished", "summary": asdict(summary), "exit_code": summary.exit_code}
        teller.log(f"finished: {summary.computed} tiles computed, {summary.failed} failed")
    except MandeldaskError as error:
        state = "cancelled" if error.exit_code == 130 else "failed"
        outcome = {"state": state, "message": str(error), "exit_code": error.exit_code}
        teller.log(f"{state}: {error}")
        with suppress(MandeldaskError, OSError):  # told already
            let_go(job.place, job.run)
    client.set_metadata([SPACE, job.name, "outcome"], outcome | {"started": started, "ended": time.time()})
    return outcome


def _drive(job: Job, client: Client, home: str, teller: _Teller) -> Summary:
    config = configs.parse(job.config)
    block_function = KERNELS[job.kernel](config.max_iter, config.fields, config.view)
    _see_store(job)
    size = clusters.size_of_client(client)
    plan = make_plan(config, job.kernel, size, run=job.run, ignore_space=job.ignore_space, place=job.place)

    def ready(client: Client) -> None:
        clusters.wait_for_worker(client)
        clusters.check(client, job.kernel)
        clusters.check_store(client, plan.store)

    teller(plan)
    ledger = Ledger(plan.store)
    with ledger.kept(job.name, job.run):
        with swept(plan.store, teller.log):
            if plan.pending and not job.ignore_space:
                space.look(plan, teller.log)
            failed = compute(
                plan,
                ledger,
                block_function,
                client,
                teller,
                ready,
                name=job.name,
                home=home,
                run=job.run,
                watch=teller.watch,
            )
        return finish(plan, ledger, failed)


def _see_store(job: Job) -> None:
    """Raise StoreError where the store that the job was submitted for is not to be seen: none is made here."""
    try:
        same = open_store(job.place).identity == job.identity
    except StoreError as error:
        if not job.place.is_folder:  # it says why
            raise StoreError(f"{socket.gethostname()}, where the driver runs: {error}") from None
        same = False
    if not same:
        raise StoreError(
            f"{socket.gethostname()}, where the driver runs, does not see the store that was made for this job at "
            f"{job.place.url}: name one where all machines of the cluster see it, and submit again"
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
        task = dask_scheduler.tasks.get(key_of(job["name"], str(there.get("run"))))
        if task is not None and task.state != "erred":
            return False
    known[job["name"]] = job
    return True


def _forgive(key: tuple[str, str], dask_scheduler: Any = None) -> None:
    """On the scheduler: a driver whose worker died is not to blame, however often; each start clears its record.

    One that cannot even start is given up by the scheduler after `distributed.scheduler.allowed-failures` tries.
    """
    task = dask_scheduler.tasks.get(key)
    if task is not None:
        task.suspicious = 0


class _Teller:
    """An observer on the cluster: progress to the scheduler's metadata, what happens to the job's topic."""

    def __init__(self, client: Client, job: Job) -> None:
        self.client, self.job = client, job
        self.done_before = 0
        self.errors: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Plan():
                self.done_before = event.done
                self.log(f"{event.pending} of {event.tiles} tiles to compute")
                # no rate yet; that of a driver that died says nothing
                self.client.set_metadata(
                    [SPACE, self.job.name, "progress"], {"done_before": event.done, "time": time.time()}
                )
            case Expected():
                self.log(f"{event.seconds:.3g} s of kernel expected, {event.seconds_by_row:.3g} s row by row")
            case TileFailed():
                then = "given up" if event.final else "to be tried again"
                self.log(f"tile {name_of(event.tile)}, attempt {event.attempt}, {then}: {event.error}")
                if event.final and len(self.errors) < MAX_ERRORS:
                    self.errors[name_of(event.tile)] = event.error[:MAX_ERROR_LENGTH]
            case Progress():
                now = {
                    **asdict(event),
                    "done_before": self.done_before,
                    "errors": dict(self.errors),
                    "time": time.time(),
                }
                self.client.set_metadata([SPACE, self.job.name, "progress"], now)

    def log(self, text: str) -> None:
        self.client.log_event(topic_of(self.job.name), {"time": time.time(), "text": text})

    @contextmanager
    def watch(self, driver: Driver) -> Iterator[None]:
        """Cancel the driver when somebody asks for it."""

        def ask() -> None:
            if self.client.get_metadata([SPACE, self.job.name, "cancel"], default=None):
                driver.cancel()

        with every(ASK_SECONDS, ask, "cancel"):
            yield
