"""What is known of jobs: from their scheduler, and from a store, which needs none.

The scheduler's metadata has a mapping for each job: what `submit` entered, what the driver tells ("told"), the wish to
cancel it ("cancel") and how it ended ("outcome").
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from distributed import Client

from mandeldask.errors import ClusterError, ConfigError, JobCancelledError, MandeldaskError
from mandeldask.job.lease import is_alive, is_reserved, outcome, release
from mandeldask.job.plan import missing, recorded
from mandeldask.store import open_store
from mandeldask.telemetry import Progress
from mandeldask.text import command, option, plural, si

SPACE = "mandeldask"  # of the scheduler's metadata, published data and event topics
POLL_SECONDS = 0.5
CANCEL_SECONDS = 20.0
NEVER_BEGAN = "cancelled before its driver began"
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Status:
    """How far a job or a store is.

    `state` is one of these, and the same of a job and of its store:

    - waiting: for a worker to start its driver
    - running
    - finished: all is computed
    - incomplete: it came to its end or was interrupted, and tiles are missing
    - failed: an error ended it, which `message` tells
    - cancelled
    """

    state: str
    store: str
    job: str | None
    tiles: int
    done: int  # tiles in the store
    levels: int | None  # tiles of the levels still to be made; None where that is not known before all tiles are done
    failed: int  # tiles given up
    errors: dict[str, str]  # "row,column" of a failed tile -> what happened
    progress: Progress | None  # of the driver at work; None where there is none, or where it has just begun
    updated: float | None  # Unix time of the last update from the driver
    message: str | None = None  # why it failed, or what it waits for
    exit_code: int | None = None  # once it has ended

    @property
    def ended(self) -> bool:
        return self.exit_code is not None

    @property
    def words(self) -> str:
        """State, tiles, rate and time left, on one line."""
        now = self.progress
        rate = f"{si(now.samples_per_second)} samples/s" if now and now.samples_per_second else ""
        levels = f"{plural(self.levels, 'pyramid tile')} to build" if self.levels and self.done == self.tiles else ""
        words = (
            f"{self.state}: {self.done}/{plural(self.tiles, 'tile')}",
            levels,
            f"{self.failed} failed" if self.failed else "",
            rate,
            plural(now.workers, "worker") if now else "",
            self.left,
            self.message if self.state == "waiting" else "",
        )
        return ", ".join(filter(None, words))

    @property
    def left(self) -> str:
        """The time left as a person says it; "" where it is not known."""
        return self.progress.left if self.progress else ""


def status(store: str | os.PathLike[str]) -> Status:
    """How far a store is, which needs no scheduler; StoreError where there is none of mandeldask."""
    opened = open_store(store)
    notes = opened.read_notes()
    keys = ("lease", "errors", "ended")
    lease, errors, ended = (notes[key] if isinstance(notes.get(key), dict) else {} for key in keys)
    job = lease.get("job") or notes.get("job")
    present = recorded(opened)
    done, tiles = int(present.sum()), present.size
    levels = sum(int(tiles.sum()) for tiles in missing(opened, ~present)) if done == tiles else None
    complete = levels == 0
    waits = is_reserved(lease)
    alive = is_alive(lease) and not (waits and complete)  # nothing is left for the driver that it is held for
    state, code, message = ("finished", 0, None) if complete else _ended(ended)
    if alive:
        state, code, message = "waiting" if waits else "running", None, None
    return Status(
        state=state,
        store=opened.path,
        job=job if isinstance(job, str) else None,
        tiles=tiles,
        done=done,
        levels=levels,
        failed=len(errors),
        errors={str(tile): str(error) for tile, error in errors.items()},
        progress=_tried(Progress.checked, notes.get("progress")) if alive else None,
        updated=_tried(_finite, lease.get("heartbeat")),
        message=message,
        exit_code=code,
    )


def _ended(noted: dict[str, Any]) -> tuple[str, int | None, str | None]:
    """State, exit code and message of a driver that is gone, as far as it noted them in the store."""
    match noted:
        case {"state": "failed" | "cancelled" as state, "exit_code": int(code), "message": str(message)}:
            return state, code, message
    return "incomplete", 4, None


def status_of_jobs(client: Client) -> list[Status]:
    """The status of each job that a scheduler has had since it started, the oldest first."""
    jobs: list[dict[str, Any]] = on_scheduler(client, _jobs)
    known = []
    for job in jobs:
        with suppress(KeyError, TypeError, ValueError, AttributeError):  # what another program wrote there
            known.append((float(job["submitted"]), _of_job(job)))
    return [status for _, status in sorted(known, key=lambda pair: pair[0])]


def status_of_job(client: Client, name: str) -> Status:
    known = {str(status.job): status for status in status_of_jobs(client)}
    if name not in known:
        names = ", ".join(known) or "none"
        raise ConfigError(f"the scheduler at {client.scheduler.address} knows no job {name!r}; it has {names}")
    return known[name]


def wait(
    look: Callable[[], Status], timeout: float | None = None, tell: Callable[[Status], None] = lambda _: None
) -> Status:
    """Ask again and again until the job has ended; ClusterError where it has not after `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    status: Status | None = None
    while True:
        try:
            status = look()
        except ClusterError as error:
            if status is None:
                raise
            raise ClusterError(f"{error}: {command('resume', status.store)}") from None
        tell(status)
        if status.ended:
            return status
        if deadline is not None and time.monotonic() >= deadline:
            raise ClusterError(
                f"not done after {timeout:g} s: {status.done} of {plural(status.tiles, 'tile')}; wait again, or longer"
            )
        time.sleep(POLL_SECONDS)


def cancel(client: Client, name: str) -> Status:
    """End a job; what is finished stays in its store. Gives its status after that.

    ConfigError where there is no such job, or one that has ended; ClusterError where its driver does not answer.
    """
    status = status_of_job(client, name)
    if status.ended:
        raise ConfigError(f"job {name} has ended already: {status.state}")
    client.set_metadata([SPACE, name, "cancel"], time.time())
    if status.state == "waiting":  # a driver that begins just now sees that it is cancelled
        _drop_driver(client, name, outcome(JobCancelledError(NEVER_BEGAN)))
    deadline = time.monotonic() + CANCEL_SECONDS
    while time.monotonic() < deadline:
        status = status_of_job(client, name)
        if status.ended:
            return status
        time.sleep(POLL_SECONDS)
    raise ClusterError(
        f"the driver of job {name} has not answered for {CANCEL_SECONDS:.0f} s; it may still stop; check its status"
    )


def give_up(client: Client, name: str, why: str) -> None:
    """Enter that a job whose driver never began has failed, and let its store go."""
    ended = outcome(ClusterError(why))
    client.set_metadata([SPACE, name, "outcome"], ended | {"ended": time.time()})
    _drop_driver(client, name, ended)


def _drop_driver(client: Client, name: str, ended: dict[str, Any]) -> None:
    """Take back a driver that no worker has begun, and the hold on its store.

    The hold is released here, or where a worker sees the store; where neither can, it is forgotten after a while.
    """
    run, store = (client.get_metadata([SPACE, name, key]) for key in ("run", "store"))
    client.cancel([client.get_dataset(topic_of(name))], force=True)
    with suppress(MandeldaskError, OSError):
        try:
            release(store, run, ended)
        except (MandeldaskError, OSError):
            client.run(quietly, release, store, run, ended, workers=list(client.nthreads())[:1])


def _of_job(job: dict[str, Any]) -> Status:
    ended, told, driver = job.get("outcome") or {}, job.get("told") or {}, job["driver"]
    state, message, code = ended.get("state"), ended.get("message"), ended.get("exit_code")
    if state is None:
        if driver["state"] == "erred":
            state, message, code = "failed", driver["error"], 1
        elif driver["state"] is None:
            cancelled = bool(job.get("cancel"))
            state, code = ("cancelled", 130) if cancelled else ("failed", 5)
            message = NEVER_BEGAN if cancelled else "the scheduler has lost its driver; submit it again"
        else:
            state = "running" if driver["state"] == "processing" and told else "waiting"
            message = driver["waits"] if state == "waiting" else None
    progress, summary = _tried(Progress.checked, told.get("progress")), ended.get("summary") or {}
    return Status(
        state=state,
        store=job["store"],
        job=job["name"],
        tiles=job["tiles"],
        done=int(summary["done"] if summary else told.get("done", job["done"])),
        levels=progress.levels if progress else None,
        failed=progress.failed if progress else 0,
        errors=summary.get("errors") or told.get("errors") or {},
        progress=progress if state == "running" else None,
        updated=ended.get("ended") or told.get("time"),
        message=message,
        exit_code=code,
    )


def _tried(read: Callable[[Any], Kind], noted: Any) -> Kind | None:
    """What was noted; None where it is nothing of the kind: another program may have written it."""
    with suppress(TypeError, ValueError, OverflowError):
        return read(noted)
    return None


def _finite(number: Any) -> float | None:
    return float(number) if math.isfinite(number) else None


def driver_key(name: str, run_id: str) -> tuple[str, str]:
    """The key of a job's driver on the scheduler; the first part is what Dask's own pages call it."""
    return (f"{SPACE}-driver", f"{name}-{run_id}")


def topic_of(name: str) -> str:
    """The topic of a job's log lines, and the name under which its future is published, to outlive its client."""
    return f"{SPACE}-{name}"


def quietly(action: Callable[..., Any], *arguments: Any) -> Any:
    """What an action gives, or its error: a worker would print the traceback of one that is raised."""
    try:
        return action(*arguments)
    except (MandeldaskError, OSError) as error:
        return error


def on_scheduler(client: Client, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of mandeldask gives on the scheduler; ClusterError where that has no mandeldask, or is gone."""
    address = client.scheduler.address
    try:
        return client.run_on_scheduler(function, *arguments)
    except (ImportError, AttributeError) as error:
        if not (getattr(error, "name", None) or "mandeldask").startswith("mandeldask"):
            raise ClusterError(f"{error}, on the scheduler at {address}: install it there") from None
        raise ClusterError(
            f"the scheduler at {address} has no mandeldask of this version, so no jobs either: "
            f"install it there, or submit with {option('upload')}"
        ) from None
    except OSError:
        raise ClusterError(f"the scheduler at {address} was lost. What is finished is in the stores") from None


def _jobs(dask_scheduler: Any = None) -> list[dict[str, Any]]:
    """On the scheduler: the metadata of each job, and what became of its driver's task."""
    jobs = []
    for name, job in dask_scheduler.task_metadata.get(SPACE, {}).items():
        if not isinstance(job, dict):
            continue
        task = dask_scheduler.tasks.get(driver_key(name, str(job.get("run"))))
        driver = {"state": task and task.state, "error": task and task.exception_text}
        jobs.append({**job, "driver": {**driver, "waits": _waits_for(task, dask_scheduler)}})
    return jobs


def _waits_for(task: Any, dask_scheduler: Any) -> str | None:
    """On the scheduler: why a driver does not begin; None where it has, or will in a moment."""
    workers = dask_scheduler.workers.values()
    if not workers:
        return "no workers yet: start some, or wait if they are starting"
    busy = "all threads are busy: the next that is free takes its driver"
    worker = task and task.processing_on
    if not worker:
        return busy if task and task.state == "queued" else None
    others = sum(other not in worker.long_running for other in worker.executing)
    begun = task in worker.executing or task in worker.long_running
    return None if begun or others < worker.nthreads else busy
