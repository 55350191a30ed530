"""The commands for submitted jobs: submit, jobs, status, wait, cancel, logs."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli.dashboard import announce, with_page
from mandeldask.cli.options import cluster_option, description_options
from mandeldask.errors import ConfigError
from mandeldask.text import duration, is_url, plural, printable, short_path, si

if TYPE_CHECKING:
    from distributed import Client

    from mandeldask.job import Status

WATCH_SECONDS = 5.0  # between two lines of `wait` where there is no terminal

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")


@click.command()
@description_options
@click.option("--name", help="Of the job; by default the store's name and a few digits.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but the job's name.")
@click.pass_context
def submit(
    ctx: click.Context, /, config: str, out: str | None, *, name: str | None, as_json: bool, quiet: bool, **how: Any
) -> None:
    """Hand the field that CONFIG describes to a cluster, and return; its driver lives there as a task."""
    from mandeldask import job
    from mandeldask.progress.screen import Screen

    ctx.obj["json"] = as_json
    with Screen() as screen:
        link = store = ""

        def tell(event: job.Event) -> None:
            nonlocal link, store
            if isinstance(event, job.Plan):
                store = event.store.path
            if isinstance(event, job.Started):
                event = with_page(event)
                link = event.dashboard
                announce(event, store)
            elif not (quiet or as_json):
                screen(event)

        submitted = replace(job.submit(config, out, name=name, tell=tell, **how), dashboard=link)
        if as_json:
            click.echo(json.dumps(asdict(submitted)))
        elif quiet:
            click.echo(submitted.name)
        else:
            screen.line("dashboard", submitted.dashboard or "switched off")
            screen.line("job", f"{submitted.name}, on {submitted.scheduler}")
            ask = f"mandeldask status {submitted.name} --cluster {_again(how['cluster'], submitted.scheduler)}"
            screen.line("next", f"{ask}    how far it is; wait, cancel and logs likewise")
            if is_url(submitted.store) or os.path.isdir(submitted.store):
                screen.line("", f"mandeldask status {short_path(submitted.store)}    the same from the store alone")
            else:
                screen.line("", f"{submitted.store} is on the workers' side, and cannot be seen from here")


@click.command()
@cluster_option
@json_option
@click.pass_context
def jobs(ctx: click.Context, /, cluster: str | None, as_json: bool) -> None:
    """List the jobs that a scheduler has had since it started."""
    from mandeldask import job

    ctx.obj["json"] = as_json
    with _client(cluster) as client:
        found = job.status_of_jobs(client)
    if as_json:
        click.echo(json.dumps([asdict(status) for status in found]))
    elif not found:
        click.echo("no jobs", err=True)
    else:
        rows = [("JOB", "STATE", "TILES", "LEFT", "STORE")]
        rows += [(s.job or "", s.state, _tiles(s), _left(s), s.store) for s in found]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            click.echo(
                "  ".join(f"{text:<{width}}" for text, width in zip(map(printable, row), widths, strict=True)).rstrip()
            )


@click.command()
@click.argument("target", metavar="STORE|JOB")
@cluster_option
@json_option
@click.pass_context
def status(ctx: click.Context, /, target: str, cluster: str | None, as_json: bool) -> None:
    """Tell how far a store or a job is; for a store no scheduler is needed."""
    ctx.obj["json"] = as_json
    with _looking(target, cluster) as look:
        _show(look(), as_json)


@click.command()
@click.argument("target", metavar="STORE|JOB")
@cluster_option
@click.option("--timeout", type=float, help="Seconds after which to stop waiting, with exit code 5.")
@json_option
@click.pass_context
def wait(ctx: click.Context, /, target: str, cluster: str | None, timeout: float | None, as_json: bool) -> None:
    """Wait for a job's end, or a store's; the exit code is the job's."""
    from mandeldask import job
    from mandeldask.progress.bar import Bar

    ctx.obj["json"] = as_json
    with _looking(target, cluster) as look, Bar(seconds=WATCH_SECONDS) as bar:

        def tell(now: Status) -> None:
            if not (as_json or now.ended):
                bar.show(now.done, now.tiles, _line(now))

        end = job.wait(look, timeout, tell)
    _show(end, as_json)
    ctx.exit(end.exit_code or 0)


@click.command()
@click.argument("target", metavar="STORE|JOB")
@cluster_option
@json_option
@click.pass_context
def cancel(ctx: click.Context, /, target: str, cluster: str | None, as_json: bool) -> None:
    """End a job; what is finished stays in its store."""
    from mandeldask import job

    ctx.obj["json"] = as_json
    name = _job_of(target)
    with _client(cluster) as client:
        _check_store(client, name, target)
        _show(job.cancel(client, name), as_json)


