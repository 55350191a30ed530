"""The lease that keeps a second driver off a store: a note in the store, with a heartbeat."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psutil

from mandeldask.errors import JobCancelledError, MandeldaskError, StoreError
from mandeldask.job.periodic import every
from mandeldask.store import AnyPath, Store, open_store
from mandeldask.text import command

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # a driver on another host is gone after so long without a heartbeat
RESERVED_SECONDS = 600.0  # the same of a job that was sent to a cluster, and whose driver waits for a worker
AHEAD_SECONDS = 3600.0  # by which another host's clock may be ahead; more would hold the store for ever
_HELD: set[str] = set()  # leases of this process
_beating = threading.Lock()


@contextmanager
def held(store: Store, job: str | None = None, run: str | None = None) -> Iterator[None]:
    """Hold the store's lease until the context ends.

    `job` is the name of a submitted job, `run` the id of the submission: its driver may be started again elsewhere,
    and then takes its own lease over. StoreError where another driver that is alive holds it.
    """
    refuse_second_driver(store, run)
    lease: dict[str, Any] = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "id": uuid.uuid4().hex,
    }
    if job:
        lease |= {"job": job, "run": run}
    _write(store, lease, job=job, ended=None)
    _HELD.add(lease["id"])
    ended = None
    try:
        with every(HEARTBEAT_SECONDS, partial(_beat, store, lease), "lease"):
            yield
    except (MandeldaskError, OSError) as error:
        ended = outcome(error)
        raise
    finally:
        with _beating:
            _HELD.discard(lease["id"])
        with suppress(OSError, StoreError):  # full, or replaced: the lease of a driver that is gone binds nobody
            if _of(store).get("id") == lease["id"]:
                store.write_notes(lease=None, ended=ended)


def outcome(error: MandeldaskError | OSError) -> dict[str, Any]:
    """How a driver ended that could not go on, as its store and its scheduler note it."""
    told = StoreError(error.strerror or str(error)) if isinstance(error, OSError) else error
    state = "cancelled" if isinstance(told, JobCancelledError) else "failed"
    return {"state": state, "message": str(told), "exit_code": told.exit_code}


def refuse_second_driver(store: Store, run: str | None = None) -> None:
    """Raise StoreError when a driver that is alive, of another submission, holds the store's lease."""
    lease = _of(store)
    if not is_alive(lease) or (run and lease.get("run") == run):
        return
    if lease.get("job"):
        raise StoreError(
            f"job {lease['job']} is writing {store.path}: `{command('wait', store.path)}`, or cancel it; "
            f"a job that is lost with its cluster is forgotten after {_patience(lease):.0f} s"
        )
    raise StoreError(
        f"another run is writing {store.path}: process {lease.get('pid')} on {lease.get('host')}. "
        f"Wait for it or end it; a run that died on another host is forgotten after {STALE_SECONDS:.0f} s"
    )


def reserve(store: Store, job: str, run: str, sent: bool = False) -> None:
    """Hold the store for a job whose driver is yet to begin; the lease of a driver that did is left alone.

    The caller does so again every few seconds, until it has `sent` the job to a cluster that it does not keep up.
    StoreError where a driver that is alive, or another job, holds it.
    """
    refuse_second_driver(store, run)
    lease = _of(store)
    if is_reserved(lease) or not is_alive(lease):
        lease = {"job": job, "run": run, "host": socket.gethostname(), "sent": sent}
        _write(store, lease, job=job, ended=None)


def release(path: AnyPath, run: str, ended: Mapping[str, Any] | None = None) -> None:
    """Take back what `reserve` did, for a job that is not computed; `ended` is its `outcome`, where it was sent."""
    store = open_store(path)
    lease = _of(store)
    if is_reserved(lease) and lease.get("run") == run:
        store.write_notes(lease=None, ended=ended)


def is_reserved(lease: Mapping[str, Any]) -> bool:
    """Whether the lease is that of a job whose driver has not begun."""
    return bool(lease.get("job")) and "pid" not in lease


def is_alive(lease: Mapping[str, Any]) -> bool:
    """Whether the driver that wrote the lease still works, as far as can be told from here; False for no lease."""
    try:
        if lease.get("job") or lease["host"] != socket.gethostname():
            silent = time.time() - float(lease["heartbeat"])
            return -AHEAD_SECONDS <= silent <= _patience(lease)
        if lease["pid"] == os.getpid():
            return lease.get("id") in _HELD
        process = psutil.Process(int(lease["pid"]))
        same = abs(process.create_time() - float(lease["started"])) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE  # which was killed, and nobody has waited for it
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return False


def _patience(lease: Mapping[str, Any]) -> float:
    """Seconds without a heartbeat after which the lease binds nobody."""
    return RESERVED_SECONDS if is_reserved(lease) and lease.get("sent") else STALE_SECONDS


def _of(store: Store) -> dict[str, Any]:
    """The store's lease; {} where there is none, or something else: another program may have written it."""
    lease = store.read_notes().get("lease")
    return lease if isinstance(lease, dict) else {}


def _beat(store: Store, lease: Mapping[str, Any]) -> None:
    with _beating:  # not after the end, where a slow disk kept this waiting
        if lease["id"] in _HELD:
            _write(store, lease)


def _write(store: Store, lease: Mapping[str, Any], **notes: Any) -> None:
    store.write_notes(**notes, lease={**lease, "heartbeat": time.time()})
