"""The command that makes a film: zoom."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import click

from mandeldask.cli.exits import EXIT_FAILED_TILES, signals_end_in_order
from mandeldask.cli.options import cluster_option
from mandeldask.errors import ConfigError
from mandeldask.text import short_path, si


@click.command()
@click.argument("config", type=click.Path(), required=False)
@click.option("--centre", nargs=2, metavar="RE IM", help="The point to zoom into; all digits count.")
@click.option("--from", "first", metavar="SPAN", help="Width of the first frame, in the units of c.")
@click.option("--to", "last", metavar="SPAN", help="Width of the last frame; smaller than the first.")
@click.option("--size", metavar="WxH", help="Pixels of a frame, both even. [default: 1280x720]")
@click.option("--fps", metavar="N", help="Frames a second. [default: 30]")
@click.option("--seconds", metavar="S", help="How long it lasts. [default: 10]")
@click.option("--max-iter", type=int, help="Iterations after which a sample counts as not escaped. [default: 1000]")
@click.option("--out", "-o", type=click.Path(), help="The film: .mp4, .mkv or .mov.")
@click.option("--kernel", help="Any kernel: all give the same bits. [default: auto]")
@click.option("--colormap", help="As for `mandeldask image`. [default: classic]")
@click.option("--scale", help="As for `mandeldask image`, laid out for the whole film. [default: mix]")
@click.option("--interior", help="Colour of the samples that do not escape. [default: #000000]")
@cluster_option
@click.option("--overwrite", is_flag=True, help="Replace the samples of another film that are kept beside OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object, and nothing else.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def zoom(
    ctx: click.Context, /, config: str | None, *, overwrite: bool, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Make a film that zooms into a point, from a description, CONFIG (a YAML file), or from options.

    The same command goes on with a film that was interrupted.
    """
    from mandeldask import job
    from mandeldask import zoom as zooms
    from mandeldask.image import PictureOptions
    from mandeldask.progress.bar import Bar
    from mandeldask.progress.screen import Screen

    ctx.obj["json"] = as_json
    options |= {"from": options.pop("first"), "to": options.pop("last")}
    if options["size"]:
        options["size"] = [int(side) if side.isdecimal() else side for side in options["size"].lower().split("x")]
    values = zooms.read_film(config, options)
    if "out" not in values:
        raise ConfigError("no film named: give --out FILM.mp4")
    film, out = zooms.Film.of(values), str(values["out"])
    zooms.check_target(out)
    colours = PictureOptions.of({key: values[key] for key in zooms.COLOURS if key in values})
    talks = not (quiet or as_json)
    with signals_end_in_order(), Screen() if talks else nullcontext() as screen, Bar("frames") as bar:
        if screen:
            _introduce(screen, film)
        try:
            made = zooms.make(
                film,
                out,
                kernel=values.get("kernel", "auto"),
                cluster=values.get("cluster"),
                options=colours,
                overwrite=overwrite,
                tell=screen or job.ignore,
                painted=bar.count if talks else None,
            )
        except KeyboardInterrupt:
            again = shlex.join(["mandeldask", *sys.argv[1:]])
            click.echo(f"\nmandeldask: what was computed is kept; go on with:  {again}", err=True)
            raise
        bar.stop()
        if screen:
            screen.line("film", f"{short_path(made.path)}: {made.frames} frames, {film.size[0]} x {film.size[1]}")
    if as_json:
        click.echo(json.dumps(asdict(made)))
    if made.failed:
        click.echo(f"mandeldask: {made.failed} tiles failed, and are grey; the same command tries them again", err=True)
        ctx.exit(EXIT_FAILED_TILES)


def _introduce(screen: Any, film: Any) -> None:
    screen.line("film", f"{film.frames} frames of {film.size[0]} x {film.size[1]}, {film.octaves:.3g} octaves")
    screen.line(
        "samples",
        f"{si(film.strip.size)} in a strip and {si(film.core.size)} in its core: {film.samples_a_pixel:.2g} for "
        "each pixel of the film",
    )
