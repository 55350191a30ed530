"""One bad tile, a worker that stands still, a cluster that is busy or lost, two drivers at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import dask
import faults
import psutil
import pytest
from services import ENV, Processes, poll

import mandeldask as md
from mandeldask import cluster as clusters
from mandeldask import job
from mandeldask.cluster.start import our_settings
from mandeldask.config import LocalCluster
from mandeldask.job import TileDone
from mandeldask.store import open_store

UNIT = {"view": {"x": [0, 1], "y": [0, 1], "shape": [100, 120]}, "max_iter": 50, "tile": [25, 40]}
TILES = 12
LIMIT = 700 * 2**20  # an idle worker takes 240 MiB


@pytest.fixture(scope="module")
def expected(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("expected") / "a.zarr"
    md.run({**UNIT, "kernel": "numpy"}, path, client=client)
    return open_store(path).checksum()


@pytest.fixture
def kernel(request):
    """Install `before` as the kernel "faulty" of this process, for one test."""

    def install(before):
        faults.install("faulty", before)
        request.addfinalizer(lambda: faults.remove("faulty"))
        return UNIT | {"kernel": "faulty"}

    return install


@pytest.mark.timeout(600)  # three starts of a worker after another, on a crowded machine
@pytest.mark.parametrize(
    "fault", [faults.segfault, partial(faults.devour, limit=LIMIT)], ids=["a segfault", "all the memory"]
)
def test_a_tile_that_ends_its_worker_is_named_the_rest_finish_and_resume_tries_it_again(
    client, tmp_path, kernel, expected, fault
):
    cluster = {"kind": "local", "workers": 1, "memory_limit": "700MiB"}
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):  # each costs the start of a worker
        summary = md.run(kernel(fault) | {"cluster": cluster}, tmp_path / "a.zarr")
    assert (summary.failed, set(summary.errors)) == (1, {"0,0"})
    assert "worker died" in summary.errors["0,0"]
    store = open_store(tmp_path / "a.zarr")
    assert store.done().sum() == TILES - 1
    assert md.status(store.path).exit_code == 4
    assert md.resume(store.path, kernel="numpy", client=client).computed == 1
    assert store.checksum() == expected
    assert all(store.done(level.number).all() for level in store.description.levels)


def test_a_worker_that_stands_still_is_replaced_after_the_time_that_the_user_has_set(tmp_path, expected):
    with dask.config.set({"distributed.scheduler.worker-ttl": "8s"}):
        stopped = []

        def tell(event):
            if isinstance(event, TileDone) and not stopped:
                workers = psutil.Process().children()
                pids = [w.pid for w in workers if w.pid not in before and "spawn_main" in " ".join(w.cmdline())]
                stopped.append(pids[0])
                os.kill(pids[0], signal.SIGSTOP)

        before = {child.pid for child in psutil.Process().children()}
        cluster = {"kind": "local", "workers": 2, "memory_limit": "2GiB"}
        summary = md.run({**UNIT, "kernel": "numpy", "cluster": cluster}, tmp_path / "a.zarr", tell=tell)
    assert stopped
    assert summary.failed == 0
    assert open_store(tmp_path / "a.zarr").checksum() == expected


def test_the_clusters_we_start_have_our_settings_unless_the_user_has_set_others(monkeypatch):
    with dask.config.set(our_settings()):  # a cluster of other tests may have set it for this process already
        assert setting("distributed.scheduler.worker-ttl") == "30s"
    with dask.config.set({"distributed.comm.timeouts.tcp": "45s"}):
        assert "distributed.comm.timeouts.tcp" not in our_settings()
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "5 minutes")  # Dask's own, but named
    assert "distributed.scheduler.worker-ttl" not in our_settings()
    with clusters.connect(LocalCluster(workers=1, memory_limit="1GiB")) as client:
        client.wait_for_workers(1, timeout=60)
        assert list(client.run(setting, "distributed.comm.timeouts.tcp").values()) == ["20s"]
        assert client.run_on_scheduler(setting, "distributed.scheduler.allowed-failures") == 1
        client.get_task_stream()
        assert client.run_on_scheduler(kept_tasks) == 10_000


def kept_tasks(dask_scheduler):
    return dask_scheduler.plugins["task-stream"].buffer.maxlen


def setting(name):
    return dask.config.get(name)


@pytest.fixture(scope="module")
def dask_processes(tmp_path_factory):
    """Two workers with the kernels of tests/preloaded.py, and the file in which they count."""
    folder = tmp_path_factory.mktemp("dask")
    env = ENV | {"COUNTED": str(folder / "counted")}
    with Processes(folder, options=("--no-nanny", "--preload", "preloaded"), env=env) as processes:
        yield processes


def blocked(path):
    """A task that takes its thread until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.05)


