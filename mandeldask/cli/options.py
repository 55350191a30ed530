"""Options that several commands take."""

from __future__ import annotations

import click

cluster_option = click.option(
    "--cluster",
    metavar="FILE|ADDRESS",
    help="Who computes: a cluster description (configs/clusters), the address of a scheduler, its scheduler file, or "
    "the word local. By default what the run description names, else DASK_SCHEDULER_ADDRESS, else this machine.",
)

upload_option = click.option(
    "--upload",
    is_flag=True,
    help="Send this mandeldask to the scheduler and the workers first, where it is missing or another version.",
)
