"""The command that shows what a cluster description comes to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from distributed import Client


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
    with clusters.session(described) as session:
        assert session.description is not None
        shown: dict[str, Any] = {"kind": session.description.kind}
        lines = [session.introduction]
        if size := session.planned_size:
            shown |= _size(size)
            lines.append(_in_words(size))
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
        "address": client.scheduler_info(n_workers=0)["address"],
        "dashboard": client.dashboard_link,
        **(_size(size) if size else {"workers": 0}),
        "versions": dict(versions),
    }
    workers = _in_words(size) if size else f"no workers: start some with `dask worker {shown['address']}`"
    return [workers, f"dashboard {shown['dashboard']}", "", *clusters.table(versions, everything=True)]


def _size(size: Any) -> dict[str, int]:
    return {
        "workers": size.workers,
        "threads_per_worker": size.threads_per_worker,
        "memory_limit": size.memory_limit,
    }


def _in_words(size: Any) -> str:
    from dask.utils import format_bytes

    return (
        f"{size.workers} worker{'' if size.workers == 1 else 's'} of {size.threads_per_worker} "
        f"thread{'' if size.threads_per_worker == 1 else 's'} and {format_bytes(size.memory_limit)}"
    )
