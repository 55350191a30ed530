"""The commands that read a store, image and checksum; and schema, which tells what a description may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli.exits import EXIT_FAILED_TILES

if TYPE_CHECKING:
    from mandeldask.image import Picture

LARGE = 10**8  # samples: to read them takes seconds


@click.command()
@click.argument("store", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--colormap", help="classic (the default), a palette of Bokeh such as magma, or any map of cmap.")
@click.option("--reverse", is_flag=True, default=None, help="The colour map from its last colour to its first.")
@click.option("--scale", help="mix (the default: half log, half equalised), log, equalised or linear.")
@click.option("--repeat", type=float, metavar="N", help="Run through the map, there and back, N times on the scale.")
@click.option("--period", type=float, metavar="N", help="Run through the map, there and back, once in N iterations.")
@click.option("--phase", type=float, help="Where the rounds start: 0.5 with the map's last colour.")
@click.option("--interior", help="Colour of the samples that do not escape, #rrggbb; black by default.")
@click.option("--shade", help="What is coloured: counts (the default), smooth or distance, the fields of these names.")
@click.option("--light", type=(float, float), metavar="AZIMUTH HEIGHT", help="Slopes under a light, such as 315 45.")
@click.option("--supersample", type=int, default=1, help="A pixel is the mean of 2, 4 or 8 samples a side.")
@click.option("--size", type=int, help="Pixels of the longer side, about; by default one a sample.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
def image(store: str, out: str, *, quiet: bool, **options: Any) -> None:
    """Make a picture of STORE: OUT.png, OUT.tif (a pyramidal BigTIFF) or OUT.dzi (Deep Zoom, with a folder of tiles).

    It is streamed, so it may be larger than memory.
    """
    from mandeldask.image import check_path, picture

    check_path(out)
    drawn = picture(store, **{key: value for key, value in options.items() if value is not None})
    draw(drawn, out, quiet)
    if not quiet:
        rows, columns = drawn.shape
        click.echo(f"{out}: {columns} x {rows} pixels", err=True)
        _tell_missing(drawn.missing, "are grey")


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
    missing = int((~opened.done()).sum())
    _tell_missing(missing, "count as zeros")
    if missing:
        ctx.exit(EXIT_FAILED_TILES)


def _tell_missing(missing: int, what: str) -> None:
    if missing:
        click.echo(f"mandeldask: {missing} tiles are not computed yet, and {what}", err=True)


@click.command()
@click.argument("what", type=click.Choice(["run", "cluster"]), default="run")
def schema(what: str) -> None:
    """Print the JSON schema of a run description, or of a cluster description, for editors."""
    from mandeldask.config import json_schema

    click.echo(json.dumps(json_schema(what), indent=2))


def draw(picture: Picture, path: str, quiet: bool) -> None:
    """Write the picture, under a bar where that is not unwanted."""
    from mandeldask.progress.bar import Bar

    with Bar("picture") as bar:
        tell = None if quiet else lambda done, total: bar.show(done, total, f"{Path(path).name}: {done / total:.0%}")
        picture.save(path, tell)
