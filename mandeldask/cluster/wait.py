"""Waiting for the first worker."""

from __future__ import annotations

import time

from distributed import Client, Status

from mandeldask.errors import ClusterError

WORKER_START_SECONDS = 60


def wait_for_worker(client: Client, timeout: float = WORKER_START_SECONDS) -> None:
    """Wait until one worker is there.

    Raises
    ------
    ClusterError
        None came in time, or all of a local cluster's ended while they started.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            client.wait_for_workers(1, timeout=0.5)
        except TimeoutError:
            nannies = getattr(client.cluster, "workers", {}).values()
            if nannies and all(nanny.status is Status.failed for nanny in nannies):
                raise ClusterError(
                    "no worker could be started: each ended while it imported the calling script. "
                    'A script that runs mandeldask needs `if __name__ == "__main__":` around what it does'
                ) from None
        else:
            return
    raise ClusterError(f"no worker came up within {timeout:.0f} s") from None
