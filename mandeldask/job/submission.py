"""Submit: hand a job over to a cluster, where its driver lives as a task, so that the client may go."""

from __future__ import annotations

import os
import re
import secrets
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from distributed import Client

from mandeldask import cluster as clusters
from mandeldask import config as configs
from mandeldask.config import SchedulerAddress, SchedulerFile
from mandeldask.errors import ClusterError, ConfigError, MandeldaskError, StoreError
from mandeldask.job import keeper
from mandeldask.job.ask import refuse_second_job
from mandeldask.job.description import AnyCluster, AnyConfig, read
from mandeldask.job.drive import Job, check_name, prepare, send
from mandeldask.job.events import Notice, Observer, Plan, Preparing, Started, ignore
from mandeldask.job.ledger import let_go
from mandeldask.kernels import choose
from mandeldask.store import Place, place_of


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
    config = read(config, overrides, out)
    if not config.store:
        raise ConfigError("no store named: set `store:` in the run description, or give --out STORE")
    place = place_of(config.store)
    kernel, reason = choose(config.kernel, config.view)
    tell(Preparing(kernel, reason, here=False))
    described = clusters.resolve(configs.load_cluster(cluster) if cluster else config.cluster)
    config = config.model_copy(update={"store": place.url, "cluster": None})
    name = check_name(_a_name(place.url) if name is None else name)
    job = Job(name, config.model_dump(), kernel, uuid.uuid4().hex, place, ignore_space=ignore_space)

    def say(text: str) -> None:
        tell(Notice(text))

    started = client is None and not isinstance(described, SchedulerAddress | SchedulerFile)
    if started and upload:
        raise ConfigError(
            "--upload is for a cluster that runs already; the workers of one that is started have mandeldask"
        )
    if client is None and (introduction := clusters.introduce(described)):
        say(introduction)
    size = clusters.size_of(described) if started else None
    with ExitStack() as stack:
        if size:  # as this machine sees it; a batch system may take its time, and the driver looks again when it begins
            plan = prepare(job, size, overwrite)
            stack.push(_undo(place, job.run))
        if client is None:
            client = stack.enter_context(clusters.connect(stack.enter_context(keeper.kept(described))))
        if not size:
            clusters.wait_for_worker(client, described if started else None, say)
            clusters.check(client, kernel, upload=upload, say=say)
            plan = _prepare_there(client, job, overwrite)
        tell(plan)
        send(client, replace(job, identity=plan.store.identity), plan)
        tell(Started(client.dashboard_link, client))
        return Submitted(
            job.name, plan.store.path, client.scheduler.address, client.dashboard_link, plan.tiles, plan.pending
        )


def _prepare_there(client: Client, job: Job, overwrite: bool) -> Plan:
    """The store is made by a worker, as the workers see it: this machine may not."""
    refuse_second_job(client, job.name)
    size = clusters.size_of_client(client)
    try:
        ((worker, plan),) = client.run(prepare, job, size, overwrite, workers=[min(client.nthreads())]).items()
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):  # of Dask's connection
            raise ClusterError(f"a worker was lost while it made the store: {error}; submit again") from None
        raise StoreError(f"the workers cannot use {job.place.url}: {error.strerror or error}") from None
    try:
        clusters.check_store(client, plan.store)
    except ClusterError:
        client.run(let_go, job.place, job.run, workers=[worker])
        raise
    assert isinstance(plan, Plan)
    return plan


def _undo(place: Place, run: str) -> Callable[..., None]:
    """For an ExitStack: let the store go where something went wrong."""

    def undo(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with suppress(MandeldaskError, OSError):
                let_go(place, run)

    return undo


def _a_name(store: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", os.path.basename(store).removesuffix(".zarr")).lstrip("._-") or "job"
    return f"{stem[:50]}-{secrets.token_hex(3)}"
