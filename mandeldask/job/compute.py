"""From a plan to a summary: what the driver does wherever it lives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from mandeldask.job.cost import Costs, expect, makespan
from mandeldask.job.driver import Driver
from mandeldask.job.events import Event, Expected, Observer, Plan, Progress, Started, Summary
from mandeldask.job.ledger import Ledger, cannot_write, name_of
from mandeldask.job.order import order
from mandeldask.job.reporter import Reporter
from mandeldask.kernels import BlockFunction
from mandeldask.store import Tile
from mandeldask.tile import LevelTile


def compute(
    plan: Plan,
    ledger: Ledger,
    block_function: BlockFunction,
    client: Client,
    tell: Observer,
    ready: Callable[[Client], None],
    *,
    name: str | None = None,
    home: str | None = None,
    run: str | None = None,
    watch: Callable[[Driver], AbstractContextManager[None]] | None = None,
) -> list[Tile | LevelTile]:
    """Compute what is pending; gives the tiles that failed for good.

    `ready` waits for the first worker. Of a submitted job `name` is its name, `home` and `run` are as for `Driver`, and
    `watch` is held around its work.
    """

    def tell_all(event: Event) -> None:
        if isinstance(event, Progress):
            ledger.progress = asdict(event)
        reporter(event)
        tell(event)

    tell(Started(client.dashboard_link, client))
    pending = ~plan.store.done()
    threads = plan.cluster.threads
    # while the workers of a new cluster start
    costs = expect(plan.store.description, pending, block_function, threads) if plan.pending else None
    if costs is not None:
        tell(_expected(pending, costs, threads))
    reporter = Reporter(client, plan, ledger.columns, ~pending, name)
    ready(client)
    driver = Driver(client, plan.store, block_function, ledger, tell_all, home, run)
    with reporter, watch(driver) if watch else nullcontext():
        driver.run(pending, costs)
    return [*driver.failed, *driver.failed_levels]


def finish(plan: Plan, ledger: Ledger, failed: list[Tile | LevelTile]) -> Summary:
    """The summary of a run that has come to its end, and the store's last touches."""
    store, this_run = plan.store, ledger.this_run
    done = store.done()
    ledger.complete(done)
    try:
        store.finish()
    except OSError as error:
        raise cannot_write(store, error) from None
    seconds = max(0.0, this_run.finished - this_run.started)
    not_escaped = int(ledger.columns["not_escaped"][done].sum())
    cell = store.description.view.cell_area
    return Summary(
        store=store.path,
        tiles=plan.tiles,
        done=int(done.sum()),
        computed=this_run.tiles,
        levels=this_run.levels,
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


def _expected(pending: NDArray[np.bool_], costs: Costs, threads: int) -> Expected:
    dear_first = [float(costs[tile]) for window in order(pending, costs) for tile in window.tiles]
    by_row = costs[pending]
    return Expected(
        makespan(dear_first, threads), makespan(by_row.tolist(), threads), float(by_row.max() / np.median(by_row))
    )
