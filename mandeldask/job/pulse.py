"""Something done again and again beside the main work, by a thread that ends with its context."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mandeldask.errors import StoreError

END_SECONDS = 2.0


@contextmanager
def every(seconds: float, action: Callable[[], object], name: str) -> Iterator[None]:
    """Do `action` every so many seconds until the context ends.

    A disk or a connection that fails now may serve the next time, and the main work tells of it, with the remedy.
    """
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(seconds):
            with suppress(OSError, RuntimeError, StoreError):  # RuntimeError: of a client that is being closed
                action()

    thread = threading.Thread(target=beat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(END_SECONDS)  # one that waits for a lost cluster ends by itself
