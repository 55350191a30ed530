"""The commands: parse, call, print. Heavy imports wait until a command runs, so that --help is quick."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

import click

from mandeldask import __version__
from mandeldask.cli import clusters, computing, dashboard, explore, jobs, lab, maintenance, reading, zoom
from mandeldask.cli.exits import EXIT_INTERRUPTED, Interrupted
from mandeldask.errors import MandeldaskError, StoreError
from mandeldask.text import printable

EPILOG = """\b
Exit codes
  0    done
  2    a wrong command line, run description or argument
  3    a store that cannot be used: another field, another program's, unwritable, disk full, busy
  4    done, but some tiles failed or are missing; `mandeldask resume STORE` tries them again
  5    a cluster that cannot be started, was lost, or has too little memory for a tile
  6    verify: something in the store is wrong; `mandeldask verify STORE --repair` takes it out
  130  interrupted (143 by SIGTERM, 129 by a closed terminal); what is finished is in the store
  1    a bug: please report it with the traceback
"""


class Commands(click.Group):
    """Turns our errors into a line on stderr and an exit code, however the command was called."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (MandeldaskError, OSError) as raised:
            error = raised if isinstance(raised, MandeldaskError) else _of_a_file(raised)
            if error is None:
                raise
            if ctx.obj and ctx.obj.get("json"):
                click.echo(json.dumps({"error": str(error), "exit_code": error.exit_code}))
            click.echo("\n".join(printable(line) for line in f"mandeldask: {error}".split("\n")), err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as interruption:
            store = ctx.obj and ctx.obj.get("store")
            then = f"; go on with:  mandeldask resume {store}" if store else ""
            click.echo(f"\nmandeldask: interrupted{then}", err=True)
            ctx.exit(128 + interruption.number if isinstance(interruption, Interrupted) else EXIT_INTERRUPTED)


def _of_a_file(error: OSError) -> StoreError | None:
    """What to say of a file or a folder that cannot be read or written; None of a pipe or a connection."""
    if error.filename is None and error.errno not in (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE):
        return None
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    return StoreError(f"{error.strerror}{where}. What is finished stays; remove the cause, and call again")


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


for command in (
    computing.run,
    computing.resume,
    maintenance.verify,
    maintenance.deepen,
    jobs.submit,
    jobs.status,
    jobs.wait,
    jobs.jobs,
    jobs.cancel,
    jobs.logs,
    clusters.cluster,
    dashboard.dashboard,
    explore.explore,
    reading.image,
    reading.checksum,
    zoom.zoom,
    reading.schema,
    lab.info,
    lab.lab,
):
    cli.add_command(command)


def main() -> None:
    """The `mandeldask` command."""
    cli(prog_name="mandeldask")
