"""Kernels of tests/faults.py for workers in other processes: dask worker --preload preloaded."""

from __future__ import annotations

import os
from functools import partial

import faults


def dask_setup(worker):
    """Called by the worker when it starts."""
    install(os.environ["COUNTED"])


def install(path):
    """The kernels in this process; `path` takes a line for each tile."""
    faults.install("counted", partial(faults.count, path=path, seconds=0.1))
    faults.install("slow", partial(faults.count, path=path, seconds=0.3))
    faults.install("crash", faults.crash)


def remove():
    for name in ("counted", "slow", "crash"):
        faults.remove(name)
