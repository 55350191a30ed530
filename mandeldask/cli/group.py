"""The command `mandeldask` itself: its errors, its signals, and its exit codes."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from mandeldask import __version__
from mandeldask.errors import MandeldaskError, StoreError
from mandeldask.text import command, printable

EXIT_FAILED_TILES = 4
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
    """Commands that return their exit code, None for 0. Our errors become a line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            ctx.exit(super().invoke(ctx) or 0)
        except (MandeldaskError, OSError) as raised:
            error = raised if isinstance(raised, MandeldaskError) else _of_a_file(raised)
            if error is None:
                raise
            if ctx.obj and ctx.obj.get("json"):
                click.echo(json.dumps({"error": str(error), "exit_code": error.exit_code}))
            warn(str(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as interruption:
            store = ctx.obj and ctx.obj.get("store")
            then = f"; go on with:  {command('resume', store)}" if store else ""
            click.echo(f"\nmandeldask: interrupted{then}", err=True)
            ctx.exit(128 + (interruption.args or [signal.SIGINT])[0])


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
    """Mandelbrot escape-time fields of any size: chunked with Dask, stored as Zarr, the same bits everywhere."""
    ctx.ensure_object(dict)


@contextmanager
def signals_end_in_order() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end a run in order: cluster closed, ledger written. A second one ends it at once."""
    interrupted = False

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001 (the signature of a handler)
        nonlocal interrupted
        if interrupted:
            click.echo("\x1b[?25h" if sys.stderr.isatty() else "", err=True)  # the bar had hidden the cursor
            os._exit(128 + number)  # the workers follow within seconds: their scheduler is gone
        interrupted = True
        click.echo("\nmandeldask: stopping the workers (again to leave at once)", err=True)
        raise KeyboardInterrupt(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # nohup, and a shell's background jobs, have some ignored: so they stay
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def warn(*texts: str) -> None:
    for text in texts:
        click.echo("\n".join(map(printable, f"mandeldask: {text}".split("\n"))), err=True)


def print_facts(*facts: tuple[str, str | None]) -> None:
    """A line for each of which there is something to say, with its label in a column."""
    for label, text in facts:
        if text:
            click.echo(f"  {label:<10} {printable(text)}")
