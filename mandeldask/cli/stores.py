"""The commands that read a store: image, checksum, verify and explore."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli import options
from mandeldask.cli.clusters import open_in_browser
from mandeldask.cli.group import EXIT_FAILED_TILES, cli, print_facts, signals_end_in_order, warn
from mandeldask.text import command, plural, printable, short_path, si

if TYPE_CHECKING:
    from mandeldask.image import Picture
    from mandeldask.job import Event
    from mandeldask.job.verification import Checking, Verification
    from mandeldask.precise import Precision

LARGE = 10**8  # samples: to read them takes seconds
SHOWN = 10  # findings named to a person

who_options = options.together(options.cluster, options.upload, options.workers)


@cli.command("image")
@options.store
@click.argument("out", type=click.Path())
@click.option("--colormap", help="classic (the default), a palette of Bokeh such as magma, or any map of cmap.")
@click.option("--reverse/--no-reverse", default=None, help="The colour map from its last colour to its first.")
@click.option("--scale", help="mix (the default: half log, half equalised), log, equalised, root or linear.")
@click.option(
    "--limits", type=(float, float), metavar="LOW HIGH", help="Where scale log, root or linear starts and ends."
)
@click.option("--repeat", type=float, metavar="N", help="Run through the map, there and back, N times on the scale.")
@click.option("--period", type=float, metavar="N", help="Run through the map, there and back, once in N iterations.")
@click.option("--phase", type=float, help="Where the rounds start: 0.5 with the map's last colour.")
@click.option("--interior", help="Colour of the samples that do not escape, #rrggbb; black by default.")
@click.option("--shade", help="What is coloured: smooth (the default where that takes seconds), counts or distance.")
@click.option("--light", type=(float, float), metavar="AZIMUTH HEIGHT", help="Slopes under a light, such as 315 45.")
@click.option(
    "--supersample", type=int, help="A pixel is the mean of so many samples a side; of 2 or 3 if --size leaves them."
)
@click.option("--size", type=int, help="Pixels of the longer side, about; by default one a sample.")
@click.option("--plain", is_flag=True, help="Leave out what the run description says of its picture.")
@options.quiet
def _image(store: str, out: str, quiet: bool, plain: bool, **look: Any) -> None:
    """Make a picture of STORE: OUT.png, OUT.tif (a pyramidal BigTIFF) or OUT.dzi (Deep Zoom, with a folder of tiles).

    It looks as the run description that made STORE says, but for what options change. It is streamed, so it may be
    larger than memory.
    """
    from mandeldask.image import PictureOptions, check_path, picture

    check_path(out)
    given = {key: value for key, value in look.items() if value is not None}
    drawn = picture(store, **(asdict(PictureOptions()) if plain else {}) | given)
    draw(drawn, out, quiet)
    if not quiet:
        rows, columns = drawn.shape
        click.echo(f"{out}: {columns} x {rows} pixels", err=True)
        if look["size"] and max(rows, columns) < 0.7 * look["size"]:
            warn("the store has no more samples for it: a larger picture needs a run with a larger view.shape")
        _tell_missing(drawn.missing, "grey in the picture")


def draw(picture: Picture, path: str, quiet: bool) -> None:
    """Write the picture, under a bar where that is not unwanted."""
    from mandeldask.progress import Bar

    with Bar("picture", quiet=quiet) as bar:
        picture.save(path, lambda done, total: bar.show(done, total, f"{Path(path).name}: {done / total:.0%}"))


@cli.command("checksum")
@click.argument("stores", metavar="STORE...", nargs=-1, required=True, type=click.Path())
def _checksum(stores: tuple[str, ...]) -> int:
    """Print the SHA-256 of each STORE's escape times, little-endian int32 in row order: the same for any tiling."""
    from mandeldask.store import open_store

    lacking = 0
    for store in stores:
        opened = open_store(store)
        if opened.description.view.size > LARGE:
            warn(f"reading {opened.description.view.size / 1e9:.3g} G samples")
        click.echo(f"{opened.checksum()}  {store}")
        missing = int((~opened.done()).sum())
        _tell_missing(missing, "zeros in the checksum")
        lacking += missing
    return EXIT_FAILED_TILES if lacking else 0


def _tell_missing(missing: int, what: str) -> None:
    if missing:
        warn(f"{plural(missing, 'tile')} not computed yet: {what}")


@cli.command("explore")
@click.argument("what", metavar="STORE|CONFIG", type=click.Path())
@who_options
@options.trust
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="By default a free one.")
@click.option("--no-browser", is_flag=True, help="Print the link, and open nothing.")
def _explore(what: str, cluster: str | None, workers: int | None, no_browser: bool, **how: Any) -> None:
    """Pan and zoom over STORE, or over the view of CONFIG, in the browser; what no store holds is computed live."""
    from mandeldask import explorer
    from mandeldask.config import load_cluster

    described = options.cluster_of(cluster, workers)
    scene = explorer.open_scene(what)
    if scene.note:
        warn(scene.note)

    def ready(link: str) -> None:
        click.echo(
            f"  explorer   {link}\n  showing    {printable(scene.name)}\n  Ctrl-C ends it, a second one at once",
            err=True,
        )
        if not no_browser:  # in a thread: some browsers return only when they are closed
            threading.Thread(target=open_in_browser, args=(link,), daemon=True).start()

    at = load_cluster(described) if described else None
    with signals_end_in_order():
        explorer.explore(scene, at, ready=ready, **how)


