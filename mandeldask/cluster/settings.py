"""What every cluster that we start has: it stays on loopback, and finds workers that stand still or hosts cut off."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dask

LOOPBACK = "127.0.0.1"
DASHBOARD = f"{LOOPBACK}:8787"

# Dask waits 5 minutes for a worker that stands still and 30 s for each try to reach a host, and a tile is held for as
# long. A healthy worker is heard every second, but not while a compiler or a kernel holds its interpreter, which takes
# 10 s on a loaded machine. A timeout of TCP below 11 s breaks every connection.
TIMEOUTS = {
    "distributed.scheduler.worker-ttl": "30s",
    "distributed.comm.timeouts.tcp": "20s",
    "distributed.comm.timeouts.connect": "20s",
    # A tile that ends its worker does so twice among others and twice alone: each costs the start of a worker.
    "distributed.scheduler.allowed-failures": 1,
}


def timeouts() -> dict[str, object]:
    """Dask's settings for a cluster that we start, without those that the user has set."""
    by_user, defaults = dask.config.collect(), dask.config.merge(*dask.config.defaults)
    return {
        key: value
        for key, value in TIMEOUTS.items()
        if dask.config.get(key, None, config=by_user) is None
        and dask.config.get(key) == dask.config.get(key, None, config=defaults)
    }


@contextmanager
def cluster_settings(**settings: object) -> Iterator[None]:
    """Dask's settings while a cluster that we start is there."""
    with dask.config.set({**timeouts(), **settings}), warnings.catch_warnings():
        # another dashboard may have the usual port: the link that is printed says which was taken instead
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        yield


def said(error: BaseException) -> str:
    """What a batch system, or whatever starts a cluster, said of its failure, on one line."""
    text = str(error.__cause__ or error)
    return " ".join((text.partition("stderr:\n")[2] or text).split())[:400] or type(error).__name__
