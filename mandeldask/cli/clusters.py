"""The commands that look at machines and clusters: cluster, info and dashboard."""

from __future__ import annotations

import json
import sys
import webbrowser
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli import options
from mandeldask.cli.group import cli, columns, print_facts, signals_end_in_order, warn
from mandeldask.errors import ClusterError, ConfigError
from mandeldask.text import printable, table

if TYPE_CHECKING:
    from distributed import Client

    from mandeldask.cluster import Size

USUAL = "http://127.0.0.1:8787"
NAME_ONE = "name the scheduler, --cluster tcp://HOST:PORT, or start a run: it prints the link before its first tile"


@cli.command("cluster")
@click.argument("described", metavar="FILE|ADDRESS")
@options.as_json
def _cluster(described: str, as_json: bool) -> None:
    """Show what a cluster description amounts to; nothing is computed.

    For a batch system the job script, and nothing is submitted; for a scheduler that runs already its workers and the
    versions there; for any other the size it would have.
    """
    from mandeldask import cluster
    from mandeldask.config import Queue

    with cluster.Session(described) as session:
        assert session.description is not None
        shown: dict[str, Any] = {"kind": session.description.kind}
        lines = [session.description.introduction]
        if size := session.planned_size:
            shown |= _figures(size)
            lines.append(str(size))
        if isinstance(session.description, Queue):
            shown["job_script"] = cluster.job_script(session.description)
            lines += ["", shown["job_script"].strip()]
        elif session.runs_already:
            lines += _look_at(session.connect(), shown)
    click.echo(json.dumps(shown) if as_json else "\n".join(lines))


def _look_at(client: Client, shown: dict[str, Any]) -> list[str]:
    """Size, dashboard and versions of a cluster that runs, as lines; the same goes into `shown`."""
    from mandeldask import cluster
    from mandeldask.dashboard import page_of

    size = cluster.size_of_client(client) if cluster.workers_of(client) else None
    versions = cluster.versions(client)
    shown |= {
        "address": client.scheduler.address,
        "dashboard": page_of(client)[0],
        **(_figures(size) if size else {"workers": 0}),
        "versions": versions,
    }
    lines = cluster.version_lines(versions, everything=True)
    workers = str(size) if size else f"no workers: start some with `dask worker {shown['address']}`"
    return [workers, f"dashboard {shown['dashboard'] or 'switched off'}", "", *lines]


def _figures(size: Size) -> dict[str, int]:
    return {name: getattr(size, name) for name in ("workers", "threads", "threads_per_worker", "memory_limit")}


@cli.command("info")
@options.cluster
@options.upload
@options.as_json
def _info(cluster: str | None, upload: bool, as_json: bool) -> None:
    """Show this machine's cores, SIMD, BLAS, Numba and Dask; with --cluster, those of each worker."""
    from mandeldask.lab import machine

    if cluster is None:
        here = machine.describe()
        processes, threads = {"this process": here}, {"this process": here["dask"]["threads"]}
    else:
        processes, threads = _of_workers(cluster, upload)
    warnings = machine.thread_warnings(processes, threads)
    if as_json:
        click.echo(json.dumps({"processes": processes, "warnings": warnings}, indent=2))
        return
    click.echo(_side_by_side(processes))
    warn(*warnings)


def _of_workers(cluster: str, upload: bool) -> tuple[dict[str, Any], dict[str, int]]:
    """What each worker has, and its number of threads."""
    from mandeldask.cluster import Session
    from mandeldask.lab import machine

    with signals_end_in_order(), Session(cluster, upload=upload, needs=machine.__name__, say=warn) as there:
        if not there.runs_already:
            warn("starting the workers")
        client = there.ready()
        if there.in_this_environment:
            client.wait_for_workers(there.size.workers)
        return client.run(machine.describe), client.nthreads()


def _side_by_side(processes: dict[str, Any]) -> str:
    """A column a process; one column for all where all agree."""
    from mandeldask.lab.machine import side_by_side

    names, rows = list(processes), side_by_side(processes.values())
    if len(names) > 1 and all(len(set(texts)) == 1 for _, texts in rows):
        names, rows = [f"{len(names)} workers, all alike"], [(label, texts[:1]) for label, texts in rows]
    return table([["", *names], *([label, *texts] for label, texts in rows)], columns(sys.stdout))


@cli.command("dashboard")
@options.cluster
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
@options.as_json
def _dashboard(cluster: str | None, open_it: bool, as_json: bool) -> None:
    """Find the dashboard of a run on this machine, or of the scheduler named, and print its link."""
    from mandeldask.dashboard import problem_with, ssh_tunnel

    found = _find_dashboard(cluster)
    problem = problem_with(found["link"])
    command, link = ssh_tunnel(found["link"]) or (None, None)
    if problem:
        way = f" If this machine may not reach it, type\n  {command}\nand look at {link}" if command else ""
        raise ClusterError(f"there is a dashboard at {found['link']}, but it does not answer: {problem}.{way}")
    if as_json:
        click.echo(json.dumps({**found, "tunnel": command, "link_through_tunnel": link}))
    else:
        print_facts(("dashboard", found["link"]), ("store", found["store"]))
        if command:
            click.echo(f"  from elsewhere:  {command}\n             then  {link}")
    if open_it:
        open_in_browser(found["link"])


def open_in_browser(link: str) -> None:
    if not webbrowser.open(link):
        warn("no browser could be opened here; open the link yourself")


def _find_dashboard(cluster: str | None) -> dict[str, Any]:
    """That of a scheduler that is up, with our page put into it where it was not there; else one of this machine."""
    import dask

    from mandeldask import dashboard
    from mandeldask.cluster import Session

    if not (cluster or dask.config.get("scheduler-address", None)):
        return _of_this_machine()
    with Session(cluster) as there:
        if there.in_this_environment:
            return _of_this_machine()
        if not there.runs_already:
            raise ConfigError(f"a cluster that does not run yet has no dashboard: {NAME_ONE}")
        client = there.connect()
        link, problem = dashboard.page_of(client)
        if problem == dashboard.SWITCHED_OFF:
            raise ClusterError(f"{problem}; start it with `dask scheduler --dashboard`, and with bokeh installed")
        if problem:
            warn(f"Dask's own pages only: {problem}")
        return {"link": link, "store": None, "scheduler": client.scheduler.address}


def _of_this_machine() -> dict[str, Any]:
    """The dashboard of the run started last here, else whatever is on the usual port."""
    from mandeldask.dashboard import problem_with, running

    if runs := running():
        (link, store), *others = runs
        if others:
            listed = "".join(f"\n  {link}  {printable(store)}" for link, store in others)
            warn(f"the latest of {len(runs)} runs; the others:{listed}")
        return {"link": link, "store": store, "scheduler": None}
    for page in ("mandeldask", "status"):
        if not problem_with(f"{USUAL}/{page}"):
            return {"link": f"{USUAL}/{page}", "store": None, "scheduler": None}
    raise ClusterError(f"no run of yours has a dashboard on this machine now, and {USUAL} does not answer: {NAME_ONE}")
