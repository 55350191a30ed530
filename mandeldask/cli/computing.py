"""The commands that compute: run and resume."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mandeldask.cli import dashboard as dashboards
from mandeldask.cli.exits import signals_end_in_order
from mandeldask.cli.options import (
    cluster_of,
    cluster_option,
    description_options,
    space_option,
    upload_option,
    workers_option,
)
from mandeldask.cli.reading import draw
from mandeldask.errors import ConfigError, DamagedError, MandeldaskError
from mandeldask.text import is_url, short_path

if TYPE_CHECKING:
    from mandeldask.job import Observer, Summary
    from mandeldask.progress.screen import Screen

PICTURE_SIDE = 2048  # of the picture that a run makes; `mandeldask image` makes larger ones


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--quiet, --json and the picture: the same for every command that computes."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object, and nothing else."),
        click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors."),
        click.option("--no-image", is_flag=True, help="Make no picture."),
        click.option(
            "--image",
            type=click.Path(),
            help="The picture; by default beside the store.",
        ),
        click.option("--report", type=click.Path(), help="Save Dask's performance report, REPORT.html."),
        click.option("--keep-dashboard", is_flag=True, help="Keep the dashboard up at the end, until Enter."),
    ):
        command = option(command)
    return command


@click.command()
@description_options
@output_options
@click.pass_context
def run(
    ctx: click.Context,
    /,
    config: str,
    out: str | None,
    *,
    overrides: tuple[str, ...],
    cluster: str | None,
    upload: bool,
    ignore_space: bool,
    overwrite: bool,
    **output: Any,
) -> None:
    """Compute the field that CONFIG (a YAML file) describes; on a store of the same field, what is missing."""
    from mandeldask import config as configs
    from mandeldask import job
    from mandeldask.image import PictureOptions

    ctx.obj["json"] = output["as_json"]  # whatever goes wrong from here on is told as it was asked for
    described = configs.load(config, overrides)

    def compute(tell: Observer) -> Summary:
        return job.run(
            described,
            out,
            overwrite=overwrite,
            cluster=cluster,
            upload=upload,
            ignore_space=ignore_space,
            tell=tell,
        )

    look = described.picture.model_dump(exclude_none=True) if described.picture else {}
    if look and not output["no_image"]:
        PictureOptions.of(look).check(described.view.shape, described.fields)
    compute_under_screen(ctx, compute, look, **output)


@click.command()
@click.argument("store", type=click.Path())
@click.option("--kernel", default="auto", show_default=True, help="Any kernel: all give the same bits.")
@cluster_option
@upload_option
@space_option
@workers_option
@output_options
@click.pass_context
def resume(
    ctx: click.Context,
    /,
    store: str,
    kernel: str,
    cluster: str | None,
    upload: bool,
    ignore_space: bool,
    workers: int | None,
    **output: Any,
) -> None:
    """Compute what is missing of STORE, and only that."""
    from mandeldask import job

    described = cluster_of(cluster, workers)

    def compute(tell: Observer) -> Summary:
        return job.resume(store, kernel=kernel, cluster=described, upload=upload, ignore_space=ignore_space, tell=tell)

    compute_under_screen(ctx, compute, {}, **output)


def compute_under_screen(
    ctx: click.Context,
    compute: Callable[[Observer], Summary],
    look: dict[str, Any],
    *,
    as_json: bool,
    quiet: bool,
    no_image: bool,
    image: str | None,
    report: str | None,
    keep_dashboard: bool,
) -> None:
    """Run a computation under a screen, then make the picture; ends with the exit code."""
    from mandeldask.dashboard import announce
    from mandeldask.image import check_path
    from mandeldask.job import Event, Plan, Started, Summary
    from mandeldask.progress.screen import Screen

    ctx.obj["json"] = as_json
    if no_image and image:
        raise ConfigError("--image and --no-image exclude each other; give one")
    if image:
        check_path(image)
    dashboards.check_report(report)
    screen: Screen | None = None if quiet or as_json else Screen()
    picture: str | None = None
    store = link = ""

    with signals_end_in_order(), screen or nullcontext(), ExitStack() as recorded:

        def tell(event: Event) -> None:
            nonlocal picture, store, link
            if isinstance(event, Plan):
                store = event.store.path
                ctx.obj["store"] = shlex.quote(short_path(event.store.path))
                picture = None if no_image else _picture_path(event.store.path, image)
            if isinstance(event, Started):
                event = dashboards.with_page(event)
                link = event.dashboard
                if link:
                    announce(link, store, os.getpid())
                if report:
                    recorded.enter_context(dashboards.report(report))
            if screen:
                screen(event)
            if isinstance(event, Summary):
                recorded.close()
                _end(event, picture, look, screen, as_json)
                if keep_dashboard and link:
                    dashboards.keep(link)

        summary = compute(tell)
    ctx.exit(summary.exit_code)


def _end(summary: Summary, picture: str | None, look: dict[str, Any], screen: Screen | None, as_json: bool) -> None:
    """The picture, and what there is to say at the end."""
    damaged = False
    if picture:
        try:
            picture = _picture(summary, picture, look, screen)
        except DamagedError as error:
            click.echo(f"mandeldask: no picture: {error}", err=True)
            picture, damaged = None, True
    if as_json:
        click.echo(json.dumps({**asdict(summary), "efficiency": summary.efficiency, "picture": picture}))
    if screen:
        store = shlex.quote(short_path(summary.store))
        if damaged:
            screen.line("next", f"mandeldask verify {store} --repair    takes out what is damaged")
            return
        screen.line("next", f"mandeldask image {store} large.png    the picture, one pixel a sample")
        opened = "mandeldask.open({})" if is_url(summary.store) else 'xarray.open_zarr({}, group="0")'
        screen.line("", f"{opened.format(json.dumps(short_path(summary.store)))}    the numbers")


def _picture_path(store: str, asked: str | None) -> str | None:
    """Where a run's picture goes: as asked, else beside the store, unless something not ours is there already."""
    from mandeldask.image import check_path, is_ours

    if asked:
        return asked
    path = f"{store.rstrip('/').removesuffix('.zarr')}.png"
    if is_url(store):  # here, by the store's name
        path = path.rpartition("/")[2]
    try:
        check_path(path)
        problem = "" if not os.path.lexists(path) or is_ours(path) else f"{path} is there already, from elsewhere"
    except (MandeldaskError, OSError) as error:
        problem = str(error)
    if problem:
        click.echo(f"mandeldask: no picture will be made: {problem}; name one with --image", err=True)
    return None if problem else path


def _picture(summary: Summary, path: str, look: dict[str, Any], screen: Screen | None) -> str | None:
    """Draw the picture of a finished run; what goes wrong is told, and takes nothing from the run."""
    from mandeldask.image import picture

    try:
        draw(picture(summary.store, **{"size": PICTURE_SIDE, **look}), path, quiet=screen is None)
    except DamagedError:
        raise
    except MandeldaskError as error:
        click.echo(f"mandeldask: no picture: {error}", err=True)
        return None
    if screen:
        screen.line("picture", short_path(path))
    return path
