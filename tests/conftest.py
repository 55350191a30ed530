from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mandeldask import cluster as clusters
from mandeldask.config import LocalCluster

# A shell starts `scripts/test &` with SIGINT ignored, and whatever ignores a signal bequeaths that to its children:
# Ctrl-C would not end the programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
def lab_report(tmp_path_factory):
    """The folder of a quick report of the lab, measured once: its page, and its tables as JSON and as Markdown."""
    folder = tmp_path_factory.mktemp("report")
    command = [sys.executable, "-m", "mandeldask", "lab", "report", "lab.html", "--quick", "--workers", "2"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stderr
    assert "  measuring  " in done.stderr
    assert done.stdout.split() == ["lab.html", "lab.json", "lab.md"]
    return folder


def skip_or_fail(reason: str) -> None:
    """Skip a test whose surroundings are missing; in CI they must be there."""
    if os.environ.get("CI"):
        pytest.fail(f"must not be skipped in CI: {reason}")
    pytest.skip(reason)
