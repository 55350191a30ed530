"""The command that finds the dashboard, and what `run` and `submit` do about it."""

from __future__ import annotations

import json
import os
import socket
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli.options import cluster_option
from mandeldask.errors import ClusterError, ConfigError
from mandeldask.text import printable

if TYPE_CHECKING:
    from mandeldask.job import Started

USUAL = "http://127.0.0.1:8787"
NAME_ONE = "name the scheduler, --cluster tcp://HOST:PORT, or start a run: it prints the link before its first tile"


@click.command()
@cluster_option
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
@click.pass_context
def dashboard(ctx: click.Context, /, cluster: str | None, open_it: bool, as_json: bool) -> None:
    """Find the dashboard of a run on this machine, or of the scheduler named, and print its link."""
    import dask

    from mandeldask.dashboard.links import problem_with, ssh_tunnel

    ctx.obj["json"] = as_json
    named = cluster or dask.config.get("scheduler-address", None)
    found = _of_cluster(cluster) if named else _of_this_machine()
    problem = problem_with(found["link"])
    through = ssh_tunnel(found["link"])
    if problem:
        way = f" If this machine may not reach it, type\n  {through[0]}\nand look at {through[1]}" if through else ""
        raise ClusterError(f"there is a dashboard at {found['link']}, but it does not answer: {problem}.{way}")
    if as_json:
        command, link = through or (None, None)
        click.echo(json.dumps({**found, "tunnel": command, "link_through_tunnel": link}))
    else:
        click.echo(f"  dashboard  {found['link']}")
        if found["store"]:
            click.echo(f"  store      {printable(found['store'])}")
        if through:
            click.echo(f"  from elsewhere:  {through[0]}\n             then  {through[1]}")
    if open_it and not webbrowser.open(found["link"]):
        click.echo("mandeldask: no browser could be opened here; open the link yourself", err=True)


def _of_cluster(cluster: str | None) -> dict[str, Any]:
    """The dashboard of a scheduler that is up, with our page put into it where it was not there."""
    from mandeldask import cluster as clusters
    from mandeldask import dashboard as page

    with clusters.Session(cluster) as session:
        if session.in_this_environment:
            return _of_this_machine()
        if not session.runs_already:
            raise ConfigError(f"a cluster that does not run yet has no dashboard: {NAME_ONE}")
        client = session.connect()
        problem = page.install(client)
        link = client.dashboard_link
        if problem == page.SWITCHED_OFF:
            raise ClusterError(f"{problem}; start it with `dask scheduler --dashboard`, and with bokeh installed")
        if problem:
            click.echo(f"mandeldask: Dask's own pages only: {problem}", err=True)
        return {"link": link if problem else page.link(client), "store": None, "scheduler": client.scheduler.address}


def _of_this_machine() -> dict[str, Any]:
    """The dashboard of the run started last here, else whatever is on the usual port."""
    from mandeldask.dashboard.links import problem_with, running

    runs = running()
    if len(runs) > 1:
        others = "".join(f"\n  {run.link}  {printable(run.store)}" for run in runs[1:])
        click.echo(f"mandeldask: the latest of {len(runs)} runs; the others:{others}", err=True)
    if runs:
        return {"link": runs[0].link, "store": runs[0].store, "scheduler": None}
    for page in ("mandeldask", "status"):
        if not problem_with(f"{USUAL}/{page}"):
            return {"link": f"{USUAL}/{page}", "store": None, "scheduler": None}
    raise ClusterError(f"no run of yours has a dashboard on this machine now, and {USUAL} does not answer: {NAME_ONE}")


def with_page(event: Started) -> Started:
    """Put our page into the dashboard; the event with the link to look at."""
    from mandeldask import dashboard as page

    problem = page.install(event.client)
    if problem:
        click.echo(f"mandeldask: no picture in the dashboard: {problem}", err=True)
        return replace(event, dashboard="") if problem == page.SWITCHED_OFF else event
    return replace(event, dashboard=page.link(event.client))


def announce(event: Started, store: str) -> None:
    """Let `mandeldask dashboard` find a submitted job whose scheduler is on this machine, while the scheduler lives."""
    from mandeldask.dashboard.links import announce

    with suppress(Exception):  # a convenience; the link is printed all the same
        if event.dashboard and event.client.run_on_scheduler(socket.gethostname) == socket.gethostname():
            announce(event.dashboard, store, event.client.run_on_scheduler(os.getpid))


def check_report(path: str | None) -> None:
    """ConfigError where no performance report can be written."""
    if path is None:
        return
    folder = Path(path).parent
    if not folder.is_dir() or Path(path).is_dir() or not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise ConfigError(f"cannot write the report {path}: name a file in a directory that is there")


@contextmanager
def report(path: str) -> Iterator[None]:
    """Dask's performance report of what happens in the context, in a file; what goes wrong is told, no more."""
    from distributed import performance_report

    recording = performance_report(filename=path, mode="inline")  # to be read without a network
    try:
        recording.__enter__()
    except Exception as error:  # a scheduler without Bokeh
        _no_report(error)
        yield
        return
    try:
        yield
    except BaseException:  # the cluster, which knows what there is to report, is gone with the run
        _no_report("the run did not come to its end")
        raise
    try:
        recording.__exit__(None, None, None)
    except Exception as error:  # the run is done all the same
        _no_report(error)


def _no_report(why: object) -> None:
    with suppress(OSError):  # a terminal that was closed
        click.echo(f"mandeldask: no report: {why}", err=True)


def keep(link: str) -> None:
    """Wait for Enter, with the cluster up; Ctrl-C will do as well."""
    click.echo(f"  the dashboard stays up: {link}\n  Enter ends it", err=True)
    with suppress(KeyboardInterrupt):
        sys.stdin.readline()
