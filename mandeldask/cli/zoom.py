"""The command that makes a film: zoom."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli import options
from mandeldask.cli.group import EXIT_FAILED_TILES, cli, signals_end_in_order, typed, warn
from mandeldask.errors import ConfigError
from mandeldask.text import plural, short_path, si

if TYPE_CHECKING:
    from mandeldask.progress.screen import Screen
    from mandeldask.zoom import Film


class _Pairs(click.Command):
    """A command whose options of two values take them as one word too: 1280x720, or -0.75,0.1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        pairs = {name for option in self.params if option.nargs == 2 for name in option.opts}
        words: list[str] = []
        for arg in args:
            name, _, value = arg.partition("=")
            if name in pairs and value:
                words += [name, *re.split("[x,]", value.lower())]
            elif words and words[-1] in pairs:
                words += re.split("[x,]", arg.lower())
            else:
                words.append(arg)
        for i, word in enumerate(words):
            if word in pairs and any(other.startswith("--") for other in words[i + 1 : i + 3]):
                raise click.UsageError(f"{word} takes two numbers, such as 1280 720 or 1280x720 for --size", ctx)
        return super().parse_args(ctx, words)


@cli.command("zoom", cls=_Pairs)
@click.argument("config", type=click.Path(), required=False)
@click.option("--centre", nargs=2, metavar="RE IM", help="The point to zoom into; all digits count. Or --center.")
@click.option("--center", nargs=2, hidden=True)
@click.option("--from", metavar="SPAN", help="Width of the first frame, in the units of c.")
@click.option("--to", metavar="SPAN", help="Width of the last frame; smaller than the first.")
@click.option("--size", nargs=2, metavar="W H", help="Pixels of a frame, both even; or WxH. [default: 1280 720]")
@click.option("--fps", metavar="N", help="Frames a second. [default: 30]")
@click.option("--seconds", metavar="S", help="How long it lasts. [default: 10]")
@click.option("--max-iter", type=int, help="Iterations after which a sample counts as not escaped. [default: 1000]")
@click.option(
    "--proof",
    help="Of counts beyond binary64: full, double-double, or none, up to four times as fast, some counts being wrong. "
    "[default: double-double]",
)
@click.option("--out", "-o", type=click.Path(), help="The film: .mp4, .mkv or .mov.")
@click.option("--kernel", metavar="NAME", help=f"{options.SAME_BITS} [default: auto]")
@click.option("--colormap", help="As for `mandeldask image`. [default: classic]")
@click.option("--scale", help="As for `mandeldask image`, laid out for the whole film. [default: mix]")
@click.option("--interior", help="Colour of the samples that do not escape. [default: #000000]")
@click.option("--shade", help="As for `mandeldask image`. [default: smooth where that takes a minute at most]")
@click.option("--light", nargs=2, type=float, metavar="AZIMUTH HEIGHT", help="Slopes under a light, such as 315 45.")
@options.cluster
@options.trust
@click.option("--overwrite", is_flag=True, help="Replace the samples of another film that are kept beside OUT.")
@options.as_json
@options.quiet
def _zoom(config: str | None, trust: bool, overwrite: bool, as_json: bool, quiet: bool, **given: Any) -> int:
    """Make a film that zooms into a point, from a description, CONFIG (a YAML file), or from options.

    The same command goes on with a film that was interrupted.
    """
    from mandeldask import config as configs
    from mandeldask import zoom
    from mandeldask.image import PictureOptions
    from mandeldask.progress import Bar
    from mandeldask.progress.screen import Screen

    values = zoom.read_film(config, given)
    if "out" not in values:
        raise ConfigError("no film named: give --out FILM.mp4")
    if "cluster" in values and not (trust or given["cluster"]):
        configs.refuse_untrusted(configs.load_cluster(values["cluster"]))
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
                tell=screen,
                painted=bar.count,
            )
        except KeyboardInterrupt:
            bar.stop()
            screen.stop()  # which would clear what is printed now
            click.echo(err=True)
            warn(f"what was computed is kept; go on with:  {typed()}")
            raise
        bar.stop()
        screen.line("film", f"{short_path(made.path)}: {plural(made.frames, 'frame')}, {film.size[0]} x {film.size[1]}")
    if as_json:
        click.echo(json.dumps(asdict(made)))
    if made.failed:
        warn(f"{plural(made.failed, 'tile')} failed: grey in the film; the same command tries again")
    return EXIT_FAILED_TILES if made.failed else 0


def _introduce(screen: Screen, film: Film) -> None:
    screen.line("film", f"{film.frames} frames of {film.size[0]} x {film.size[1]}, {film.octaves:.3g} octaves")
    screen.line(
        "samples",
        f"{si(film.strip.size)} in a strip and {si(film.core.size)} in its core: {film.samples_a_pixel:.2g} for "
        "each pixel of the film",
    )
