"""The commands that measure: info, and the lab with its claims."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli.ends import signals_end_in_order
from mandeldask.cli.options import cluster_option, upload_option

if TYPE_CHECKING:
    from mandeldask.lab.claims import Claim
    from mandeldask.lab.results import Depth

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
        found = machine.describe()
        processes, warnings = {"this process": found}, machine.process_warnings(found)
    else:
        processes, warnings = _of_workers(cluster, upload)
    if as_json:
        click.echo(json.dumps({"processes": processes, "warnings": warnings}, indent=2))
        return
    _print_side_by_side(processes)
    for warning in warnings:
        click.echo(f"mandeldask: {warning}", err=True)


def _of_workers(cluster: str, upload: bool) -> tuple[dict[str, Any], list[str]]:
    from mandeldask.cluster import session
    from mandeldask.lab import machine

    def say(text: str) -> None:
        click.echo(f"mandeldask: {text}", err=True)

    with signals_end_in_order(), session(cluster, upload=upload, say=say) as there:
        if not there.runs_already:
            say("starting the workers")
        client = there.ready()
        if there.in_this_environment:
            client.wait_for_workers(there.size.workers)
        processes = client.run(machine.describe)
        threads = client.nthreads()
    return processes, machine.worker_warnings(processes, threads)


def _print_side_by_side(processes: dict[str, Any]) -> None:
    """A column a process; one column for all where all agree."""
    from mandeldask.lab.machine import side_by_side

    rows = [("", list(processes)), *side_by_side(processes.values())]
    if len(processes) > 1 and all(len(set(texts)) == 1 for _, texts in rows[1:]):
        rows = [("", [f"{len(processes)} workers, all alike"]), *((label, texts[:1]) for label, texts in rows[1:])]
    heading, *facts = ([f"{label:26}", *texts] for label, texts in rows)
    _print_table(heading, facts)


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
    from mandeldask.lab import experiments
    from mandeldask.lab.claims import QUICK

    ctx.obj["json"] = as_json
    with signals_end_in_order(), _told() as tell:
        found = experiments.measure(QUICK if quick else None, tell)
    if as_json:
        click.echo(json.dumps({"claims": [asdict(claim) for claim in found]}, indent=2))
        return
    for claim in found:
        _print_claim(claim)


@lab.command()
@depth_options
@click.option("--no-scaling", is_flag=True, help="Leave out the curves over workers and block sizes, and the balance.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def strategies(ctx: click.Context, /, no_scaling: bool, as_json: bool, **depth: Any) -> None:
    """Compute the lesson's field in every way, side by side, with more workers, and in blocks of every size."""
    from mandeldask.lab import results

    ctx.obj["json"] = as_json
    chosen = _depth(**depth)
    with signals_end_in_order(), _told() as tell:
        found = results.measure_strategies(chosen, tell)
        if not no_scaling:
            found |= results.measure_scaling(chosen, tell)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _print_table(*results.strategies_table(found))
    for fault in results.faults(found):
        click.echo(textwrap.fill(fault, WIDTH, initial_indent="  as printed: ", subsequent_indent="    "))
    if found["crowd"]:
        click.echo(f"mandeldask: {found['crowd']}", err=True)
    if not no_scaling:
        _print_scaling(found)


def _print_scaling(found: dict[str, Any]) -> None:
    from mandeldask.lab import results
    from mandeldask.lab.timing import seconds

    for title in ("Strong scaling", "Weak scaling", "Block sizes", "Load balance"):
        click.echo(f"\n{title}")
        _print_table(*results.TABLES[title](found))
    for balance in found["balance"]:
        click.echo(f"\n{balance['name']}, {seconds(balance['seconds'])}")
        for line in results.timelines(balance):
            click.echo(f"  {line}")
    for name, why in found["problems"].items():
        click.echo(f"mandeldask: {name}: {why}", err=True)


@lab.command()
@click.argument("out", type=click.Path())
@click.option("--from", "source", type=click.Path(), help="Draw what an earlier report measured: its .json.")
@depth_options
def report(out: str, source: str | None, **depth: Any) -> None:
    """Measure everything, and write it as one page, OUT.html, with its tables beside it as .json and .md."""
    from mandeldask.lab import report as page
    from mandeldask.lab import results

    page.check_target(out)
    if source:
        found = results.read(source)
    else:
        with signals_end_in_order(), _told() as tell:
            found = results.measure_all(_depth(**depth), tell)
    for path in page.write(found, out, source):
        click.echo(path)


def _depth(quick: bool, workers: int | None, size: int | None, max_iter: int | None) -> Depth:
    from mandeldask.lab import results

    return results.with_workers(results.QUICK if quick else results.FULL, workers, size, max_iter)


def _print_table(heading: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in (heading, *rows)) for i in range(len(heading))]
    for row in (heading, *rows):
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_claim(claim: Claim) -> None:
    noise = " (within the noise)" if claim.noise else ""
    click.echo(f'{claim.verdict}{noise}: "{claim.says}"')
    for text in (claim.figure, claim.why):
        if text:
            click.echo(textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    "))


@contextmanager
def _told() -> Iterator[Callable[[str], None]]:
    """Shows what is being measured."""
    from mandeldask.progress.bar import Bar

    with Bar("measuring", seconds=PLAIN_SECONDS) as bar:
        yield lambda text: bar.show(0, 0, text)
