"""Kernels that count their calls, fail, crash or take their time: the `numpy` kernel with something before it."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

from mandeldask.kernels import KERNELS


def install(name, before):
    """Make `before(c)`, run ahead of the numpy kernel, a kernel of this process."""
    KERNELS[name] = lambda max_iter, fields=(), view=None: partial(_run, before=before, max_iter=max_iter)


def remove(name):
    del KERNELS[name]


def _run(c, before, max_iter):
    before(c)
    return KERNELS["numpy"](max_iter)(c)


def count(c, path, seconds=0.0):
    """Append one line a call, whole even when many processes write, then take so long: what is begun counts."""
    fd = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(fd, f"{c[0, 0]}\n".encode())
    end = os.lseek(fd, 0, os.SEEK_CUR)
    os.close(fd)
    number = Path(path).read_bytes()[:end].count(b"\n")  # of this call, whatever others have begun since
    time.sleep(seconds)
    while (after := _held(path)) is not None and number > after:
        time.sleep(0.01)


@contextmanager
def held(path, after=0):
    """Keep a job that counts in `path` open: once `after` tiles were computed, the next ones wait for the end of this.

    What is looked at meanwhile is seen of a job that runs, however slow the looking is.
    """
    gate = Path(f"{path}.held")
    gate.write_text(str(after))
    try:
        yield lambda: gate.unlink(missing_ok=True)
    finally:
        gate.unlink(missing_ok=True)


def _held(path):
    with suppress(OSError, ValueError):  # no gate, or one that is being written
        return int(Path(f"{path}.held").read_text())


def counted(path):
    """The first sample of each tile whose computation was begun, in that order."""
    return Path(path).read_text().split() if Path(path).exists() else []


def fail_first(c, path, times):
    """Raise in the first `times` calls for the tile at the upper right."""
    if c[0, 0] == corner(c):
        count(c, path)
        if len(counted(path)) <= times:
            raise ArithmeticError("the tile at the corner <b>failed</b>\nwith a second line")


def fail_at_corner(c):
    """Raise for the tile at the origin."""
    if c[0, 0] == corner(c):
        raise ArithmeticError("this tile never succeeds")


def crash(c):
    if c[0, 0] == corner(c):
        os.kill(os.getpid(), 9)


def fail(c):
    raise ValueError("no tile succeeds")


def disk_full(c):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def corner(c):
    """The first sample of the tile at the origin of the views used here, [0, 1] x [0, 1]."""
    return np.complex128(0)


def segfault(c):
    if c[0, 0] == corner(c):
        ctypes.string_at(0)


def devour(c, limit):
    """Take more memory than a worker may have, and wait for the end that its nanny makes."""
    if c[0, 0] == corner(c):
        taken = [np.ones(2**20) for _ in range(limit // 2**23)]
        time.sleep(60)
        raise MemoryError(f"nobody minded {len(taken)} blocks")


def failing_writes(share, error):
    """From here on this process's writes to files fail at random; needs libfiu loaded before it (LD_PRELOAD)."""
    fiu = ctypes.CDLL(None)
    fiu.fiu_enable_random.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_float]
    assert fiu.fiu_enable_random(b"posix/io/rw/write", 1, error, 0, share) == 0
