"""The command that opens a field in the browser."""

from __future__ import annotations

import threading
import webbrowser

import click

from mandeldask.cli.exits import signals_end_in_order
from mandeldask.cli.options import cluster_of, cluster_option, upload_option, workers_option
from mandeldask.text import printable


@click.command()
@click.argument("what", metavar="STORE|CONFIG", type=click.Path())
@cluster_option
@upload_option
@workers_option
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="By default a free one.")
@click.option("--no-browser", is_flag=True, help="Print the link, and open nothing.")
def explore(what: str, *, cluster: str | None, upload: bool, workers: int | None, port: int, no_browser: bool) -> None:
    """Pan and zoom over STORE, or over the view of CONFIG, in the browser; what no store holds is computed live."""
    from mandeldask import config as configs
    from mandeldask import explorer

    described = cluster_of(cluster, workers)
    scene = explorer.open_scene(what)

    def ready(link: str) -> None:
        click.echo(
            f"  explorer   {link}\n  showing    {printable(scene.name)}\n  Ctrl-C ends it, a second one at once",
            err=True,
        )
        if not no_browser:  # in a thread: some browsers return only when they are closed
            threading.Thread(target=_open, args=(link,), daemon=True).start()

    at = configs.load_cluster(described) if described else None
    with signals_end_in_order():
        explorer.explore(scene, at, port=port, upload=upload, ready=ready)


def _open(link: str) -> None:
    if not webbrowser.open(link):
        click.echo("mandeldask: no browser could be opened here; open the link yourself", err=True)
