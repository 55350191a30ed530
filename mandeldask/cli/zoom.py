"""The command that makes a film: zoom."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli import options
from mandeldask.cli.clusters import with_page
from mandeldask.cli.group import EXIT_FAILED_TILES, cli, signals_end_in_order, warn
from mandeldask.errors import ConfigError
from mandeldask.text import command, short_path, si

if TYPE_CHECKING:
    from mandeldask.progress.screen import Screen
    from mandeldask.zoom import Film


@cli.command("zoom")
@click.argument("config", type=click.Path(), required=False)
@click.option("--centre", nargs=2, metavar="RE IM", help="The point to zoom into; all digits count. Or --center.")
@click.option("--center", nargs=2, hidden=True)
@click.option("--from", metavar="SPAN", help="Width of the first frame, in the units of c.")
@click.option("--to", metavar="SPAN", help="Width of the last frame; smaller than the first.")
@click.option("--size", metavar="WxH", help="Pixels of a frame, both even. [default: 1280x720]")
@click.option("--fps", metavar="N", help="Frames a second. [default: 30]")
@click.option("--seconds", metavar="S", help="How long it lasts. [default: 10]")
@click.option("--max-iter", type=int, help="Iterations after which a sample counts as not escaped. [default: 1000]")
@click.option("--out", "-o", type=click.Path(), help="The film: .mp4, .mkv or .mov.")
@click.option("--kernel", help="Any kernel: all give the same bits. [default: auto]")
@click.option("--colormap", help="As for `mandeldask image`. [default: classic]")
@click.option("--scale", help="As for `mandeldask image`, laid out for the whole film. [default: mix]")
@click.option("--interior", help="Colour of the samples that do not escape. [default: #000000]")
@options.cluster
@click.option("--overwrite", is_flag=True, help="Replace the samples of another film that are kept beside OUT.")
@options.as_json
@options.quiet
def _zoom(config: str | None, overwrite: bool, as_json: bool, quiet: bool, **given: Any) -> int:
    """Make a film that zooms into a point, from a description, CONFIG (a YAML file), or from options.

    The same command goes on with a film that was interrupted.
    """
    from mandeldask import zoom
    from mandeldask.image import PictureOptions
    from mandeldask.job import Started
    from mandeldask.progress import Bar
    from mandeldask.progress.screen import Screen

    if given["size"]:
        given["size"] = [int(side) if side.isdecimal() else side for side in given["size"].lower().split("x")]
    values = zoom.read_film(config, given)
    if "out" not in values:
        raise ConfigError("no film named: give --out FILM.mp4")
    film, out = zoom.Film.of(values), str(values["out"])
    zoom.check_target(out)
    colours = PictureOptions.of({key: values[key] for key in zoom.COLOURS if key in values})
    silent = quiet or as_json
    with signals_end_in_order(), Screen(quiet=silent) as screen, Bar("frames", quiet=silent) as bar:
        _introduce(screen, film)
        try:
            made = zoom.make(
                film,
                out,
                kernel=values.get("kernel", "auto"),
                cluster=values.get("cluster"),
                options=colours,
                overwrite=overwrite,
                tell=lambda event: screen(with_page(event) if isinstance(event, Started) else event),
                painted=bar.count,
            )
        except KeyboardInterrupt:
            again = command(*sys.argv[1:])
            click.echo(f"\nmandeldask: what was computed is kept; go on with:  {again}", err=True)
            raise
        bar.stop()
        screen.line("film", f"{short_path(made.path)}: {made.frames} frames, {film.size[0]} x {film.size[1]}")
    if as_json:
        click.echo(json.dumps(asdict(made)))
    if made.failed:
        warn(f"{made.failed} tiles failed, and are grey; the same command tries them again")
    return EXIT_FAILED_TILES if made.failed else 0


def _introduce(screen: Screen, film: Film) -> None:
    screen.line("film", f"{film.frames} frames of {film.size[0]} x {film.size[1]}, {film.octaves:.3g} octaves")
    screen.line(
        "samples",
        f"{si(film.strip.size)} in a strip and {si(film.core.size)} in its core: {film.samples_a_pixel:.2g} for "
        "each pixel of the film",
    )
