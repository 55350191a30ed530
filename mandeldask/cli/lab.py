"""The commands that measure: info, and the lab with its claims."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from mandeldask.cli.exits import signals_end_in_order
from mandeldask.cli.options import cluster_option, upload_option

PLAIN_SECONDS = 2.0  # between two lines where there is no terminal
WIDTH = 110


@click.command()
@cluster_option
@upload_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def info(ctx: click.Context, /, cluster: str | None, upload: bool, as_json: bool) -> None:
    """Tell what there is to compute with: cores, SIMD, BLAS, Numba, Dask; with --cluster on each of its workers."""
    from mandeldask.lab import machine

    ctx.obj["json"] = as_json
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
    _warn(*warnings)


def _warn(*warnings: str) -> None:
    for warning in warnings:
        click.echo(f"mandeldask: {warning}", err=True)


def _of_workers(cluster: str, upload: bool) -> tuple[dict[str, Any], dict[str, int]]:
    """What each worker has, and its number of threads."""
    from mandeldask.cluster import session
    from mandeldask.lab import machine

    with signals_end_in_order(), session(cluster, upload=upload, say=_warn) as there:
        if not there.runs_already:
            _warn("starting the workers")
        client = there.ready()
        if there.in_this_environment:
            client.wait_for_workers(there.size.workers)
        return client.run(machine.describe), client.nthreads()


def _side_by_side(processes: dict[str, Any]) -> str:
    """A column a process; one column for all where all agree."""
    from mandeldask.lab.machine import side_by_side
    from mandeldask.lab.tables import text

    names, rows = list(processes), side_by_side(processes.values())
    if len(names) > 1 and all(len(set(texts)) == 1 for _, texts in rows):
        names, rows = [f"{len(names)} workers, all alike"], [(label, texts[:1]) for label, texts in rows]
    return text([["", *names], *([label, *texts] for label, texts in rows)])


@click.group()
def lab() -> None:
    """The lesson on parallel NumPy, measured on this machine."""


def depth_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How much is measured: the same for every command that computes the field."""
    for option in (
        click.option("--workers", type=click.IntRange(1, 1024), help="By default one a usable core."),
        click.option("--max-iter", type=click.IntRange(1, 10**6), help="Of the strategies' field; by default 100."),
        click.option("--size", type=click.IntRange(16, 20000), help="Its samples a side; by default 1000."),
        quick_option,
    ):
        command = option(command)
    return command


quick_option = click.option("--quick", is_flag=True, help="Small arrays and few turns: rough figures, sooner.")


@lab.command()
@quick_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def claims(ctx: click.Context, /, quick: bool, as_json: bool) -> None:
    """Put the lesson's claims to the test: a verdict, a figure and a reason for each."""
    from mandeldask.lab import claims as measured
    from mandeldask.lab import machine, tables
    from mandeldask.lab.workload import depth_of

    ctx.obj["json"] = as_json
    _warn(*machine.busy_warnings())
    with signals_end_in_order(), _told() as tell:
        found = measured.measure(depth_of(quick), tell)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for claim in found["claims"]:
        click.echo(f'{tables.verdict(claim)}: "{claim["says"]}"')
        for text in filter(None, (claim["figure"], claim["why"])):
            click.echo(textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    "))


@lab.command()
@depth_options
@click.option("--no-scaling", is_flag=True, help="Leave out the curves over workers and block sizes, and the balance.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def strategies(ctx: click.Context, /, no_scaling: bool, as_json: bool, **depth: Any) -> None:
    """Compute the lesson's field in every way, side by side, with more workers, and in blocks of every size."""
    from mandeldask.lab import machine, tables
    from mandeldask.lab import strategies as measured
    from mandeldask.lab.workload import depth_of

    ctx.obj["json"] = as_json
    chosen = depth_of(**depth)
    _warn(*machine.busy_warnings())
    with signals_end_in_order(), _told() as tell:
        found = measured.measure(chosen, tell)
        if not no_scaling:
            found |= measured.measure_scaling(chosen, tell)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    shown = tables.tables(found)
    click.echo(tables.text(shown["Strategies"]))
    for fault in tables.faults(found):
        click.echo(textwrap.fill(fault, WIDTH, initial_indent="  as printed: ", subsequent_indent="    "))
    if not no_scaling:
        for title in tables.SCALING:
            click.echo(f"\n{title}\n{tables.text(shown[title])}")
        _print_balance(found)


def _print_balance(found: dict[str, Any]) -> None:
    from mandeldask.lab import tables
    from mandeldask.lab.timing import seconds

    for balance in found["balance"]:
        click.echo(f"\n{balance['name']}, {seconds(balance['seconds'])}")
        for line in tables.timelines(balance):
            click.echo(f"  {line}")
    _warn(*(f"{name}: {why}" for name, why in found["problems"].items()))


@lab.command()
@click.argument("out", type=click.Path())
@click.option("--from", "source", type=click.Path(), help="Draw what an earlier report measured: its .json.")
@depth_options
def report(out: str, source: str | None, **depth: Any) -> None:
    """Measure everything, and write it as one page, OUT.html, with its tables beside it as .json and .md."""
    from mandeldask.lab import report as page
    from mandeldask.lab.workload import depth_of

    page.check_target(out)
    if source:
        found = page.read(source)
    else:
        with signals_end_in_order(), _told() as tell:
            found = page.measure(depth_of(**depth), tell)
    for path in page.write(found, out):
        click.echo(path)


@contextmanager
def _told() -> Iterator[Callable[[str], None]]:
    """Shows what is being measured."""
    from mandeldask.progress.bar import Bar

    with Bar("measuring", seconds=PLAIN_SECONDS) as bar:
        yield lambda text: bar.show(0, 0, text)
