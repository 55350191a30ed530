"""How the functions that Numba compiles are cached, and not compiled twice at once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numba
from numba import types

Function = Callable[..., Any]
LOCK_SECONDS = 60.0  # compiling takes 4 s, or several times that beside others; a process that was stopped never ends


@contextmanager
def one_at_a_time(cache: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Let one process compile for a cache's folder; the others wait, so many seconds, and then find the code there.

    Without the lock, 32 workers that start together on a cold cache would all compile, each for its own use.
    """
    name = f"mandeldask-compile-{os.getuid()}-{hashlib.sha256(cache.encode()).hexdigest()[:16]}.lock"
    path = Path(tempfile.gettempdir()) / name
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # nowhere to put a lock: several may compile the same, which only costs time
        yield
        return
    try:
        deadline = time.monotonic() + seconds
        while not _taken(lock) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _digest() -> str:
    """Of all code of the kernels: what a function is made of may lie in any of these files."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _stamp(index: Any) -> None:
    """Have Numba tell by all code of the kernels whether what it keeps is old, not by the function's file alone."""
    if not hasattr(index, "_source_stamp"):
        raise ImportError(f"Numba {numba.__version__} keeps compiled code in a way that mandeldask does not know")
    index._source_stamp = _digest()


def compiled(*arguments: types.Type, gives: types.Type = types.none) -> Callable[[Function], Function]:
    """Have a function compiled for these arguments, or taken from the cache."""

    def decorate(function: Function) -> Function:
        dispatcher: Any = numba.njit(nogil=True, error_model="numpy")(function)
        signature = gives(*arguments)
        turn: AbstractContextManager[None] = nullcontext()
        if Path(__file__).exists():  # else in a zip file that was sent to this worker: nothing to share
            with suppress(RuntimeError):  # neither the package's folder nor the user's cache can be written
                dispatcher.enable_caching()
                _stamp(dispatcher._cache._cache_file)
                # 3 ms, and no lock where the code is there; Numba tells it nowhere else
                if dispatcher._cache.load_overload(signature, dispatcher.targetctx) is None:
                    turn = one_at_a_time(dispatcher.stats.cache_path)
        with turn:
            dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher  # type: ignore[no-any-return]

    return decorate
