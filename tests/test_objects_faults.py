"""The server of a bucket is killed, or hangs, while a run writes there: the run waits, and ends identical."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import faults
import pytest
from services import ENV, poll
from test_faults import CONFIG, RUN, TILES

import mandeldask as md
from mandeldask.store import open_store

# of a server that is stopped; a minute where there is time: HANG_SECONDS=60
HANG_SECONDS = float(os.environ.get("HANG_SECONDS", "20"))


@pytest.fixture
def start(bucket, tmp_path):
    """Start a run into the bucket in a process of its own; what is left of it is killed after the test."""
    script = tmp_path / "run.py"
    script.write_text(RUN)
    processes = []

    def begin():
        command = [sys.executable, str(script), json.dumps(CONFIG), bucket, str(tmp_path / "calls")]
        env = ENV | {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        with open(tmp_path / "log.txt", "wb") as log:
            processes.append(subprocess.Popen(command, env=env, stderr=log, start_new_session=True))
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def whole(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    md.run(CONFIG | {"kernel": "numpy"}, path, client=client)
    return open_store(path).checksum()


def computed(process, path, tiles):
    """Wait until so many tiles were computed."""

    def enough():
        assert process.poll() is None, (path.parent / "log.txt").read_text()
        return len(faults.counted(path)) >= tiles

    poll(enough, f"{tiles} tiles", every=0.01)


def test_a_server_that_is_killed_and_restarted_costs_a_run_nothing(s3, start, bucket, whole, tmp_path):
    process = start()
    computed(process, tmp_path / "calls", 20)
    s3.process.kill()
    s3.process.wait()
    s3.start()
    assert process.wait(timeout=180) == 0, (tmp_path / "log.txt").read_text()
    assert open_store(bucket).checksum() == whole
    assert len(faults.counted(tmp_path / "calls")) == TILES


@pytest.mark.timeout(240 + 2 * HANG_SECONDS)
def test_a_server_that_hangs_for_a_while_costs_a_run_nothing(s3, start, bucket, whole, tmp_path):
    process = start()
    computed(process, tmp_path / "calls", 20)
    s3.process.send_signal(signal.SIGSTOP)
    try:
        until = time.monotonic() + HANG_SECONDS
        while time.monotonic() < until:
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            time.sleep(0.2)  # the fault lasts so long
    finally:
        s3.process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=180) == 0, (tmp_path / "log.txt").read_text()
    assert open_store(bucket).checksum() == whole
    assert len(faults.counted(tmp_path / "calls")) == TILES
