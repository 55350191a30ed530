from __future__ import annotations

import logging
import os

import pytest

from mandeldask import cluster as clusters
from mandeldask.config import LocalCluster


@pytest.fixture(scope="session")
def client():
    """A local cluster of two one-thread workers, shared by the tests that do not harm it."""
    with clusters.connect(LocalCluster(workers=2, memory_limit="2GiB")) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


@pytest.fixture
def caplog(caplog):
    """Records from warnings up: the local cluster of `client` silences every handler that there is."""
    caplog.set_level(logging.WARNING)
    return caplog


def skip_or_fail(reason: str) -> None:
    """Skip a test whose surroundings are missing; in CI they must be there."""
    if os.environ.get("CI"):
        pytest.fail(f"must not be skipped in CI: {reason}")
    pytest.skip(reason)