@cli.command("verify")
@options.store
@click.option("--quick", is_flag=True, help="Read the checksums alone; nothing is decoded.")
@click.option(
    "--recompute",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Compute N random tiles again with the reference kernel, and compare bit for bit.",
)
@click.option(
    "--precise",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Iterate N random samples in enough digits, and tell what rounding has done to them.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Of what is random; by default another each time.")
@click.option("--repair", is_flag=True, help="Take out what is wrong, and compute it and all else that is missing.")
@click.option("--remove-damaged", is_flag=True, help="Take out what is wrong, and no more, for a later `resume`.")
@who_options
@options.as_json
@options.quiet
def _verify(store: str, cluster: str | None, workers: int | None, as_json: bool, quiet: bool, **how: Any) -> int:
    """Find what of STORE is missing or wrong: exit code 0 sound, 4 tiles are missing, 6 something is wrong.

    After --repair the store is sound and whole, or tiles failed; after --remove-damaged it is sound, and lacks tiles.
    """
    from mandeldask.job import verify
    from mandeldask.job.verification import Checking
    from mandeldask.progress import Bar
    from mandeldask.progress.screen import Screen

    silent, if_interrupted = as_json or quiet, click.get_current_context().obj
    with signals_end_in_order(), Screen(quiet=silent) as screen, Bar("verify", quiet=silent) as bar:

        def tell(event: Checking | str | Event) -> None:
            if isinstance(event, Checking):
                bar.show(event.done, event.tiles, _how_far(event))
            elif isinstance(event, str):
                bar.line("", event)
            else:
                bar.stop()
                if_interrupted["store"] = short_path(store)
                screen(event)

        found = verify(store, cluster=options.cluster_of(cluster, workers), tell=tell, **how)
    if as_json:
        click.echo(json.dumps(asdict(found) | {"sound": found.sound, "exit_code": found.exit_code}))
    elif not quiet:
        print_facts(*_facts(found))
    return found.exit_code


def _how_far(c: Checking) -> str:
    if c.what == "sample":
        return f"{c.done}/{plural(c.tiles, 'sample')} in enough digits, {c.done / max(1e-3, c.seconds):.3g} a second"
    wrong = f", {c.damaged} wrong" if c.damaged else ""
    return f"{c.done}/{plural(c.tiles, 'tile')}, {si(c.bytes / max(1e-3, c.seconds))}B/s{wrong}"


def _facts(v: Verification) -> Iterator[tuple[str, str]]:
    """What a person is told: what was looked at, what is wrong, and what to type."""
    store = short_path(v.store)
    what = "checksums" if v.quick else "checksums, values, levels, coordinates"
    yield "store", short_path(v.store)
    yield "checked", f"{plural(v.shards, 'shard')}, {si(v.bytes)}B, in {v.seconds:.1f} s: {what}"
    if v.recomputed:
        yield "recomputed", f"{plural(v.recomputed, 'tile')}, each whole or a window of it, --seed {v.seed}"
    if v.not_comparable:
        why = "no more counts differ than are noted as unproven, or none could be proven"
        yield "", f"{v.not_comparable} of them not comparable: {why}"
    if v.precision:
        yield from _rounding(v.precision, v.seed)
    field = f"{v.missing} of {plural(v.tiles, 'tile')} of the field" if v.missing else ""
    field += f", {v.without_proof} of them there, but not how their counts were proven" * (v.without_proof > 0)
    levels = plural(v.missing_levels, "pyramid tile") if v.missing_levels else ""
    yield "missing", ", and ".join(filter(None, [field, levels]))
    for label, number in (("wrong", v.damaged), ("stray", v.kinds.get("stray", 0))):
        found = [f"{f.key} {f.problem}" for f in v.findings if (f.kind == "stray") == (label == "stray")]
        yield from ((label, text) for text in found[:SHOWN])
        if number > SHOWN:
            yield label, f"and {number - SHOWN} more: --json names the first thousand"
    if v.computed:
        yield "repaired", f"{plural(v.computed, 'tile')} computed"
    elif v.repaired:
        yield "repaired", "what was wrong is taken out or written again"
    if not v.sound:
        yield "next", f"{command('verify', store, '--repair')}    takes it out, and computes it again"
    elif v.missing or v.missing_levels:
        yield "next", f"{command('resume', store)}    computes what is missing"
    else:
        yield "sound", "nothing is missing or wrong"


def _spread(found: dict[float, float], form: str) -> str:
    middle, most = (f"{found[q]:{form}}" for q in (0.5, 1.0))
    return most if middle == most else f"{middle} or less for half of them, at most {most}"


def _rounding(p: Precision, seed: int | None) -> Iterator[tuple[str, str]]:
    """What rounding has done to counts and fields."""
    samples = f"{plural(p.samples, 'sample')} in up to {p.bits} bits, --seed {seed}"
    if not p.differ:
        yield "precise", f"{samples}: every count is the same"
    else:
        verb = "differs" if p.differ == 1 else "differ"
        share = f"{plural(p.differ, 'count')} ({p.differ / p.samples:.1%}) {verb}"
        yield "precise", f"{samples}: {share}, by {_spread(p.by, 'g')}"
        moved = f"{_spread(p.ulps, '.2f')} units in the last place of c"
        yield "displaced", f"as if c lay elsewhere, by {moved}; that explains {p.explained} of {p.differ}"
    for name, found in (("smooth", p.smooth), ("distance", p.distance)):
        if found:
            least, most = (f"{found[q]:.2g}" for q in (0.5, 0.99))
            yield name, f"{'relative ' * (name == 'distance')}error {least} or less for half, {most} for 99 %"
