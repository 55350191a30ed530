"""Run and resume: the driver in this process, until the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from distributed import Client

from mandeldask import cluster as clusters
from mandeldask import config as configs
from mandeldask.job import space
from mandeldask.job.compute import compute, finish
from mandeldask.job.description import AnyCluster, AnyConfig, of_store, read
from mandeldask.job.events import Notice, Observer, Preparing, Summary, ignore
from mandeldask.job.ledger import Ledger, swept
from mandeldask.job.plan import make_plan
from mandeldask.job.source import remember
from mandeldask.kernels import AUTO, KERNELS, choose
from mandeldask.store import Store, Tile
from mandeldask.tile import LevelTile


def run(
    config: AnyConfig,
    out: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    cluster: AnyCluster | None = None,
    client: Client | None = None,
    upload: bool = False,
    ignore_space: bool = False,
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
    ignore_space : bool
        Begin even where the field will surely not fit on the disk.
    tell : callable, optional
        Is given each event as it happens: `Preparing`, `Plan`, `Started`, `TileDone`, `TileFailed`, `Summary`.

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
    how = {"cluster": cluster, "client": client, "upload": upload, "ignore_space": ignore_space, "tell": tell}
    return carry_out(read(config, overrides, out), overwrite=overwrite, **how)  # type: ignore[arg-type]


def carry_out(
    config: configs.Config,
    *,
    cluster: AnyCluster | None,
    client: Client | None,
    upload: bool,
    ignore_space: bool,
    tell: Observer,
    overwrite: bool = False,
    source: Store | None = None,
) -> Summary:
    """What `run` does, with a description that is read; a `source` knows the field at fewer iterations."""
    described = clusters.resolve(configs.load_cluster(cluster) if cluster else config.cluster)
    kernel, reason = choose(config.kernel, config.view)
    tell(Preparing(kernel, reason))
    given = client is not None
    ours = not given and isinstance(described, configs.LocalCluster)  # nothing there that is not here

    def say(text: str) -> None:
        tell(Notice(text))

    def say_of_store(text: str) -> None:
        tell(Notice(text, about="store"))

    def ready(client: Client) -> None:
        clusters.wait_for_worker(client, None if given else described, say)
        if not ours:
            clusters.check(client, kernel, upload=upload, say=say)

    with ExitStack() as stack:
        if not given and (introduction := clusters.introduce(described)):
            say(introduction)
        size = None if given else clusters.size_of(described)
        known = size is None  # only the scheduler knows
        if size is None:
            client = client or stack.enter_context(clusters.connect(described))
            ready(client)
            size = clusters.size_of_client(client)
        plan = make_plan(config, kernel, size, overwrite, ignore_space=ignore_space)

        def all_ready(client: Client) -> None:
            if not known:
                ready(client)
            if not ours:
                clusters.check_store(client, plan.store)

        tell(plan)
        ledger = Ledger(plan.store)
        failed: list[Tile | LevelTile] = []
        with ledger.kept():
            if source:
                remember(plan.store, source)
            with swept(plan.store, say_of_store):
                if plan.pending or plan.levels:
                    block_function = KERNELS[kernel](config.max_iter, config.fields, config.view)
                    if plan.pending and not ignore_space:
                        space.look(plan, say_of_store)
                    client = client or stack.enter_context(clusters.connect(described))
                    failed = compute(plan, ledger, block_function, client, tell, all_ready)
            summary = finish(plan, ledger, failed)
        tell(summary)  # while the cluster is there, for who wants to look at it
    return summary


def resume(
    store: str | os.PathLike[str],
    *,
    kernel: str = AUTO,
    cluster: AnyCluster | None = None,
    client: Client | None = None,
    upload: bool = False,
    ignore_space: bool = False,
    tell: Observer = ignore,
) -> Summary:
    """Compute what is missing of a store, with any kernel on any cluster: the bits are the same. See `run`."""
    config = configs.parse(of_store(store, kernel), source=f"resume {os.fspath(store)}")
    return run(config, cluster=cluster, client=client, upload=upload, ignore_space=ignore_space, tell=tell)
