"""Options that several commands take: `@options.cluster` and so on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from mandeldask.errors import ConfigError

if TYPE_CHECKING:
    from mandeldask.config import Config

AnyCommand = Callable[..., Any]


def together(*declared: Callable[[AnyCommand], AnyCommand]) -> Callable[[AnyCommand], AnyCommand]:
    """Several options and arguments as one; --help shows them in this order."""

    def declare(command: AnyCommand) -> AnyCommand:
        for option in reversed(declared):
            command = option(command)
        return command

    return declare


def cluster_of(cluster: str | None, workers: int | None) -> Any:
    """What --cluster and --workers name together; None where neither is given."""
    if cluster and workers is not None:
        raise ConfigError("--cluster and --workers exclude each other; give one")
    return {"kind": "local", "workers": workers} if workers is not None else cluster


def described(config: str, overrides: tuple[str, ...], kernel: str | None) -> Config:
    """The run description, with what --set and --kernel change in it."""
    from mandeldask import config as configs

    return configs.load(config, (*overrides, f"kernel={kernel}") if kernel else overrides)


def _remember(ctx: click.Context, _: click.Parameter, as_json: bool) -> bool:
    """Errors are printed as JSON too."""
    ctx.ensure_object(dict)["json"] = as_json
    return as_json


SAME_BITS = "numpy, numpy-compact, numba, cuda or auto: all give the same bits."
store = click.argument("store", type=click.Path())
as_json = click.option(
    "--json", "as_json", is_flag=True, callback=_remember, help="Print JSON on stdout, nothing else."
)
quiet = click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
cluster = click.option(
    "--cluster",
    metavar="FILE|ADDRESS",
    help="Who computes: a cluster description (`init clusters/slurm` writes one), the address of a scheduler, its "
    "scheduler file, or the word local. By default what the run description names, else DASK_SCHEDULER_ADDRESS, else "
    "this machine.",
)
workers = click.option(
    "--workers", type=int, help="Worker processes on this machine; by default one for each usable core."
)
trust = click.option(
    "--trust",
    is_flag=True,
    help="Use whatever cluster the description names. Without it only worker processes on this machine: any other can "
    "run programs as you.",
)
upload = click.option(
    "--upload",
    is_flag=True,
    help="Send this mandeldask to the scheduler and the workers first, where it is missing or another version.",
)
ignore_space = click.option(
    "--ignore-space", is_flag=True, help="Begin even where the field will surely not fit on the disk."
)
overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the description, e.g. --set 'view.shape=[4096,4096]'; may be repeated.",
)
description = together(
    click.argument("config", type=click.Path()),
    click.option("--out", "-o", type=click.Path(), help="The store; takes precedence over the description's."),
    overrides,
    click.option(
        "--kernel", metavar="NAME", help=f"{SAME_BITS} Of a deep view deep or auto. Short for --set kernel=NAME."
    ),
    cluster,
    trust,
    upload,
    ignore_space,
    click.option("--overwrite", is_flag=True, help="Replace the store that is there, if it is mandeldask's."),
)
