"""A scheduler that runs already: its address or its file -> a connected Client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client

from mandeldask.config import SchedulerAddress, SchedulerFile
from mandeldask.errors import ClusterError

CONNECT_SECONDS = 10


@contextmanager
def connected(cluster: SchedulerAddress | SchedulerFile) -> Iterator[Client]:
    """A client of a scheduler that runs already, and goes on when the context ends."""
    where = {"address": cluster.address} if isinstance(cluster, SchedulerAddress) else {"scheduler_file": cluster.path}
    try:
        client = Client(**where, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ClusterError(f"cannot reach the scheduler: {error}") from None
    with client:
        yield client
