"""How commands end: exit codes, and the signals that end a run in order."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

EXIT_FAILED_TILES = 4
EXIT_INTERRUPTED = 130


class Interrupted(KeyboardInterrupt):
    """SIGTERM or SIGHUP: the same orderly end as Ctrl-C."""

    def __init__(self, number: int) -> None:
        self.number = number


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
