"""The command area."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli import options
from mandeldask.cli.group import cli, print_facts, signals_end_in_order, typed, warn
from mandeldask.text import duration, plural, si

if TYPE_CHECKING:
    from mandeldask.measure import Area, Counted


@cli.command("area")
@click.option("--x", type=(float, float), metavar="LOW HIGH", help="Of Re(c); by default the whole set.")
@click.option("--y", type=(float, float), metavar="LOW HIGH", help="Of Im(c); by default the whole set.")
@click.option("--n", type=int, help="Samples a side of a grid; by default 16384.")
@click.option(
    "--grids",
    type=int,
    metavar="K",
    help="Grids, each shifted at random; by default 8. With 2 or 3 the error is rough.",
)
@click.option("--max-iter", type=int, help="The largest; by default 262144. The area is extrapolated from there.")
@click.option("--until", type=float, metavar="ERROR", help="Add grids until the error is no larger, such as 1e-6.")
@click.option("--seed", type=int, help="Of the shifts; by default 1.")
@click.option("--out", "-o", type=click.Path(dir_okay=False), help="A small file of counts, to go on with later.")
@click.option("--kernel", metavar="NAME", help=options.SAME_BITS)
@options.cluster
@options.upload
@options.workers
@options.as_json
@options.quiet
def _area(cluster: str | None, workers: int | None, as_json: bool, quiet: bool, **given: Any) -> None:
    """The area of the set, or of a window of it, with its error; nothing is stored but counts.

    Counts samples of randomly shifted grids that do not escape, and extrapolates to infinite max_iter.
    """
    from mandeldask.measure import Counted, area
    from mandeldask.progress import Bar

    silent = as_json or quiet
    how = {name: value for name, value in given.items() if value is not None}
    with signals_end_in_order(), Bar("area", quiet=silent) as bar:

        def tell(event: Counted | str) -> None:
            if isinstance(event, Counted):
                bar.show(event.done, event.rows, _how_far(event))
            else:
                bar.line("", event)

        try:
            found = area(cluster=options.cluster_of(cluster, workers), tell=tell, **how)
        except KeyboardInterrupt:
            if given["out"]:
                warn(f"what is counted is in {given['out']}; go on with:  {typed()}")
            raise
    if as_json:
        click.echo(json.dumps(asdict(found) | {"interval": found.interval}))
    elif not quiet:
        print_facts(*_facts(found))


def _how_far(c: Counted) -> str:
    left = "" if c.seconds_left is None else f", {duration(round(c.seconds_left))} left"
    return f"{c.done}/{c.rows} rows, {si(c.samples / max(1e-3, c.seconds))} samples/s{left}"


def _facts(a: Area) -> Iterator[tuple[str, str]]:
    from mandeldask.measure.estimate import compared

    low, high = a.interval
    shape = f"{plural(a.grids, 'grid')} of {a.n} x {a.n}, seed {a.seed}: {si(a.samples)} samples"
    rate = f", {si(a.samples_per_second)} samples/s in {duration(a.seconds)}" if a.seconds else ", all counted before"
    yield "window", f"x [{a.x[0]!r}, {a.x[1]!r}], y [{a.y[0]!r}, {a.y[1]!r}]"
    yield "grids", f"{shape}{rate}, kernel {a.kernel}"
    for limit, value, error in zip(a.max_iter, a.areas, a.errors, strict=True):
        yield "max_iter", f"{limit:>10}: {value:.10f} +- {error:.1e}"
    further = f"a larger max_iter adds {a.extrapolation:.3e} +- {a.extrapolation_error:.1e}"
    yield "limit", f"{further}; the grids differ by +- {a.standard_error:.1e}"
    yield "not proved", f"{a.not_proved:.3e} of the last, which bounds what is still to escape"
    if a.lemniscate:  # the whole set
        yield from compared(a)
    yield "area", f"{a.area:.10f} +- {a.error:.1e}, from {low:.10f} to {high:.10f}"
