"""The commands: parse, call, print. Heavy imports wait until a command runs, so that --help is quick."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mandeldask import __version__
from mandeldask.errors import ConfigError, MandeldaskError

if TYPE_CHECKING:
    from mandeldask.job import Observer, Summary
    from mandeldask.progress import Screen
    from mandeldask.store import Store

EXIT_FAILED_TILES = 4
EXIT_INTERRUPTED = 130
LARGE = 10**8  # samples: to read them takes seconds
PICTURE_SIDE = 2048  # of the picture that a run makes; `mandeldask image` makes larger ones

EPILOG = """\b
Exit codes
  0    done
  2    a wrong command line, run description or argument
  3    a store that cannot be used: another field, another program's, unwritable, disk full, busy
  4    done, but some tiles failed or are missing; `mandeldask resume STORE` tries them again
  5    a cluster that cannot be started, was lost, or has too little memory for a tile
  130  interrupted (143 by SIGTERM, 129 by a closed terminal); what is finished is in the store
  1    a bug: please report it with the traceback
"""


class Interrupted(KeyboardInterrupt):
    """SIGTERM or SIGHUP: the same orderly end as Ctrl-C."""

    def __init__(self, number: int) -> None:
        self.number = number


class Commands(click.Group):
    """Turns our errors into a line on stderr and an exit code, however the command was called."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MandeldaskError as error:
            if ctx.obj and ctx.obj.get("json"):
                click.echo(json.dumps({"error": str(error), "exit_code": error.exit_code}))
            click.echo(f"mandeldask: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as interruption:
            store = ctx.obj and ctx.obj.get("store")
            then = f"; go on with:  mandeldask resume {store}" if store else ""
            click.echo(f"\nmandeldask: interrupted{then}", err=True)
            ctx.exit(128 + interruption.number if isinstance(interruption, Interrupted) else EXIT_INTERRUPTED)


@click.group(
    "mandeldask",  # `dask mandeldask` is found by this name, not by that of its entry point
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="mandeldask")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Mandelbrot escape-time fields of any size: chunked with Dask, stored as Zarr, exact and resumable."""
    ctx.ensure_object(dict)


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--quiet, --json and the picture: the same for every command that computes."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object, and nothing else."),
        click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors."),
        click.option("--no-image", is_flag=True, help="Make no picture."),
        click.option("--image", type=click.Path(), help="The picture; by default it stands beside the store."),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("config", type=click.Path())
@click.option("--out", "-o", type=click.Path(), help="The store; takes precedence over the description's.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the description, e.g. --set view.shape=[4096,4096]; may be repeated.",
)
@click.option("--overwrite", is_flag=True, help="Replace the store that is there, if it is one of mandeldask's.")
@output_options
@click.pass_context
def run(
    ctx: click.Context,
    /,
    config: str,
    out: str | None,
    overrides: tuple[str, ...],
    overwrite: bool,
    **output: Any,
) -> None:
    """Compute the field that CONFIG (a YAML file) describes; on a store of the same field, what is missing."""
    from mandeldask import job

    def compute(tell: Observer) -> Summary:
        return job.run(config, out, overrides=overrides, overwrite=overwrite, tell=tell)

    _compute(ctx, compute, **output)


@cli.command()
@click.argument("store", type=click.Path())
@click.option("--kernel", default="auto", show_default=True, help="Any kernel: all give the same bits.")
@click.option("--workers", type=int, help="Worker processes; by default one a usable core.")
@click.option("--threads-per-worker", type=int, default=1, show_default=True)
@click.option("--memory-limit", help="Of a worker, e.g. 4GiB; by default its share of the machine's.")
@output_options
@click.pass_context
def resume(
    ctx: click.Context,
    /,
    store: str,
    kernel: str,
    workers: int | None,
    threads_per_worker: int,
    memory_limit: str | None,
    **output: Any,
) -> None:
    """Compute what is missing of STORE, and only that."""
    from mandeldask import job

    cluster = {
        "kind": "local",
        "workers": workers,
        "threads_per_worker": threads_per_worker,
        "memory_limit": memory_limit,
    }

    def compute(tell: Observer) -> Summary:
        return job.resume(store, kernel=kernel, cluster=cluster, tell=tell)

    _compute(ctx, compute, **output)


@cli.command()
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
    rows, columns = _draw(opened, out, not quiet and sys.stderr.isatty(), **look)
    if not quiet:
        click.echo(f"{out}: {columns} x {rows} pixels", err=True)
        _missing(opened, "are grey")


@cli.command()
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


@cli.command()
def schema() -> None:
    """Print the JSON schema of a run description, for editors."""
    from mandeldask.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _compute(
    ctx: click.Context,
    compute: Callable[[Observer], Summary],
    *,
    as_json: bool,
    quiet: bool,
    no_image: bool,
    image: str | None,
) -> None:
    """Run a computation under a screen, then make the picture; ends with the exit code."""
    from mandeldask.image import check_path
    from mandeldask.job import Event, Plan
    from mandeldask.progress import Screen, shown

    ctx.obj["json"] = as_json
    if no_image and image:
        raise ConfigError("--image and --no-image exclude each other; give one")
    if image:
        check_path(image)
    screen: Screen | None = None if quiet or as_json else Screen()
    picture: str | None = None

    def tell(event: Event) -> None:
        nonlocal picture
        if isinstance(event, Plan):
            ctx.obj["store"] = shlex.quote(shown(event.store.path))
            picture = None if no_image else _picture_path(event.store.path, image)
        if screen:
            screen(event)

    with _signals(), screen or nullcontext():
        summary = compute(tell)
        if picture:
            picture = _picture(summary, picture, screen)
    if as_json:
        click.echo(json.dumps({**asdict(summary), "efficiency": summary.efficiency, "picture": picture}))
    if screen:
        store = shlex.quote(shown(summary.store))
        screen.line("next", f"mandeldask image {store} large.png    the picture, one pixel a sample")
        screen.line("", f'xarray.open_zarr("{shown(summary.store)}", group="0")    the numbers')
    if summary.failed:
        ctx.exit(EXIT_FAILED_TILES)


def _picture_path(store: str, asked: str | None) -> str | None:
    """Where a run's picture goes: as asked, else beside the store, unless something not ours is there already."""
    from mandeldask.image import check_path, is_ours

    if asked:
        return asked
    path = f"{store.rstrip('/').removesuffix('.zarr')}.png"
    try:
        check_path(path)
        problem = "" if not os.path.lexists(path) or is_ours(path) else f"{path} is there already, from elsewhere"
    except (MandeldaskError, OSError) as error:
        problem = str(error)
    if problem:
        click.echo(f"mandeldask: no picture will be made: {problem}; name one with --image", err=True)
    return None if problem else path


def _picture(summary: Summary, path: str, screen: Screen | None) -> str | None:
    """Draw the picture of a finished run; what goes wrong is told, and takes nothing from the run."""
    from mandeldask.progress import shown
    from mandeldask.store import open_store

    try:
        _draw(open_store(summary.store), path, screen is not None and sys.stderr.isatty(), size=PICTURE_SIDE)
    except MandeldaskError as error:
        click.echo(f"mandeldask: no picture: {error}", err=True)
        return None
    if screen:
        screen.line("picture", shown(path))
    return path


def _draw(store: Store, path: str, bar: bool, **look: Any) -> tuple[int, int]:
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


@contextmanager
def _signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end a run in order: cluster closed, ledger written. A second one ends it at once."""
    interrupted = False

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001 (the signature of a handler)
        nonlocal interrupted
        if interrupted:
            click.echo("\x1b[?25h" if sys.stderr.isatty() else "", err=True)  # the bar had hidden the cursor
            os._exit(128 + number)  # the workers follow within seconds: their scheduler is gone
        interrupted = True
        click.echo("\nmandeldask: stopping the workers (again to leave at once)", err=True)
        raise Interrupted(number)

    names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # nohup, and a shell's background jobs, have some ignored: so they stay
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """The `mandeldask` command."""
    cli(prog_name="mandeldask")
