"""The command that shows what a cluster description comes to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from distributed import Client

    from mandeldask.cluster import Size


@click.command()
@click.argument("described", metavar="FILE|ADDRESS")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def cluster(ctx: click.Context, /, described: str, as_json: bool) -> None:
    """Show what a cluster description comes to, and compute nothing.

    For a batch system the job script, and nothing is submitted; for a scheduler that runs already its workers and the
    versions there; for any other the size it would have.
    """
    from mandeldask import cluster as clusters
    from mandeldask.config import Queue

    ctx.obj["json"] = as_json
    with clusters.Session(described) as session:
        assert session.description is not None
        shown: dict[str, Any] = {"kind": session.description.kind}
        lines = [session.description.introduction]
        if size := session.planned_size:
            shown |= _figures(size)
            lines.append(str(size))
        if isinstance(session.description, Queue):
            shown["job_script"] = clusters.job_script(session.description)
            lines += ["", shown["job_script"].strip()]
        elif session.runs_already:
            lines += _look_at(session.connect(), shown)
    click.echo(json.dumps(shown) if as_json else "\n".join(lines))


def _look_at(client: Client, shown: dict[str, Any]) -> list[str]:
    """Size, dashboard and versions of a cluster that runs, as lines; the same goes into `shown`."""
    from mandeldask import cluster as clusters

    size = clusters.size_of_client(client) if clusters.workers_of(client) else None
    versions = clusters.versions(client)
    shown |= {
        "address": client.scheduler.address,
        "dashboard": client.dashboard_link,
        **(_figures(size) if size else {"workers": 0}),
        "versions": versions,
    }
    workers = str(size) if size else f"no workers: start some with `dask worker {shown['address']}`"
    return [workers, f"dashboard {shown['dashboard']}", "", *clusters.table(versions, everything=True)]


def _figures(size: Size) -> dict[str, int]:
    return {name: getattr(size, name) for name in ("workers", "threads_per_worker", "memory_limit")}
