"""The commands that look at a store: image, checksum; and at what a description may hold: schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli.ends import EXIT_FAILED_TILES

if TYPE_CHECKING:
    from mandeldask.store import Store

LARGE = 10**8  # samples: to read them takes seconds


@click.command()
@click.argument("store", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--colormap",
    default="classic",
    show_default=True,
    help="classic, cividis, greys, inferno, magma, plasma, turbo or viridis.",
)
@click.option("--scale", default="mix", show_default=True, help="mix, log, equalised or linear.")
@click.option(
    "--interior", default="#000000", show_default=True, help="Colour of the samples that do not escape, #rrggbb."
)
@click.option("--size", type=int, help="Pixels of the longer side, about; by default one a sample.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
def image(store: str, out: str, *, quiet: bool, **look: Any) -> None:
    """Make a picture, OUT.png, of STORE. It is streamed, so it may be larger than memory."""
    from mandeldask.store import open_store

    opened = open_store(store)
    rows, columns = draw(opened, out, not quiet and sys.stderr.isatty(), **look)
    if not quiet:
        click.echo(f"{out}: {columns} x {rows} pixels", err=True)
        _missing(opened, "are grey")


@click.command()
@click.argument("store", type=click.Path())
@click.pass_context
def checksum(ctx: click.Context, /, store: str) -> None:
    """Print the SHA-256 of STORE's escape times, little-endian int32 in row order: the same for any tiling."""
    from mandeldask.store import open_store

    opened = open_store(store)
    if opened.description.view.size > LARGE:
        click.echo(f"mandeldask: reading {opened.description.view.size / 1e9:.3g} G samples", err=True)
    click.echo(f"{opened.checksum()}  {store}")
    if _missing(opened, "count as zeros"):
        ctx.exit(EXIT_FAILED_TILES)


def _missing(store: Store, what: str) -> int:
    """Tell how many tiles are not computed yet."""
    missing = int((~store.done()).sum())
    if missing:
        click.echo(f"mandeldask: {missing} tiles are not computed yet, and {what}", err=True)
    return missing


@click.command()
@click.argument("what", type=click.Choice(["run", "cluster"]), default="run")
def schema(what: str) -> None:
    """Print the JSON schema of a run description, or of a cluster description, for editors."""
    from mandeldask.config import cluster_schema, json_schema

    click.echo(json.dumps(cluster_schema() if what == "cluster" else json_schema(), indent=2))


def draw(store: Store, path: str, bar: bool, **look: Any) -> tuple[int, int]:
    """Write the picture, under a bar if asked for."""
    from mandeldask.image import write_png

    d = store.description
    look["description"] = f"Mandelbrot escape times, x {list(d.x)}, y {list(d.y)}, max_iter {d.max_iter}"
    if not bar:
        return write_png(store.escape_time, d.max_iter, path, **look)
    with click.progressbar(length=1000, label=f"  {Path(path).name}", file=sys.stderr) as shown:

        def progress(done: int, total: int) -> None:
            shown.update(1000 * done // total - shown.pos)

        return write_png(store.escape_time, d.max_iter, path, progress=progress, **look)
