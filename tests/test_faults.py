"""kill -9 at random moments, then resume: the checksum of an uninterrupted run, and little done twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults
import psutil
import pytest
from services import DEADLINE, poll

import mandeldask as md
from mandeldask.store import open_store

CONFIG = {
    "view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [400, 400]},
    "max_iter": 100,
    "tile": [50, 50],
    "kernel": "counting",
    "cluster": {"kind": "local", "workers": 2},
}
TILES, WORKERS = 64, 2
# A worker runs one tile and holds a second ready; each may be in work when the run ends.
AT_MOST_TWICE = 2 * WORKERS

RUN = """
import json, sys
from functools import partial
import faults
import mandeldask as md

if __name__ == "__main__":
    config, store, calls = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
    faults.install("counting", partial(faults.count, path=calls, seconds=0.02))
    md.run(config, store)
"""


@pytest.fixture(scope="module")
def whole(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    md.run(CONFIG | {"kernel": "numpy"}, path, client=client)
    return open_store(path).checksum()


@pytest.fixture
def start(tmp_path):
    """Start a run in a process of its own; whatever is left of it is killed after the test."""
    import json

    script = tmp_path / "run.py"
    script.write_text(RUN)
    paths = [str(Path(md.__file__).parent.parent), str(Path(__file__).parent)]
    processes = []

    def begin():
        command = [sys.executable, str(script), json.dumps(CONFIG), str(tmp_path / "a.zarr"), str(tmp_path / "calls")]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        processes.append(subprocess.Popen(command, env=env, start_new_session=True))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def wait_until(condition, process, seconds=DEADLINE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, "the run ended before the fault"
        time.sleep(0.005)  # a poll, not a synchronisation


def gone(processes):
    """Wait for processes to end by themselves."""
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE)
    return not alive


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_run_resumes_to_the_same_checksum(start, tmp_path, whole, seed):
    moment = random.Random(seed).randrange(1, TILES - 10)
    with faults.held(tmp_path / "calls", after=moment):
        process = start()
        wait_until(lambda: len(faults.counted(tmp_path / "calls")) >= moment, process)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
    assert gone(workers), "workers end by themselves once their scheduler is gone"
    before = len(faults.counted(tmp_path / "calls"))
    store = open_store(tmp_path / "a.zarr")
    assert before - AT_MOST_TWICE <= store.done().sum() <= before
    missing = TILES - store.done().sum()

    summary = md.resume(store.path, cluster={"kind": "local", "workers": 1})
    assert summary.computed == missing
    assert before + summary.computed <= TILES + AT_MOST_TWICE
    assert store.checksum() == whole
    assert summary.total_iterations == store.escape_time[:].sum()


def test_a_run_killed_again_and_again_is_finished_in_the_end(start, tmp_path, whole):
    chance = random.Random(7)
    killed = 0
    while True:
        had = len(faults.counted(tmp_path / "calls"))
        more = had + chance.randrange(15, 25)
        with faults.held(tmp_path / "calls", after=more):
            process = start()
            while process.poll() is None and len(faults.counted(tmp_path / "calls")) < more:
                time.sleep(0.005)
            if process.poll() is not None:
                break
            workers = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
        killed += 1
        assert gone(workers)
    assert process.returncode == 0
    assert killed >= 2
    assert open_store(tmp_path / "a.zarr").checksum() == whole
    assert len(faults.counted(tmp_path / "calls")) <= TILES + AT_MOST_TWICE * killed


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_worker_is_replaced_and_the_run_goes_on(start, tmp_path, whole, seed):
    moment = random.Random(100 + seed).randrange(1, TILES - 10)
    with faults.held(tmp_path / "calls", after=moment):
        process = start()
        wait_until(lambda: len(faults.counted(tmp_path / "calls")) >= moment, process)
        # or they die with the worker
        poll(lambda: recorded(tmp_path / "a.zarr") >= moment, "the records", every=0.2)
        worker = random.Random(seed).choice(workers_of(process))
        worker.send_signal(signal.SIGKILL)
    assert process.wait(timeout=DEADLINE) == 0
    assert open_store(tmp_path / "a.zarr").checksum() == whole
    assert TILES <= len(faults.counted(tmp_path / "calls")) <= TILES + AT_MOST_TWICE


def recorded(path):
    """How many tiles the driver has heard of, and noted."""
    return (open_store(path).read_tiles()["iterations"] > 0).sum()


def workers_of(process):
    """The worker processes: the children that multiprocessing spawned, its resource tracker aside."""
    children = psutil.Process(process.pid).children()
    return [c for c in children if "spawn_main" in " ".join(c.cmdline())]
