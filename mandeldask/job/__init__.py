"""Run and resume: the one room that joins graph, cluster and store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from distributed import Client

from mandeldask import cluster as clusters
from mandeldask import config as configs
from mandeldask.job.driver import Driver
from mandeldask.job.events import (
    Event,
    Notice,
    Observer,
    Plan,
    Preparing,
    Started,
    Summary,
    TileDone,
    TileFailed,
    ignore,
)
from mandeldask.job.ledger import Ledger, cannot_write, name_of
from mandeldask.job.plan import make_plan, of_store
from mandeldask.kernels import AUTO, KERNELS, choose
from mandeldask.store import Tile
from mandeldask.tile import Record

__all__ = [
    "Event",
    "Notice",
    "Observer",
    "Plan",
    "Preparing",
    "Record",
    "Started",
    "Summary",
    "TileDone",
    "TileFailed",
    "make_plan",
    "resume",
    "run",
]

AnyCluster = configs.Cluster | Mapping[str, Any] | str | os.PathLike[str]
AnyConfig = configs.Config | Mapping[str, Any] | str | os.PathLike[str]


def run(
    config: AnyConfig,
    out: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    cluster: AnyCluster | None = None,
    client: Client | None = None,
    upload: bool = False,
    tell: Observer = ignore,
) -> Summary:
    """Compute a field into a store; on a store of the same field, compute what is missing.

    Parameters
    ----------
    config : path of a YAML file, mapping, or Config
        The run description.
    out : path, optional
        The store; takes precedence over the description's.
    overrides : sequence of "KEY=VALUE"
        Changes to the description, as the command line's --set.
    overwrite : bool
        Replace the store that is there, if it is one of mandeldask's.
    cluster : path of a YAML file, address of a scheduler, or mapping, optional
        Who computes; takes precedence over the description's.
    client : distributed.Client, optional
        A cluster that is already there; by default the one described is started and ended.
    upload : bool
        Send this mandeldask to the scheduler and the workers first; by default they must have it.
    tell : callable, optional
        Is given each event as it happens: `Preparing`, `Notice`, `Plan`, `Started`, `TileDone`, `TileFailed`,
        `Summary`.

    Returns
    -------
    Summary
        Its `failed` is not 0 when tiles were given up; `resume` tries them again.

    Raises
    ------
    ConfigError, StoreError, ClusterError
        One or two lines that say what is wrong and what to do. What was finished stays in the store.
    """
    if client is None:
        clusters.leave_if_being_spawned()
    config = _load(config, overrides)
    if out is not None:
        config = config.model_copy(update={"store": os.fspath(out)})
    described = clusters.resolve(configs.load_cluster(cluster) if cluster else config.cluster)
    kernel, reason = choose(config.kernel, config.view)
    tell(Preparing(kernel, reason))
    block_function = KERNELS[kernel](config.max_iter, config.fields, config.view)
    given = client is not None
    ours = not given and isinstance(described, configs.LocalCluster)  # nothing there that is not here

    def say(text: str) -> None:
        tell(Notice(text))

    def ready(client: Client) -> Client:
        clusters.wait_for_worker(client, None if given else described, say)
        if not ours:
            clusters.check(client, kernel, upload=upload, say=say)
        return client

    with ExitStack() as stack:
        if client is None and (introduction := clusters.introduce(described)):
            say(introduction)
        size = None if client else clusters.size_of(described)
        if size is None:  # only the scheduler knows
            client = ready(client or stack.enter_context(clusters.connect(described)))
            size = clusters.size_of_client(client)
        plan = make_plan(config, kernel, size, overwrite)
        tell(plan)
        ledger = Ledger(plan.store)
        stack.enter_context(ledger.kept())
        failed: list[Tile] = []
        if plan.pending:
            known = client is not None
            client = client or stack.enter_context(clusters.connect(described))
            tell(Started(client.dashboard_link))
            if not known:
                ready(client)
            if not ours:
                clusters.check_store(client, plan.store)
            driver = Driver(client, plan.store, block_function, size.threads, ledger, tell)
            driver.run(~plan.store.done())
            failed = driver.failed
        summary = _summarise(plan, ledger, failed)
    try:
        plan.store.finish()
    except OSError as error:
        raise cannot_write(plan.store, error) from None
    tell(summary)
    return summary


def resume(
    store: str | os.PathLike[str],
    *,
    kernel: str = AUTO,
    cluster: AnyCluster | None = None,
    client: Client | None = None,
    upload: bool = False,
    tell: Observer = ignore,
) -> Summary:
    """Compute what is missing of a store, with any kernel on any cluster: the bits are the same. See `run`."""
    config = configs.parse(of_store(store, kernel), source=f"resume {os.fspath(store)}")
    return run(config, cluster=cluster, client=client, upload=upload, tell=tell)


def _load(config: AnyConfig, overrides: Sequence[str]) -> configs.Config:
    if isinstance(config, configs.Config):
        return configs.parse(config.model_dump(), overrides=overrides) if overrides else config
    if isinstance(config, Mapping):
        return configs.parse(config, overrides=overrides)
    return configs.load(config, overrides)


def _summarise(plan: Plan, ledger: Ledger, failed: list[Tile]) -> Summary:
    store, this_run = plan.store, ledger.this_run
    done = store.done()
    ledger.complete(done)
    seconds = max(0.0, this_run.finished - this_run.started)
    not_escaped = int(ledger.columns["not_escaped"][done].sum())
    cell = store.description.view.cell_area
    return Summary(
        store=store.path,
        tiles=plan.tiles,
        computed=this_run.tiles,
        failed=len(failed),
        seconds=seconds,
        kernel_seconds=this_run.kernel_seconds,
        threads=plan.cluster.threads,
        iterations=this_run.iterations,
        iterations_per_second=this_run.iterations / seconds if seconds else 0.0,
        total_iterations=int(ledger.columns["iterations"][done].sum()),
        not_escaped=not_escaped,
        samples=plan.samples,
        area=not_escaped * cell if cell else None,
        errors={name_of(tile): ledger.errors.get(name_of(tile), "") for tile in failed},
    )
