"""Something done again and again beside the main work, in a thread that ends with its context."""

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
