"""The command `mandeldask` itself: its errors, its signals, and its exit codes."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from mandeldask import __version__
from mandeldask.errors import MandeldaskError, StoreError
from mandeldask.text import command, fact, fold, printable

EXIT_FAILED_TILES = 4
AGAIN_SECONDS = 0.05  # until a signal that Python ignored is sent once more
EXIT_CODES = [
    ("0", "done"),
    ("2", "a wrong command line, run description or argument"),
    ("3", "a store that cannot be used: another field, another program's, unwritable, disk full, busy"),
    ("4", "done, but some tiles failed or are missing; `mandeldask resume STORE` tries them again"),
    ("5", "a cluster that cannot be started, was lost, or has too little memory for a tile"),
    ("6", "verify: something in the store is wrong; `mandeldask verify STORE --repair` repairs it"),
    (
        "130",
        "interrupted (143 by SIGTERM, 129 by a closed terminal), or a cancelled job; what is finished is in the store",
    ),
    ("1", "a bug: please report it with the traceback"),
]


class Commands(click.Group):
    """Commands that return their exit code, None for 0. Our errors become a line on stderr and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.ensure_object(dict)["typed"] = list(args)
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Exit codes"):
            formatter.write_dl(EXIT_CODES)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            ctx.exit(super().invoke(ctx) or 0)
        except click.NoSuchOption as wrong:
            if not (wrong.ctx and any(known.name == "overrides" for known in wrong.ctx.command.params)):
                raise
            hint = "A key of the description is changed by --set, such as --set 'view.shape=[300,400]'."
            raise click.NoSuchOption(wrong.option_name, f"{wrong.message} {hint}", ctx=wrong.ctx) from None
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
            click.echo(err=True)
            warn("interrupted" + (f"; go on with:  {command('resume', store)}" if store else ""))
            ctx.exit(128 + (interruption.args or [signal.SIGINT])[0])


def _of_a_file(error: OSError) -> StoreError | None:
    """What to say of a file or a folder that cannot be read or written; None of a pipe or a connection."""
    if error.filename is None and error.errno not in (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE):
        return None
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    return StoreError(f"{error.strerror}{where}. What is finished stays; fix that and run the command again")


@click.group(
    "mandeldask",  # `dask mandeldask` is found by this name, not by that of its entry point
    cls=Commands,
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
    interrupted = ignored = again = False
    main = threading.main_thread().ident or 0

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001 (the signature of a handler)
        nonlocal interrupted, ignored, again
        late, again = again and not ignored, False
        if late:  # one of `insist`, whose last was heeded meanwhile
            return
        if interrupted and not ignored:
            click.echo("\x1b[?25h" if sys.stderr.isatty() else "", err=True)  # the bar had hidden the cursor
            os._exit(128 + number)  # the workers follow within seconds: their scheduler is gone
        if not interrupted:
            click.echo("\nmandeldask: stopping the workers (press Ctrl-C again to quit at once)", err=True)
        interrupted, ignored = True, False
        raise KeyboardInterrupt(number)

    def interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
        """Python ignores what is raised within a callback of its garbage collector, such as Dask's."""
        nonlocal ignored
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            hook(unraisable)
            return
        ignored = True
        number = (unraisable.exc_value.args or [signal.SIGINT])[0]
        threading.Thread(target=insist, args=(number,), daemon=True).start()

    def insist(number: int) -> None:
        """A signal that comes just before the main thread begins to wait does not wake it: the next one does."""
        nonlocal again
        while ignored:
            time.sleep(AGAIN_SECONDS)
            if ignored:
                again = True
                signal.pthread_kill(main, number)

    # what a process leaves that ends at once, Python's tracker tidies up: it need not warn of it
    quiet = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), quiet)))
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # nohup, and a shell's background jobs, have some ignored: so they stay
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in handled}
    hook, sys.unraisablehook = sys.unraisablehook, interrupt_again
    try:
        yield
    finally:
        ignored, sys.unraisablehook = False, hook
        for number, handler in before.items():
            signal.signal(number, handler)


def typed(*more: str) -> str:
    """The command as it was typed, with more words, to be typed again."""
    return command(*click.get_current_context().obj["typed"], *more)


def warn(*texts: str) -> None:
    """Lines on stderr; folded where that is a terminal."""
    for line in "\n".join(f"mandeldask: {text}" for text in texts).split("\n"):
        width = None if line.startswith(" ") else columns(sys.stderr)  # else it is a list, to be copied from
        click.echo("\n  ".join(fold(printable(line), width - 2) if width else [printable(line)]), err=True)


def print_facts(*facts: tuple[str, str | None]) -> None:
    """A line for each of which there is something to say, with its label in a column."""
    for label, text in facts:
        if text:
            click.echo(fact(label, printable(text), columns(sys.stdout)))


def columns(stream: TextIO) -> int | None:
    """The columns of a terminal; None of anything else."""
    return (os.get_terminal_size(stream.fileno()).columns or None) if stream.isatty() else None
