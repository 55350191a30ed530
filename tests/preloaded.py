"""Kernels of tests/faults.py for workers in other processes: dask worker --preload preloaded."""

from __future__ import annotations

import os
from functools import partial

import faults

from mandeldask.job import lease


def dask_setup(worker):
    """Called by the worker when it starts."""
    install(os.environ["COUNTED"])
    if "FAILING_WRITES" in os.environ:
        share, error = os.environ["FAILING_WRITES"].split()
        faults.failing_writes(float(share), int(error))


def install(path):
    """The kernels in this process; `path` takes a line for each tile. For tests that wait until a driver is forgotten
    its heartbeat and the lease's limit are those of the environment.
    """
    for name in ("HEARTBEAT_SECONDS", "STALE_SECONDS"):
        setattr(lease, name, float(os.environ.get(name, getattr(lease, name))))
    faults.install("counted", partial(faults.count, path=path, seconds=0.1))
    faults.install("brief", partial(faults.count, path=path, seconds=0.01))
    faults.install("slow", partial(faults.count, path=path, seconds=0.3))
    faults.install("long", partial(faults.count, path=path, seconds=3.0))
    faults.install("crash", faults.crash)


def remove():
    for name in ("counted", "brief", "slow", "long", "crash"):
        faults.remove(name)