@click.command()
@click.argument("target", metavar="STORE|JOB")
@cluster_option
@json_option
@click.pass_context
def logs(ctx: click.Context, /, target: str, cluster: str | None, as_json: bool) -> None:
    """Print what a job's driver had to say: where it ran, tiles that failed, how it ended."""
    from mandeldask import job

    ctx.obj["json"] = as_json
    name = _job_of(target)
    with _client(cluster) as client:
        _check_store(client, name, target)
        lines = job.logs(client, name)
    if as_json:
        click.echo(json.dumps([{"time": at, "text": text} for at, text in lines]))
    else:
        for at, text in lines:
            click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))}  {printable(text)}")


def _is_store(target: str) -> bool:
    return os.path.isdir(target) or os.sep in target or target.endswith(".zarr")


def _job_of(target: str) -> str:
    """The job itself, or the one that works on a store."""
    if not _is_store(target):
        return target
    from mandeldask import job

    status = job.status_of_store(target)
    if not status.job:
        raise ConfigError(f"no submitted job works on {target}; a run ends with Ctrl-C where it was started")
    return status.job


def _check_store(client: Client, name: str, target: str) -> None:
    """ConfigError where the job of that name on this scheduler works on another store than the one given."""
    if not _is_store(target):
        return
    from mandeldask import job

    works_on = job.status_of_job(client, name).store
    if _real(works_on) != _real(target):
        raise ConfigError(
            f"job {name} of this scheduler works on {printable(works_on)}, not on {target}; give the job's name"
        )


def _real(path: str) -> str:
    return path.rstrip("/") if is_url(path) else os.path.realpath(path)


def _again(cluster: str | None, scheduler: str) -> str:
    """What to give --cluster to reach a job's scheduler: the description that was given, with its certificates, or the
    address of the scheduler that was started.
    """
    from mandeldask import config as configs

    if cluster and isinstance(configs.load_cluster(cluster), configs.RunningScheduler):
        return shlex.quote(cluster)
    return scheduler


@contextmanager
def _client(cluster: str | None) -> Iterator[Client]:
    """A client of the scheduler named: this command starts none."""
    from mandeldask import cluster as clusters

    with clusters.Session(cluster) as session:
        if not session.runs_already:
            raise ConfigError(
                "which scheduler? Name one that is up: --cluster tcp://HOST:PORT (as `submit` printed it), or set "
                "DASK_SCHEDULER_ADDRESS; the status of a store needs none: mandeldask status STORE"
            )
        yield session.connect()


@contextmanager
def _looking(target: str, cluster: str | None) -> Iterator[Any]:
    """A function that gives the status of a store or a job."""
    from mandeldask import job

    if _is_store(target):
        yield lambda: job.status_of_store(target)
        return
    with _client(cluster) as client:
        yield lambda: job.status_of_job(client, target)


def _show(s: Status, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(s)))
        return
    click.echo(f"  store      {printable(short_path(s.store))}")
    if s.job:
        click.echo(f"  job        {printable(s.job)}")
    click.echo(f"  state      {_line(s)}")
    if s.message and s.ended:
        click.echo(f"  why        {printable(s.message)}")
    if s.updated and not s.ended:
        click.echo(f"  updated    {max(0.0, time.time() - s.updated):.0f} s ago")
    for tile, error in list(s.errors.items())[:5]:
        click.echo(f"  failed     tile {printable(tile)}: {printable(error)}")
    if len(s.errors) > 5:
        click.echo(f"  failed     and {len(s.errors) - 5} more: --json has them all")
    if s.state == "stopped" or (s.ended and s.done < s.tiles):
        click.echo(f"  next       mandeldask resume {shlex.quote(printable(short_path(s.store)))}, or submit it again")


def _line(s: Status) -> str:
    now = s.progress
    rate = f", {si(now.samples_per_second)} samples/s" if now and now.samples_per_second else ""
    workers = f", {plural(now.workers, 'worker')}" if now else ""
    failed = f", {s.failed} failed" if s.failed else ""
    left = f", {_left(s)} left" if _left(s) else ""
    waits = f", {printable(s.message)}" if s.state == "waiting" and s.message else ""
    levels = f", {plural(s.levels, 'pyramid tile')} to build" if s.levels and s.done == s.tiles else ""
    return f"{s.state}: {_tiles(s)} tiles{levels}{failed}{rate}{workers}{left}{waits}"


def _tiles(s: Status) -> str:
    return f"{s.done}/{s.tiles}"


def _left(s: Status) -> str:
    return duration(s.progress.seconds_left) if s.progress and s.progress.seconds_left is not None else ""
