"""The commands for submitted jobs: submit, jobs, status, wait, cancel, logs."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli import options
from mandeldask.cli.group import cli, print_facts
from mandeldask.errors import ConfigError
from mandeldask.text import command, is_url, printable, short_path, table

if TYPE_CHECKING:
    from mandeldask.job import Event, Job, Plan, Started, Status

SHOWN = 5  # failed tiles named to a person
TOLD = ("name", "store", "scheduler", "dashboard", "tiles", "pending")  # of a job that was submitted

target_options = options.together(click.argument("target", metavar="STORE|JOB"), options.cluster)


@cli.command("submit")
@options.description
@click.option("--name", help="Of the job; by default the store's name and a few digits.")
@options.as_json
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but the job's name.")
def _submit(
    config: str,
    out: str | None,
    overrides: tuple[str, ...],
    kernel: str | None,
    as_json: bool,
    quiet: bool,
    **how: Any,
) -> None:
    """Hand the field that CONFIG describes to a cluster, and return; its driver lives there as a task."""
    from mandeldask import job
    from mandeldask.progress.screen import Screen

    with Screen(quiet=quiet or as_json) as screen:

        def tell(event: Event) -> None:
            if isinstance(event, job.Started):
                _announce(event, screen.plan)
            else:
                screen(event)

        submitted = job.submit(options.described(config, overrides, kernel), out, tell=tell, **how)
        if as_json:
            click.echo(json.dumps({key: getattr(submitted, key) for key in TOLD}))
            return
        if quiet:
            click.echo(submitted.name)
            return
        screen.line("dashboard", submitted.dashboard or "switched off")
        ask = command("status", submitted.name, "--cluster", _again(how["cluster"], submitted.scheduler))
        screen.line("next", f"{ask}    how far it is; wait, cancel and logs likewise")
        ask = f"{command('status', short_path(submitted.store))}    the same from the store alone"
        hidden = f"{submitted.store} is on the workers' side, and cannot be seen from here"
        screen.line("", ask if is_url(submitted.store) or os.path.isdir(submitted.store) else hidden)


def _announce(event: Started, plan: Plan | None) -> None:
    """Let `mandeldask dashboard` find a job whose scheduler is on this machine, while the scheduler lives."""
    from mandeldask.dashboard import announce

    with suppress(Exception):  # a convenience; the link is printed all the same
        if plan and event.dashboard and event.client.run_on_scheduler(socket.gethostname) == socket.gethostname():
            announce(event.dashboard, plan.store.path, event.client.run_on_scheduler(os.getpid))


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

    found = [known.last for known in job.jobs(cluster) if known.last]
    if as_json:
        click.echo(json.dumps([asdict(status) for status in found]))
    elif not found:
        click.echo("no jobs", err=True)
    else:
        rows = [["JOB", "STATE", "TILES", "LEFT", "STORE"]]
        rows += [
            list(map(printable, (s.job or "", s.state, f"{s.done}/{s.tiles}", s.left.removesuffix(" left"), s.store)))
            for s in found
        ]
        click.echo(table(rows))


@cli.command("status")
@target_options
@options.as_json
def _status(target: str, cluster: str | None, as_json: bool) -> None:
    """Show how far a store or a job has got; for a store no scheduler is needed."""
    from mandeldask import job

    if _is_store(target):
        _show(job.status(target), as_json)
        return
    with _job(target, cluster) as found:
        _show(found.last or found.status(), as_json)


@cli.command("wait")
@target_options
@click.option("--timeout", type=float, help="Seconds after which to stop waiting, with exit code 5.")
@options.as_json
def _wait(target: str, cluster: str | None, timeout: float | None, as_json: bool) -> int | None:
    """Wait until a job, or the run of a store, has ended; the exit code is the job's."""
    from mandeldask import job
    from mandeldask.progress import Bar

    with Bar(quiet=as_json) as bar:

        def tell(now: Status) -> None:
            if not now.ended:
                bar.show(now.done, now.tiles, now.words)

        if _is_store(target):
            end = job.wait(partial(job.status, target), timeout, tell)
        else:
            with _job(target, cluster) as found:
                end = found.wait(timeout, tell=tell)
    _show(end, as_json)
    return end.exit_code


@cli.command("cancel")
@target_options
@options.as_json
def _cancel(target: str, cluster: str | None, as_json: bool) -> None:
    """End a job; what is finished stays in its store."""
    with _job(target, cluster) as found:
        _show(found.cancel(), as_json)


@cli.command("logs")
@target_options
@options.as_json
def _logs(target: str, cluster: str | None, as_json: bool) -> None:
    """Print the log of a job's driver: where it ran, tiles that failed, how it ended."""
    with _job(target, cluster) as found:
        lines = found.logs()
    if as_json:
        click.echo(json.dumps([{"time": at, "text": text} for at, text in lines]))
    else:
        for at, text in lines:
            click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))}  {printable(text)}")


@contextmanager
def _job(target: str, cluster: str | None) -> Iterator[Job]:
    """The job of that name, or the one that works on that store, while one connection is open for all it is asked."""
    from mandeldask import job

    name = job.status(target).job if _is_store(target) else target
    if not name:
        raise ConfigError(f"no submitted job works on {target}; a run ends with Ctrl-C where it was started")
    with job.scheduler_of(cluster) as client:
        found = job.find(name, client=client)
        if _is_store(target) and _real(found.store) != _real(target):
            raise ConfigError(
                f"job {name} of this scheduler works on {printable(found.store)}, not on {target}; give the job's name"
            )
        yield found


def _is_store(target: str) -> bool:
    return os.path.isdir(target) or os.sep in target or target.endswith(".zarr")


def _real(path: str) -> str:
    return path.rstrip("/") if is_url(path) else os.path.realpath(path)


def _show(s: Status, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(s)))
        return
    again = f"{command('resume', short_path(s.store))}, or submit it again"
    print_facts(
        ("store", short_path(s.store)),
        ("job", s.job),
        ("state", s.words),
        ("why", s.message if s.ended else None),
        ("updated", f"{max(0.0, time.time() - s.updated):.0f} s ago" if s.updated and not s.ended else None),
        *(("failed", f"tile {tile}: {error}") for tile, error in list(s.errors.items())[:SHOWN]),
        ("failed", f"and {len(s.errors) - SHOWN} more: --json has them all" if len(s.errors) > SHOWN else None),
        ("next", again if s.ended and s.state != "finished" else None),
    )
