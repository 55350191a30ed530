"""How patient the clusters that we start are: with workers that stand still, hosts cut off, tiles that end workers."""

from __future__ import annotations

import dask

# Dask's own are 5 minutes and 30 s each, and a tile is held for as long. A healthy worker is heard every second, but
# not while a compiler or a kernel holds its interpreter, which takes 10 s on a loaded machine. A timeout of TCP below
# 11 s breaks every connection.
SETTINGS = {
    "distributed.scheduler.worker-ttl": "30s",
    "distributed.comm.timeouts.tcp": "20s",
    "distributed.comm.timeouts.connect": "20s",
    # A tile that ends its worker does so twice among others and twice alone: each costs the start of a worker.
    "distributed.scheduler.allowed-failures": 1,
}


def patience() -> dict[str, object]:
    """Dask's settings for a cluster that we start; those that the user has set himself are left out."""
    his, defaults = dask.config.collect(), dask.config.merge(*dask.config.defaults)
    return {
        key: value
        for key, value in SETTINGS.items()
        if dask.config.get(key, None, config=his) is None
        and dask.config.get(key) == dask.config.get(key, None, config=defaults)
    }
