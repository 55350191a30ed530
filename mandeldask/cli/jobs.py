"""The commands for submitted jobs: submit, jobs, status, wait, cancel, logs."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli import options
from mandeldask.cli.clusters import with_page
from mandeldask.cli.group import cli, print_facts
from mandeldask.errors import ConfigError
from mandeldask.text import command, duration, is_url, plural, printable, short_path, si

if TYPE_CHECKING:
    from distributed import Client

    from mandeldask.job import Event, Started, Status

SHOWN = 5  # failed tiles named to a person

target_options = options.together(click.argument("target", metavar="STORE|JOB"), options.cluster)


@cli.command("submit")
@options.description
@click.option("--name", help="Of the job; by default the store's name and a few digits.")
@options.as_json
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but the job's name.")
def _submit(config: str, out: str | None, as_json: bool, quiet: bool, **how: Any) -> None:
    """Hand the field that CONFIG describes to a cluster, and return; its driver lives there as a task."""
    from mandeldask import job
    from mandeldask.progress.screen import Screen

    link = store = ""
    with Screen(quiet=quiet or as_json) as screen:

        def tell(event: Event) -> None:
            nonlocal link, store
            if isinstance(event, job.Plan):
                store = event.store.path
            if isinstance(event, job.Started):
                event = with_page(event)
                link = event.dashboard
                _announce(event, store)
            else:
                screen(event)

        submitted = replace(job.submit(config, out, tell=tell, **how), dashboard=link)
        if as_json:
            click.echo(json.dumps(asdict(submitted)))
            return
        if quiet:
            click.echo(submitted.name)
            return
        screen.line("dashboard", submitted.dashboard or "switched off")
        screen.line("job", f"{submitted.name}, on {submitted.scheduler}")
        ask = command("status", submitted.name, "--cluster", _again(how["cluster"], submitted.scheduler))
        screen.line("next", f"{ask}    how far it is; wait, cancel and logs likewise")
        ask = f"{command('status', short_path(submitted.store))}    the same from the store alone"
        hidden = f"{submitted.store} is on the workers' side, and cannot be seen from here"
        screen.line("", ask if is_url(submitted.store) or os.path.isdir(submitted.store) else hidden)


def _announce(event: Started, store: str) -> None:
    """Let `mandeldask dashboard` find a job whose scheduler is on this machine, while the scheduler lives."""
    from mandeldask.dashboard import announce

    with suppress(Exception):  # a convenience; the link is printed all the same
        if event.dashboard and event.client.run_on_scheduler(socket.gethostname) == socket.gethostname():
            announce(event.dashboard, store, event.client.run_on_scheduler(os.getpid))


def _again(cluster: str | None, scheduler: str) -> str:
    """What to give --cluster to reach a job's scheduler: the description that was given, with its certificates, or the
    address of the scheduler that was started.
    """
    from mandeldask import config as configs

    if cluster and isinstance(configs.load_cluster(cluster), configs.RunningScheduler):
        return cluster
    return scheduler


@cli.command("jobs")
@options.cluster
@options.as_json
def _jobs(cluster: str | None, as_json: bool) -> None:
    """List the jobs that a scheduler has had since it started."""
    from mandeldask import job

    with _client(cluster) as client:
        found = job.status_of_jobs(client)
    if as_json:
        click.echo(json.dumps([asdict(status) for status in found]))
    elif not found:
        click.echo("no jobs", err=True)
    else:
        rows = [["JOB", "STATE", "TILES", "LEFT", "STORE"]]
        rows += [list(map(printable, (s.job or "", s.state, f"{s.done}/{s.tiles}", _left(s), s.store))) for s in found]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            click.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@cli.command("status")
@target_options
@options.as_json
def _status(target: str, cluster: str | None, as_json: bool) -> None:
    """Tell how far a store or a job is; for a store no scheduler is needed."""
    with _looking(target, cluster) as look:
        _show(look(), as_json)


@cli.command("wait")
@target_options
@click.option("--timeout", type=float, help="Seconds after which to stop waiting, with exit code 5.")
@options.as_json
def _wait(target: str, cluster: str | None, timeout: float | None, as_json: bool) -> int | None:
    """Wait for a job's end, or a store's; the exit code is the job's."""
    from mandeldask import job
    from mandeldask.progress import Bar

    with _looking(target, cluster) as look, Bar(quiet=as_json) as bar:

        def tell(now: Status) -> None:
            if not now.ended:
                bar.show(now.done, now.tiles, _line(now))

        end = job.wait(look, timeout, tell)
    _show(end, as_json)
    return end.exit_code


