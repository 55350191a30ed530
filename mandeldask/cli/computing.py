"""The commands that compute: run, resume and deepen; and schema, which tells what a run description may hold."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli import options
from mandeldask.cli.group import cli, signals_end_in_order, typed, warn
from mandeldask.cli.stores import draw
from mandeldask.errors import ConfigError, DamagedError, MandeldaskError
from mandeldask.text import command, is_url, short_path

if TYPE_CHECKING:
    from mandeldask.job import Summary
    from mandeldask.progress.screen import Screen

LINGER_SECONDS = 20  # that the dashboard of a shorter run stays up
PICTURE_SIDE = 500, 2048  # of the picture that a run makes, about; `mandeldask image` makes larger ones

output_options = options.together(
    click.option(
        "--keep-dashboard",
        is_flag=True,
        help="Keep the dashboard up at the end, until Enter. A short run in a terminal keeps it for 20 s.",
    ),
    click.option("--report", type=click.Path(), help="Save Dask's performance report, a page of HTML."),
    click.option("--image", type=click.Path(), help="The picture; by default beside the store."),
    click.option("--no-image", is_flag=True, help="Make no picture."),
    options.quiet,
    options.as_json,
)
continuing_options = options.together(
    click.option("--kernel", metavar="NAME", default="auto", show_default=True, help=options.SAME_BITS),
    options.cluster,
    options.upload,
    options.ignore_space,
    options.workers,
    output_options,
)


@cli.command("run")
@options.description
@output_options
def _run(config: str, out: str | None, overrides: tuple[str, ...], kernel: str | None, **given: Any) -> int:
    """Compute the field that CONFIG describes, a file or a name that `init` lists; on its store, what is missing."""
    from mandeldask import config as configs
    from mandeldask import job
    from mandeldask.image import PictureOptions

    described = options.described(config, overrides, kernel)
    look = configs.picture_options(described)
    if look and not given["no_image"]:
        try:
            PictureOptions.of(look).check(described.view.shape)
        except ConfigError as error:
            raise ConfigError(f"{config}: picture: {error}") from None
    return _compute(partial(job.run, described, out), look, typed("--overwrite"), **given)


@cli.command("resume")
@options.store
@continuing_options
def _resume(store: str, **given: Any) -> int:
    """Compute what is missing of STORE, and only that."""
    from mandeldask import job

    return _compute(partial(job.resume, store), {}, command("run", "CONFIG", "--overwrite"), **given)


@cli.command("deepen")
@options.store
@click.option("--max-iter", type=int, required=True, help="More than STORE has.")
@click.option("--out", "-o", type=click.Path(), required=True, help="The store that is made; STORE stays as it is.")
@continuing_options
def _deepen(store: str, max_iter: int, out: str, **given: Any) -> int:
    """Compute STORE's field with more iterations: only the samples that had not escaped; the others are copied."""
    from mandeldask import job

    return _compute(partial(job.deepen, store, max_iter, out), {}, command("run", "CONFIG", "--overwrite"), **given)


@cli.command("schema")
@click.argument("what", type=click.Choice(["run", "cluster"]), default="run")
def _schema(what: str) -> None:
    """Print the JSON schema of a run description, or of a cluster description, for editors."""
    from mandeldask.config import json_schema

    click.echo(json.dumps(json_schema(what), indent=2))


def _compute(
    compute: Callable[..., Summary],
    look: dict[str, Any],
    again: str,
    *,
    as_json: bool,
    quiet: bool,
    no_image: bool,
    image: str | None,
    report: str | None,
    keep_dashboard: bool,
    cluster: str | None,
    workers: int | None = None,
    **how: Any,
) -> int:
    """Run a computation under a screen, then make the picture; the exit code.

    `again` is the command that computes even where the store has all.
    """
    from mandeldask.dashboard import announce
    from mandeldask.image import check_path
    from mandeldask.job import Event, Plan, Started, Summary
    from mandeldask.progress.screen import Screen

    who = options.cluster_of(cluster, workers)
    if no_image and image:
        raise ConfigError("--image and --no-image exclude each other; give one")
    if image:
        check_path(image)
    if report:
        target = check_path(report, "a report", (".html",))
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise ConfigError(f"cannot write the report {report}: name a file that you may write")
    if_interrupted = click.get_current_context().obj
    picture: str | None = None
    store = link = ""

    with signals_end_in_order(), Screen(quiet=quiet or as_json) as screen, ExitStack() as recorded:

        def tell(event: Event) -> None:
            nonlocal picture, store, link, look
            if isinstance(event, Plan):
                store = event.store.path
                if_interrupted["store"] = short_path(store) if event.pending or event.levels else None
                picture = None if no_image else image or _picture_beside(store)
                look = {"size": _picture_size(event.store.description.shape)} | look
            if isinstance(event, Started):
                link = event.dashboard
                if link:
                    announce(link, store, os.getpid())
                if report:
                    recorded.enter_context(_recorded(report, screen))
            screen(event)
            if isinstance(event, Summary):
                recorded.close()
                if not event.exit_code:
                    if_interrupted["store"] = None  # nothing is left to go on with
                if not (event.computed or event.levels or event.failed):
                    nothing = "none, and no report" if report else "none"
                    screen.line("dashboard", f"{nothing}: nothing was computed. To compute it again: {again}")
                _end(event, picture, look, screen, as_json)
                short = event.seconds < LINGER_SECONDS and not screen.console.quiet and _was_typed()
                if link and (keep_dashboard or short):
                    _keep(link, screen, None if keep_dashboard else LINGER_SECONDS)

        return compute(cluster=who, tell=tell, **how).exit_code


