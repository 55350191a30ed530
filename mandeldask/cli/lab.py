"""The lab: the lesson's claims and strategies, measured, and the report."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from mandeldask.cli import options
from mandeldask.cli.group import cli, columns, signals_end_in_order, warn
from mandeldask.text import short_time, table

WIDTH = 110

quick_option = click.option("--quick", is_flag=True, help="Small arrays and few turns: rough figures, sooner.")
depth_options = options.together(
    quick_option,
    click.option("--size", type=click.IntRange(16, 20000), help="Its samples a side; by default 1000."),
    click.option("--max-iter", type=click.IntRange(1, 10**6), help="Of the strategies' field; by default 100."),
    click.option("--workers", type=click.IntRange(1, 1024), help="By default one for each usable core."),
)


@cli.group("lab")
def _lab() -> None:
    """The lesson on parallel NumPy, measured on this machine."""


@_lab.command("claims")
@quick_option
@options.as_json
def _claims(quick: bool, as_json: bool) -> None:
    """Put the lesson's claims to the test: a verdict, a figure and a reason for each."""
    from mandeldask.lab import claims, machine, tables
    from mandeldask.lab.workload import depth_of

    with _measuring(*machine.busy_warnings()) as tell:
        found = claims.measure(depth_of(quick), tell)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for claim in found["claims"]:
        click.echo(textwrap.fill(f'{tables.verdict(claim)}: "{claim["says"]}"', _width(), subsequent_indent="  "))
        for text in filter(None, (claim["figure"], claim["why"])):
            click.echo(textwrap.fill(text, _width(), initial_indent="    ", subsequent_indent="    "))


@_lab.command("strategies")
@depth_options
@click.option("--no-scaling", is_flag=True, help="Leave out the curves over workers and block sizes, and the balance.")
@options.as_json
def _strategies(no_scaling: bool, as_json: bool, **depth: Any) -> None:
    """Compute the lesson's field in every way, side by side, with more workers, and in blocks of every size."""
    from mandeldask.lab import machine, strategies, tables
    from mandeldask.lab.workload import depth_of

    chosen = depth_of(**depth)
    with _measuring(*machine.busy_warnings()) as tell:
        found = strategies.measure(chosen, tell)
        if not no_scaling:
            found |= strategies.measure_scaling(chosen, tell)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    shown = tables.tables(found)
    click.echo(table(shown["Strategies"], columns(sys.stdout)))
    for fault in tables.faults(found):
        click.echo(textwrap.fill(fault, _width(), initial_indent="  as printed: ", subsequent_indent="    "))
    if not no_scaling:
        for title in tables.SCALING:
            click.echo(f"\n{title}\n{table(shown[title], columns(sys.stdout))}")
        _print_balance(found)


def _print_balance(found: dict[str, Any]) -> None:
    from mandeldask.lab import tables

    for balance in found["balance"]:
        click.echo(f"\n{balance['name']}, {short_time(balance['seconds'])}")
        for line in tables.timelines(balance, min(60, _width() - 14)):
            click.echo(f"  {line}")
    warn(*(f"{name}: {why}" for name, why in found["problems"].items()))


@_lab.command("report")
@click.argument("out", type=click.Path())
@click.option("--from", "source", type=click.Path(), help="Draw what an earlier report measured: its .json.")
@depth_options
def _report(out: str, source: str | None, **depth: Any) -> None:
    """Measure everything, and write it as one page, OUT.html, with its tables beside it as .json and .md."""
    from mandeldask.lab import report
    from mandeldask.lab.workload import depth_of

    report.check_target(out)
    if source:
        found = report.read(source)
    else:
        with _measuring() as tell:
            found = report.measure(depth_of(**depth), tell)
    for path in report.write(found, out):
        click.echo(path)


def _width() -> int:
    """Of the terminal, or a line that is easily read."""
    return min(WIDTH, columns(sys.stdout) or WIDTH)


@contextmanager
def _measuring(*warnings: str) -> Iterator[Callable[[str], None]]:
    """Shows what is being measured."""
    from mandeldask.progress import Bar

    warn(*warnings)
    with signals_end_in_order(), Bar("measuring") as bar:
        yield lambda text: bar.show(0, 0, text)
