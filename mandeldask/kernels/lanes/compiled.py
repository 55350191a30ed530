"""What Numba compiles of the fast kernel, for which types; how it is cached, and not compiled twice at once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import resources
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types

from mandeldask.kernels.lanes import phases
from mandeldask.kernels.lanes.steps import LANE_ROWS, LATE_ROWS
from mandeldask.kernels.lanes.vectors import SIZE

SOURCES = ("kernels/shortcuts.py", "kernels/fields.py", "kernels/lanes/vectors.py", "kernels/lanes/steps.py")

LOCK_SECONDS = 60.0  # compiling takes 4 s, or several times that beside others; a process that was stopped never ends

# Blocks may come from a read-only buffer of another process, at any address.
_samples = types.Array(types.complex128, 1, "C", readonly=True, aligned=False)
_counts, _rows, _numbers = types.int32[::1], types.float64[:, ::1], types.int64[:, ::1]


def scratch() -> tuple[Any, ...]:
    """The last arguments of `escape_time`: 1 MB for blocks of any size."""
    columns = phases.TILE + 2 * SIZE  # a list grows by a tile on top of less than a group; a group may run over
    lanes, late = np.empty((LANE_ROWS, columns)), np.empty((LATE_ROWS, columns))
    return lanes, late, late.view(np.int64), np.empty(SIZE, complex), np.empty(SIZE, np.int32)


@contextmanager
def _one_at_a_time(cache: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
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


def _source_digest() -> str:
    package = resources.files("mandeldask")
    return hashlib.sha256(b"".join(package.joinpath(name).read_bytes() for name in SOURCES)).hexdigest()


def _compile(make: Callable[[str], Callable[..., None]], *arguments: types.Type) -> Callable[..., None]:
    function, signature = make(_source_digest()), types.void(*arguments)
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy")(function)
    turn: AbstractContextManager[None] = nullcontext()
    if Path(phases.__file__).exists():  # else in a zip file that was sent to this worker: nothing to share
        with suppress(RuntimeError):  # neither the package's folder nor the user's cache can be written
            dispatcher.enable_caching()
            # 3 ms, and no lock where the code is there; Numba tells it nowhere else
            if dispatcher._cache.load_overload(signature, dispatcher.targetctx) is None:
                turn = _one_at_a_time(dispatcher.stats.cache_path)
    with turn:
        dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher  # type: ignore[no-any-return]


_group = types.complex128[::1], _counts
escape_time = _compile(phases.make_escape_time, _samples, types.int64, _counts, _rows, _rows, _numbers, *_group)
outside = _compile(phases.make_outside, _samples, types.int64, _counts, types.int64, _rows, types.int64[::1])