def test_a_job_that_waits_for_a_thread_says_so(dask_processes, tmp_path):
    with dask_processes.client() as client:
        others = client.map(blocked, [str(tmp_path / "go")] * 4, pure=False)
        poll(lambda: sum(map(len, client.processing().values())) == 4, "busy workers")
        job.submit({**UNIT, "kernel": "numpy"}, tmp_path / "a.zarr", name="patient", client=client)
        status = poll(lambda: (s := md.job("patient", client=client).status()).message and s, "a word")
        assert (status.state, status.message) == (
            "waiting",
            "all threads are busy: the next that is free takes its driver",
        )
        (tmp_path / "go").touch()
        end = md.job("patient", client=client).wait(100)
        assert (end.state, end.message) == ("finished", None)
        del others


def test_two_drivers_that_race_past_the_lease_do_no_harm(dask_processes, tmp_path, expected):
    program = (
        "import preloaded, sys; preloaded.install(sys.argv.pop(1)); from mandeldask.job import lease;"
        "lease.refuse_second_driver = lambda *_: None; from mandeldask.cli import main; main()"
    )
    (tmp_path / "unit.yaml").write_text(json.dumps({**UNIT, "kernel": "counted", "store": "a.zarr"}))
    calls = dask_processes.folder / "counted"
    calls.unlink(missing_ok=True)
    command = [sys.executable, "-c", program, calls, "run", "unit.yaml", "--no-image", "--cluster"]
    command = [*map(str, command), dask_processes.address]
    racers = [subprocess.Popen(command, cwd=tmp_path, env=ENV, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [racer.communicate(timeout=150)[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], said
    assert len(faults.counted(calls)) <= 2 * TILES
    store = open_store(tmp_path / "a.zarr")
    assert store.checksum() == expected
    assert all(store.done(level.number).all() for level in store.description.levels)
    assert md.status(store.path).state == "finished"


@pytest.mark.parametrize("how", ["run", "wait"])
def test_a_scheduler_that_dies_is_told_once_with_what_to_type(tmp_path, how):
    env = ENV | {"COUNTED": str(tmp_path / "counted")}
    with Processes(tmp_path / "dask", 1, ("--no-nanny", "--preload", "preloaded"), env=env) as processes:
        path = tmp_path / "a.zarr"
        config = {**UNIT, "kernel": "long", "tile": [13, 15], "store": str(path)}
        (tmp_path / "unit.yaml").write_text(json.dumps(config))
        begin = ["submit", "--name", "lost"] if how == "wait" else ["run", "--no-image"]
        words = [*begin, tmp_path / "unit.yaml", "--cluster", processes.address]
        if how == "wait":
            subprocess.run(command_of(tmp_path, *words), env=ENV, check=True, capture_output=True, timeout=100)
            words = ["wait", "lost", "--cluster", processes.address]
        process = subprocess.Popen(command_of(tmp_path, *words), env=ENV, stderr=subprocess.PIPE, text=True)
        first = process.stderr.readline()  # it is connected
        poll(lambda: faults.counted(tmp_path / "counted"), "a tile in work")
        processes.scheduler.kill()
        said = first + process.communicate(timeout=100)[1]
    assert process.returncode == 5, said
    assert "was lost" in said
    assert said.count(f"mandeldask resume {path}") == 1
    assert "Traceback" not in said


def command_of(folder, *words):
    program = "import preloaded, sys; preloaded.install(sys.argv.pop(1)); from mandeldask.cli import main; main()"
    return [sys.executable, "-c", program, str(folder / "counted"), *map(str, words)]
