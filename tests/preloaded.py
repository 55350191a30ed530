"""Kernels of tests/faults.py for workers in other processes: dask worker --preload preloaded."""

from __future__ import annotations

import os
from functools import partial

import faults

from mandeldask.job import lease


def dask_setup(worker):
    """Called by the worker when it starts."""
    install(os.environ["COUNTED"])
    # a driver that lives here shows more often that it does, for tests that wait until it is forgotten
    lease.HEARTBEAT_SECONDS = float(os.environ.get("HEARTBEAT_SECONDS", lease.HEARTBEAT_SECONDS))
    if "FAILING_WRITES" in os.environ:
        share, error = os.environ["FAILING_WRITES"].split()
        faults.failing_writes(float(share), int(error))


def install(path):
    """The kernels in this process; `path` takes a line for each tile."""
    faults.install("counted", partial(faults.count, path=path, seconds=0.1))
    faults.install("slow", partial(faults.count, path=path, seconds=0.3))
    faults.install("long", partial(faults.count, path=path, seconds=3.0))
    faults.install("crash", faults.crash)


def remove():
    for name in ("counted", "slow", "long", "crash"):
        faults.remove(name)
