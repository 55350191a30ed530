"""The commands that keep a store: verify, and deepen."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli.computing import compute_under_screen, output_options
from mandeldask.cli.exits import signals_end_in_order
from mandeldask.cli.options import cluster_of, cluster_option, space_option, upload_option, workers_option
from mandeldask.text import plural, printable, short_path, si

if TYPE_CHECKING:
    from mandeldask.job import Observer, Summary
    from mandeldask.job.verification import Checking, Verification
    from mandeldask.progress.bar import Bar

SHOWN = 10  # findings named to a person
WATCH_SECONDS = 5.0  # between two lines where there is no terminal


@click.command()
@click.argument("store", type=click.Path())
@click.option("--quick", is_flag=True, help="Read the checksums alone; nothing is decoded.")
@click.option(
    "--recompute",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Compute N random tiles again with the reference kernel, and compare bit for bit.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Of the random tiles; by default another each time.")
@click.option("--repair", is_flag=True, help="Take out what is wrong, so that `resume` makes it again.")
@cluster_option
@upload_option
@workers_option
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as one JSON object, and nothing else.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    store: str,
    cluster: str | None,
    *,
    workers: int | None,
    as_json: bool,
    quiet: bool,
    **how: Any,
) -> None:
    """Find what of STORE is missing or wrong: exit code 0 sound, 4 tiles are missing, 6 something is wrong."""
    from mandeldask.job import verify as job_verify
    from mandeldask.progress.bar import Bar

    ctx.obj["json"] = as_json
    with signals_end_in_order(), Bar("verify", seconds=WATCH_SECONDS) as bar:
        tell = (lambda _: None) if as_json or quiet else partial(_show, bar)
        found = job_verify(store, cluster=cluster_of(cluster, workers), tell=tell, **how)
    if as_json:
        values = asdict(found) | {"sound": found.sound, "exit_code": found.exit_code}
        click.echo(json.dumps(values))
    elif not quiet:
        for name, text in _lines(found):
            click.echo(f"  {name:<10} {printable(text)}")
    ctx.exit(found.exit_code)


@click.command()
@click.argument("store", type=click.Path())
@click.option("--max-iter", type=int, required=True, help="More than STORE has.")
@click.option("--out", "-o", type=click.Path(), required=True, help="The store that is made; STORE stays as it is.")
@click.option("--kernel", default="auto", show_default=True, help="Any kernel: all give the same bits.")
@cluster_option
@upload_option
@space_option
@workers_option
@output_options
@click.pass_context
def deepen(
    ctx: click.Context,
    /,
    store: str,
    *,
    max_iter: int,
    out: str,
    kernel: str,
    cluster: str | None,
    upload: bool,
    ignore_space: bool,
    workers: int | None,
    **output: Any,
) -> None:
    """Compute STORE's field with more iterations: only the samples that had not escaped; the others are copied."""
    from mandeldask import job

    described = cluster_of(cluster, workers)

    def compute(tell: Observer) -> Summary:
        return job.deepen(
            store,
            max_iter,
            out,
            kernel=kernel,
            cluster=described,
            upload=upload,
            ignore_space=ignore_space,
            tell=tell,
        )

    compute_under_screen(ctx, compute, {}, **output)


def _show(bar: Bar, event: Checking | str) -> None:
    if isinstance(event, str):
        bar.say(event)
        return
    rate = f"{si(event.bytes / max(1e-3, event.seconds))}B/s"
    wrong = f", {event.damaged} wrong" if event.damaged else ""
    bar.show(event.done, event.tiles, f"{event.done}/{event.tiles} tiles, {rate}{wrong}")


def _lines(v: Verification) -> list[tuple[str, str]]:
    """What a person is told: what was looked at, what is wrong, and what to type."""
    store = shlex.quote(short_path(v.store))
    what = "checksums" if v.quick else "checksums, values, levels, coordinates"
    lines = [
        ("store", short_path(v.store)),
        ("checked", f"{plural(v.shards, 'shard')}, {si(v.bytes)}B, in {v.seconds:.1f} s: {what}"),
    ]
    if v.seed is not None:
        lines.append(("recomputed", f"{plural(v.recomputed, 'tile')} or a window of each, --seed {v.seed}"))
    if v.missing or v.missing_levels:
        levels = f", and {plural(v.missing_levels, 'pyramid tile')}" if v.missing_levels else ""
        lines.append(("missing", f"{v.missing} of {plural(v.tiles, 'tile')} of the field{levels}"))
    for kind in ("wrong", "stray"):
        found = [f for f in v.findings if (f.kind == "stray") == (kind == "stray")]
        lines += [(kind, f"{f.key} {f.problem}") for f in found[:SHOWN]]
        number = v.kinds.get("stray", 0) if kind == "stray" else v.damaged
        if number > SHOWN:
            lines.append((kind, f"and {number - SHOWN} more: --json names the first thousand"))
    if v.repaired:
        lines.append(("repaired", "what was wrong is taken out or written again"))
    if not v.sound:
        lines.append(("next", f"mandeldask verify {store} --repair    takes it out"))
    elif v.missing or v.missing_levels:
        lines.append(("next", f"mandeldask resume {store}    computes what is missing"))
    else:
        lines.append(("sound", "nothing is missing or wrong"))
    return lines
