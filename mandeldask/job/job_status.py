"""What is known of jobs: from a scheduler, and from a store, which needs none."""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from distributed import Client

from mandeldask.errors import ClusterError, ConfigError, MandeldaskError
from mandeldask.job.lease import is_alive, is_reserved, release
from mandeldask.job.plan import missing
from mandeldask.job.remote import SPACE, driver_key, on_scheduler, topic_of
from mandeldask.store import open_store
from mandeldask.telemetry import Progress

POLL_SECONDS = 0.5
CANCEL_SECONDS = 20.0
ENDED = ("finished", "failed", "cancelled", "complete", "stopped")


@dataclass(frozen=True)
class Status:
    """How far a job or a store is.

    `state`: of a job waiting (for a worker), running, finished, failed, cancelled; of a store waiting, running,
    complete, stopped (no driver works on it).
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
    message: str | None  # why it failed, or what it waits for
    exit_code: int | None  # of a job that has ended

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def status(target: str | os.PathLike[str], client: Client | None = None) -> Status:
    """How far a store is, which needs no scheduler; or, given a client of its scheduler, a job by its name.

    Raises
    ------
    StoreError
        No store of mandeldask there.
    ConfigError
        The scheduler knows no such job.
    """
    return status_of_job(client, os.fspath(target)) if client else status_of_store(os.fspath(target))


def status_of_store(path: str) -> Status:
    """The status of a store, from what is in it.

    Raises
    ------
    StoreError
        No store of mandeldask there.
    """
    store = open_store(path)
    notes = store.read_notes()
    lease, errors = _mapping(notes.get("lease")), _mapping(notes.get("errors"))
    alive = bool(lease) and is_alive(lease)
    present = store.done()
    done, tiles = int(present.sum()), present.size
    levels = sum(int(tiles.sum()) for tiles in missing(store, ~present)) if done == tiles else None
    complete = levels == 0
    if alive and is_reserved(lease) and complete:
        alive = False  # nothing is left for the driver that it is held for
    at_work = "waiting" if is_reserved(lease) else "running"
    at_rest = "complete" if complete else "stopped"
    state = at_work if alive else at_rest
    return Status(
        state=state,
        store=store.path,
        job=_text(lease.get("job") or notes.get("job")),
        tiles=tiles,
        done=done,
        levels=levels,
        failed=len(errors),
        errors={str(tile): str(error) for tile, error in errors.items()},
        progress=_progress(notes.get("progress")) if alive else None,
        updated=_number(lease.get("heartbeat")),
        message=None,
        exit_code=None if alive else 0 if complete else 4,
    )


def status_of_jobs(client: Client) -> list[Status]:
    """The status of each job that a scheduler has had since it started, the oldest first."""
    jobs: list[dict[str, Any]] = on_scheduler(client, _jobs)
    known = []
    for job in jobs:
        with suppress(KeyError, TypeError, ValueError, AttributeError):  # what another program wrote there
            known.append((float(job["submitted"]), _of_job(job)))
    return [status for _, status in sorted(known, key=lambda pair: pair[0])]


def status_of_job(client: Client, name: str) -> Status:
    """The status of one job.

    Raises
    ------
    ConfigError
        The scheduler knows no such job; names those it knows.
    """
    known = {status.job: status for status in status_of_jobs(client)}
    if name not in known:
        names = ", ".join(map(str, known)) or "none"
        raise ConfigError(f"the scheduler at {client.scheduler.address} knows no job {name!r}; it has {names}")
    return known[name]


def has_running_job(client: Client, name: str) -> bool:
    """Whether the scheduler has a job of this name that has not ended."""
    return any(status.job == name and not status.ended for status in status_of_jobs(client))


def wait(
    look: Callable[[], Status], timeout: float | None = None, tell: Callable[[Status], None] = lambda _: None
) -> Status:
    """Ask again and again until the job has ended.

    Raises
    ------
    ClusterError
        It has not after `timeout` seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    status: Status | None = None
    while True:
        try:
            status = look()
        except ClusterError as error:
            if status is None:
                raise
            raise ClusterError(f"{error}: mandeldask resume {shlex.quote(status.store)}") from None
        tell(status)
        if status.ended:
            return status
        if deadline is not None and time.monotonic() >= deadline:
            raise ClusterError(
                f"not done after {timeout:g} s: {status.done} of {status.tiles} tiles; wait again, or longer"
            )
        time.sleep(POLL_SECONDS)


