from __future__ import annotations

import logging
import os
import signal
import sys
import uuid

import pytest
from hypothesis import HealthCheck, settings

from mandeldask import cluster as clusters
from mandeldask.config import LocalCluster

# A shell starts `scripts/test &` with SIGINT ignored, and whatever ignores a signal bequeaths that to its children:
# Ctrl-C would not end the programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Hints name the program by its path where it is not on PATH: here it is, as in an environment that is activated.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
# How long an example takes says more of the machine than of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


# Files that wait for processes, networks, browsers and batch systems: what they test depends little on the Python.
ONCE = {
    "test_anywhere",
    "test_commands",
    "test_dashboard_page",
    "test_explorer_page",
    "test_faults",
    "test_faults_disks",
    "test_faults_power",
    "test_faults_rounds",
    "test_faults_tiles",
    "test_foreign",
    "test_fuzz",
    "test_lab_claims",
    "test_lab_report",
    "test_lab_strategies",
    "test_network",
    "test_objects_faults",
    "test_slurm",
    "test_store_machine",
    "test_tls",
    "test_zoom",
}


def pytest_collection_modifyitems(items):
    """Files with processes of their own come first: they wait rather than compute, and the short ones fill the gaps."""
    items.sort(key=lambda item: not _waits(item))
    for item in items:
        if item.path.stem in ONCE:
            item.add_marker("once")


def _waits(item):
    return any(getattr(value, "__module__", None) in ("services", "browser") for value in vars(item.module).values())


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


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """An S3 server, shared by the tests that leave it running."""
    from services import S3  # which imports this file

    with S3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3, monkeypatch, tmp_path):
    """The URL of a place of its own in the server's bucket; this process and those it starts may write there."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return f"s3://fields/{uuid.uuid4().hex}"


def skip_or_fail(reason: str) -> None:
    """Skip a test whose surroundings are missing; in CI they must be there."""
    if os.environ.get("CI"):
        pytest.fail(f"must not be skipped in CI: {reason}")
    pytest.skip(reason)
