"""Something done beside the main work, again and again or if that takes long, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mandeldask.errors import StoreError

END_SECONDS = 2.0


@contextmanager
def every(seconds: float, action: Callable[[], object], name: str) -> Iterator[None]:
    """Call `action` every so many seconds until the context ends.

    An error of a disk or a connection is ignored here: it may be gone the next time, and if not, the main work meets
    it too and reports it with a remedy.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(seconds):
            with suppress(OSError, RuntimeError, StoreError):  # RuntimeError: of a client that is being closed
                action()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(END_SECONDS)  # a thread that waits for a lost cluster ends by itself


@contextmanager
def if_it_takes(seconds: float, action: Callable[[], object]) -> Iterator[None]:
    """Call `action` once, if the context has not ended after so many seconds."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