def cancel(client: Client, name: str) -> Status:
    """End a job; what is finished stays in its store. Gives its status after that.

    Raises
    ------
    ConfigError
        No such job, or one that has ended.
    ClusterError
        Its driver does not answer.
    """
    status = status_of_job(client, name)
    if status.ended:
        raise ConfigError(f"job {name} has ended already: {status.state}")
    client.set_metadata([SPACE, name, "cancel"], time.time())
    if status.state == "waiting":
        # a driver that no worker has taken yet; one that begins just now sees that it is cancelled
        client.cancel([client.get_dataset(topic_of(name))], force=True)
        _release(client, status.store, client.get_metadata([SPACE, name, "run"]))
    deadline = time.monotonic() + CANCEL_SECONDS
    while time.monotonic() < deadline:
        status = status_of_job(client, name)
        if status.ended:
            return status
        time.sleep(POLL_SECONDS)
    raise ClusterError(
        f"the driver of job {name} has not answered for {CANCEL_SECONDS:.0f} s; it may yet: ask for its status"
    )


def give_up(client: Client, name: str, why: str) -> None:
    """Enter that a job whose driver never began has failed, and let its store go."""
    run, store = (client.get_metadata([SPACE, name, key]) for key in ("run", "store"))
    outcome = {"state": "failed", "message": why, "exit_code": ClusterError.exit_code, "ended": time.time()}
    client.set_metadata([SPACE, name, "outcome"], outcome)
    client.cancel([client.get_dataset(topic_of(name))], force=True)
    _release(client, store, run)


def logs(client: Client, name: str) -> list[tuple[float, str]]:
    """What a job's drivers had to say: Unix time and text, the oldest first, at most the last thousand."""
    status_of_job(client, name)
    try:
        events = client.get_events(topic_of(name)) or ()
    except OSError as error:
        raise ClusterError(f"the scheduler was lost: {error}") from None
    return [(float(event["time"]), str(event["text"])) for _, event in events]


def _release(client: Client, store: str, run: str) -> None:
    """Here, or where a worker sees the store; where neither can, the hold is forgotten after a while."""
    with suppress(MandeldaskError, OSError):
        try:
            release(store, run)
        except (MandeldaskError, OSError):
            client.run(release, store, run, workers=list(client.nthreads())[:1])


def _of_job(job: dict[str, Any]) -> Status:
    outcome, told, driver = job.get("outcome") or {}, job.get("told") or {}, job["driver"]
    state, message, code = outcome.get("state"), outcome.get("message"), outcome.get("exit_code")
    if state is None:
        if driver["state"] == "erred":
            state, message, code = "failed", driver["error"], 1
        elif driver["state"] is None:
            cancelled = bool(job.get("cancel"))
            state, code = ("cancelled", 130) if cancelled else ("failed", 5)
            message = None if cancelled else "the scheduler has lost its driver; submit it again"
        else:
            state = "running" if driver["state"] == "processing" and told else "waiting"
            message = driver["waits"] if state == "waiting" else None
    progress, summary = _progress(told.get("progress")), outcome.get("summary") or {}
    done_before = told.get("done_before", job["done_before"])
    return Status(
        state=state,
        store=job["store"],
        job=job["name"],
        tiles=job["tiles"],
        done=summary["done"] if summary else int(done_before) + (progress.done if progress else 0),
        levels=progress.levels if progress else None,
        failed=progress.failed if progress else 0,
        errors=summary.get("errors") or told.get("errors") or {},
        progress=progress if state == "running" else None,
        updated=outcome.get("ended") or told.get("time"),
        message=message,
        exit_code=code,
    )


def _progress(noted: Any) -> Progress | None:
    """The progress that a driver noted; None where there is none, or something else."""
    with suppress(TypeError, ValueError, OverflowError):
        progress = Progress(**noted)
        if all(value is None or math.isfinite(value) for value in vars(progress).values()):
            return progress
    return None


def _mapping(value: object) -> dict[str, Any]:
    """Notes may be anything: another program may have written them."""
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    with suppress(OverflowError):  # a whole number of 400 digits
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


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
        return "there is no worker: start some"
    busy = "all threads are busy: the next that is free takes its driver"
    worker = task and task.processing_on
    if not worker:
        return busy if task and task.state == "queued" else None
    others = sum(other not in worker.long_running for other in worker.executing)
    begun = task in worker.executing or task in worker.long_running
    return None if begun or others < worker.nthreads else busy