@cli.command("cancel")
@target_options
@options.as_json
def _cancel(target: str, cluster: str | None, as_json: bool) -> None:
    """End a job; what is finished stays in its store."""
    from mandeldask import job

    with _job(target, cluster) as (client, name):
        _show(job.cancel(client, name), as_json)


@cli.command("logs")
@target_options
@options.as_json
def _logs(target: str, cluster: str | None, as_json: bool) -> None:
    """Print what a job's driver had to say: where it ran, tiles that failed, how it ended."""
    from mandeldask import job

    with _job(target, cluster) as (client, name):
        lines = job.logs(client, name)
    if as_json:
        click.echo(json.dumps([{"time": at, "text": text} for at, text in lines]))
    else:
        for at, text in lines:
            click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))}  {printable(text)}")


@contextmanager
def _client(cluster: str | None) -> Iterator[Client]:
    """A client of the scheduler named: this command starts none."""
    from mandeldask.cluster import Session

    with Session(cluster) as there:
        if not there.runs_already:
            raise ConfigError(
                "which scheduler? Name one that is up: --cluster tcp://HOST:PORT (as `submit` printed it), or set "
                f"DASK_SCHEDULER_ADDRESS; the status of a store needs none: {command('status', 'STORE')}"
            )
        yield there.connect()


@contextmanager
def _looking(target: str, cluster: str | None) -> Iterator[Callable[[], Status]]:
    """A function that gives the status of a store or a job."""
    from mandeldask import job

    with nullcontext() if _is_store(target) else _client(cluster) as client:
        yield partial(job.status, target, client)


@contextmanager
def _job(target: str, cluster: str | None) -> Iterator[tuple[Client, str]]:
    """A client of a scheduler, and the name of its job: the one given, or the one that works on the store given."""
    from mandeldask import job

    name: str | None = target
    if _is_store(target):
        name = job.status(target).job
    if not name:
        raise ConfigError(f"no submitted job works on {target}; a run ends with Ctrl-C where it was started")
    with _client(cluster) as client:
        if _is_store(target) and _real(works_on := job.status(name, client).store) != _real(target):
            raise ConfigError(
                f"job {name} of this scheduler works on {printable(works_on)}, not on {target}; give the job's name"
            )
        yield client, name


def _is_store(target: str) -> bool:
    return os.path.isdir(target) or os.sep in target or target.endswith(".zarr")


def _real(path: str) -> str:
    return path.rstrip("/") if is_url(path) else os.path.realpath(path)


def _show(s: Status, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(s)))
        return
    again = s.state == "stopped" or (s.ended and s.done < s.tiles)
    print_facts(
        ("store", short_path(s.store)),
        ("job", s.job),
        ("state", _line(s)),
        ("why", s.message if s.ended else None),
        ("updated", f"{max(0.0, time.time() - s.updated):.0f} s ago" if s.updated and not s.ended else None),
        *(("failed", f"tile {tile}: {error}") for tile, error in list(s.errors.items())[:SHOWN]),
        ("failed", f"and {len(s.errors) - SHOWN} more: --json has them all" if len(s.errors) > SHOWN else None),
        ("next", f"{command('resume', short_path(s.store))}, or submit it again" if again else None),
    )


def _line(s: Status) -> str:
    now = s.progress
    rate = f", {si(now.samples_per_second)} samples/s" if now and now.samples_per_second else ""
    workers = f", {plural(now.workers, 'worker')}" if now else ""
    failed = f", {s.failed} failed" if s.failed else ""
    left = f", {_left(s)} left" if _left(s) else ""
    waits = f", {s.message}" if s.state == "waiting" and s.message else ""
    levels = f", {plural(s.levels, 'pyramid tile')} to build" if s.levels and s.done == s.tiles else ""
    return f"{s.state}: {s.done}/{s.tiles} tiles{levels}{failed}{rate}{workers}{left}{waits}"


def _left(s: Status) -> str:
    return duration(s.progress.seconds_left) if s.progress and s.progress.seconds_left is not None else ""
