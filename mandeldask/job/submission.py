"""Submit: hand a job over to a cluster, where its driver runs as a task, so that the client may go."""

from __future__ import annotations

import os
import re
import secrets
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from distributed import Client

from mandeldask.cluster import Session, size_of_client
from mandeldask.config import AnyCluster
from mandeldask.errors import ClusterError, ConfigError, MandeldaskError, StoreError
from mandeldask.job.background import kept_cluster
from mandeldask.job.events import Notice, Observer, Plan, Preparing, Started, ignore
from mandeldask.job.job_status import has_running_job
from mandeldask.job.lease import release
from mandeldask.job.remote import Request, check_name, name_taken, prepare, send
from mandeldask.job.runs import AnyConfig, read_description
from mandeldask.kernels import choose
from mandeldask.store import place_of


@dataclass(frozen=True)
class Submitted:
    """A job that was handed over."""

    name: str
    store: str
    scheduler: str
    dashboard: str
    tiles: int
    pending: int


def submit(
    config: AnyConfig,
    out: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    name: str | None = None,
    cluster: AnyCluster | None = None,
    client: Client | None = None,
    upload: bool = False,
    ignore_space: bool = False,
    tell: Observer = ignore,
) -> Submitted:
    """Compute a field into a store on a cluster, without waiting for it.

    The driver is a task of the cluster: it is started again elsewhere when its worker dies, and needs no client. A
    cluster of a kind that has to be started (local, a batch system) is kept by a process of its own in the background,
    and ends a while after its last job.

    Parameters
    ----------
    config, out, overrides, overwrite, cluster, upload, ignore_space, tell
        As for `run`. The store's path is one that the workers see; of a bucket they need credentials.
    name : str, optional
        Of the job; by default the store's name and a few random digits.
    client : distributed.Client, optional
        A cluster that is already there.

    Returns
    -------
    Submitted
        For `status`, `wait`, `cancel` and `logs`, from any process that sees the scheduler, or the store.

    Raises
    ------
    ConfigError, StoreError, ClusterError
        One or two lines that say what is wrong and what to do; then nothing was submitted.
    """
    described = read_description(config, overrides, out)
    if not described.store:
        raise ConfigError("no store named: set `store:` in the run description, or give --out STORE")
    place = place_of(described.store)
    kernel, reason = choose(described.kernel, described.view)
    tell(Preparing(kernel, reason, here=False))
    settings = described.model_copy(update={"store": place.url, "cluster": None}).model_dump()
    name = check_name(_new_name(place.url) if name is None else name)
    request = Request(name, settings, kernel, uuid.uuid4().hex, place, ignore_space=ignore_space)
    with Session(
        cluster or described.cluster,
        kernel=kernel,
        client=client,
        upload=upload,
        say=lambda text: tell(Notice(text)),
        start=kept_cluster,
    ) as there:
        if upload and client is None and not there.runs_already:
            raise ConfigError(
                "--upload is for a cluster that runs already; the workers of one that is started have mandeldask"
            )
        return _submit(request, there, overwrite, tell)


def _submit(request: Request, there: Session, overwrite: bool, tell: Observer) -> Submitted:
    with ExitStack() as stack:
        if there.planned_size:
            # A cluster that is started has this machine's files. Its workers may take their time: the driver checks
            # the plan again when it begins.
            plan = prepare(request, there.planned_size, overwrite)
            stack.callback(_release, request)  # unless all goes well
            client = there.connect()
        else:
            client = there.ready()
            plan = _prepare_there(client, request, overwrite)
            stack.callback(_release, request, client)
            there.check_store(plan.store)
        tell(plan)
        send(client, replace(request, identity=plan.store.identity), plan)
        stack.pop_all()
    tell(Started(client.dashboard_link, client))
    return Submitted(
        request.name, plan.store.path, client.scheduler.address, client.dashboard_link, plan.tiles, plan.pending
    )


def _prepare_there(client: Client, request: Request, overwrite: bool) -> Plan:
    """The store is made by a worker, as the workers see it: this machine may not."""
    if has_running_job(client, request.name):
        raise name_taken(request.name)
    worker = min(client.nthreads())
    try:
        plan = client.run(prepare, request, size_of_client(client), overwrite, workers=[worker])[worker]
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):  # of Dask's connection
            raise ClusterError(f"a worker was lost while it made the store: {error}; submit again") from None
        raise StoreError(f"the workers cannot use {request.place.url}: {error.strerror or error}") from None
    assert isinstance(plan, Plan)
    return plan


def _release(request: Request, client: Client | None = None) -> None:
    """Take the reservation back, on a worker where one made it; where that fails, it ends by itself."""
    with suppress(MandeldaskError, OSError):
        if client is None:
            release(request.place, request.run_id)
        elif client.status == "running" and (workers := client.nthreads()):
            client.run(release, request.place, request.run_id, workers=[min(workers)])


def _new_name(store: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", os.path.basename(store).removesuffix(".zarr")).lstrip("._-") or "job"
    return f"{stem[:50]}-{secrets.token_hex(3)}"