def _end(summary: Summary, picture: str | None, look: dict[str, Any], screen: Screen, as_json: bool) -> None:
    """The picture, and what there is to say at the end. A picture that fails takes nothing from the run."""
    from mandeldask import image

    path = short_path(summary.store)
    opened = "mandeldask.open({})" if is_url(summary.store) else 'xarray.open_zarr({}, group="0")'
    then = {
        "next": f"{command('image', path, 'large.png')}    the picture, one pixel a sample",
        "": f"{opened.format(json.dumps(path))}    the numbers",
    }
    if picture:
        try:
            draw(image.picture(summary.store, **look), picture, screen.console.quiet)
            screen.line("picture", short_path(picture))
        except MandeldaskError as error:
            warn(f"no picture: {error}")
            picture = None
            if isinstance(error, DamagedError):
                then = {"next": f"{command('verify', path, '--repair')}    computes what is damaged again"}
    if as_json:
        click.echo(json.dumps({**asdict(summary), "efficiency": summary.efficiency, "picture": picture}))
    for label, text in then.items():
        screen.line(label, text)


def _picture_size(shape: tuple[int, int]) -> int:
    """Pixels of the longer side: half as many as samples, so that a pixel is the mean of four."""
    least, most = PICTURE_SIDE
    return min(most, max(least, max(shape) // 2))


def _picture_beside(store: str) -> str | None:
    """Where a run's picture goes, unless something not ours is there already."""
    from mandeldask.image import check_path, is_ours

    path = f"{store.rstrip('/').removesuffix('.zarr')}.png"
    if is_url(store):  # here, by the store's name
        path = path.rpartition("/")[2]
    try:
        check_path(path)
        if not os.path.lexists(path) or is_ours(path):
            return path
        problem: object = f"{path} exists and was not made by mandeldask"
    except (MandeldaskError, OSError) as error:
        problem = error
    warn(f"no picture will be made: {problem}; name one with --image")
    return None


@contextmanager
def _recorded(path: str, screen: Screen) -> Iterator[None]:
    """Dask's performance report of what happens in the context, in a file; what goes wrong is told, no more."""
    from distributed import performance_report

    recording = performance_report(filename=path, mode="inline")  # to be read without a network
    try:
        recording.__enter__()
    except Exception as error:  # a scheduler without Bokeh
        _no_report(error)
        yield
        return
    try:
        yield
    except BaseException:  # the cluster, which knows what there is to report, is gone with the run
        _no_report("the run did not finish")
        raise
    try:
        recording.__exit__(None, None, None)
        screen.line("report", short_path(path))
    except Exception as error:  # the run is done all the same
        _no_report(error)


def _no_report(why: object) -> None:
    with suppress(OSError):  # a terminal that was closed
        warn(f"no report: {why}")


def _was_typed() -> bool:
    """Whether a person waits at a terminal for this command, and not a script for one of its own.

    A shell makes what is typed the leader of the terminal's foreground process group; a script's commands are in its.
    """
    with suppress(OSError, ValueError):  # no terminal, or a closed one
        return sys.stdin is not None and sys.stderr.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpid()
    return False


def _keep(link: str, screen: Screen, seconds: float | None) -> None:
    """Wait for Enter with the cluster up, at most so many seconds; Ctrl-C will do as well."""
    until = f"for {seconds} s; press Enter to close it" if seconds else "until you press Enter"
    screen.line("dashboard", f"{link}    stays up {until}")
    with suppress(KeyboardInterrupt):
        if sys.stdin and select.select([sys.stdin], [], [], seconds)[0]:
            sys.stdin.readline()
