"""A batch system, SLURM, on loopback: workers as its jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial

import faults
import psutil
import pytest
from distributed import Client
from services import DEADLINE, ENV, keepers, listening, poll, slurm, slurm_says

import mandeldask as md
from mandeldask import cluster as clusters
from mandeldask import job
from mandeldask.cluster import start
from mandeldask.cluster.workers import wait_for_worker
from mandeldask.config import load_cluster
from mandeldask.job import Notice, Started, TileDone
from mandeldask.store import open_store

CONFIG = {
    "view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [200, 240]},
    "max_iter": 100,
    "tile": [50, 60],
    "kernel": "numpy",
}
TILES = 16
QUEUE = {"kind": "slurm", "queue": "debug", "cores": 1, "memory": "1GiB", "walltime": "00:10:00"}


@pytest.fixture(scope="module")
def whole(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    md.run(CONFIG, path, client=client)
    return open_store(path).checksum()


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with slurm(tmp_path_factory.mktemp("slurm") / "state"):
        yield


@pytest.fixture
def here(system, tmp_path, monkeypatch):
    """A folder in which jobs leave their output, and an environment that they inherit; no job is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ENV["PYTHONPATH"])
    yield tmp_path
    poll(lambda: not jobs("running,pending"), "the end of all jobs")


@pytest.fixture
def slow(here):
    """A kernel that counts its calls and takes its time."""
    faults.install("slow", partial(faults.count, path=str(here / "calls"), seconds=0.2))
    yield CONFIG | {"kernel": "slow"}
    faults.remove("slow")


def jobs(states):
    return slurm_says("squeue", "-h", "-t", states, "-o", "%i").split()


def test_a_run_with_jobs_gives_the_checksum_of_a_local_one_on_loopback_only(here, whole):
    found, said = [], []

    def tell(event):
        if isinstance(event, TileDone) and not found:
            found.extend(listening([os.getpid(), *workers()]))
        elif isinstance(event, Notice):
            said.append(event.text)

    described = QUEUE | {"cores": 2, "processes": 2}
    md.run(CONFIG, here / "a.zarr", cluster=described, tell=tell)
    assert open_store(here / "a.zarr").checksum() == whole
    assert said[0] == "1 slurm job of 2 cores and 1GiB, for 00:10:00 each"
    assert len(found) >= 5, "scheduler, dashboard, a nanny and two workers"
    assert set(found) == {"127.0.0.1"}


def workers():
    """The processes that SLURM started."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "dask_worker" in " ".join(process.cmdline()) and "SLURM_JOB_ID" in process.environ():
                yield process.pid


def test_a_field_is_submitted_to_a_batch_system_and_left_to_it(here, whole):
    job.submit(CONFIG, here / "a.zarr", name="batch", cluster=QUEUE)
    (keeper,) = keepers()
    try:
        assert job.wait(lambda: job.status(here / "a.zarr"), 90).state == "finished"
        assert set(listening([keeper.pid])) == {"127.0.0.1"}
    finally:
        keeper.terminate()
        keeper.wait(30)
    assert open_store(here / "a.zarr").checksum() == whole


def test_a_submission_that_the_batch_system_refuses_is_told_at_once(here):
    with pytest.raises(md.ClusterError, match="the batch system refused the job"):
        job.submit(CONFIG, here / "a.zarr", name="refused", cluster=QUEUE | {"queue": "closed"})
    assert job.status(here / "a.zarr").state == "incomplete"


def test_a_submission_that_never_gets_a_worker_ends_after_its_start_timeout(here):
    submitted = job.submit(CONFIG, here / "a.zarr", name="late", cluster=QUEUE | {"queue": "later", "start_timeout": 3})
    (keeper,) = keepers()
    try:
        with Client(submitted.scheduler) as client:
            end = md.job("late", client=client).wait(DEADLINE)
        assert (end.state, end.exit_code) == ("failed", 5)
        assert "no worker came up within 3 s" in end.message
        assert job.status(here / "a.zarr").state == "failed"
    finally:
        keeper.terminate()
        keeper.wait(30)


def test_a_job_that_is_cancelled_is_submitted_again_and_the_run_goes_on(here, slow, whole, monkeypatch):
    monkeypatch.setattr(start, "LOST_SECONDS", 1.0)
    done, cancelled = [], []

    def tell(event):
        if isinstance(event, TileDone):
            done.append(event.record.worker)
            if len(done) == 3:
                cancelled.extend(jobs("running"))
                subprocess.run(["scancel", *cancelled], check=True)

    described = QUEUE | {"cores": 2, "processes": 2}  # a job of two workers, which Dask itself does not bring back
    md.run(slow, here / "a.zarr", cluster=described, tell=tell)
    assert len(cancelled) == 1
    assert open_store(here / "a.zarr").checksum() == whole
    assert len(set(done)) > 2, "workers of another job"
    assert len(faults.counted(here / "calls")) <= TILES + 4  # two in work and two at hand


def test_an_adaptive_cluster_follows_the_work(here, slow, whole):
    seen = []

    def watch(release):
        seen.append(len(jobs("running,pending")))
        seen.append(poll(lambda: (n := len(jobs("running"))) > 1 and n, "a second job"))
        release()

    def tell(event):
        if isinstance(event, Started):
            watcher.start()

    with faults.held(here / "calls", after=1) as release:
        watcher = threading.Thread(target=watch, args=[release])
        md.run(slow, here / "a.zarr", cluster=QUEUE | {"jobs": 2, "minimum_jobs": 1}, tell=tell)
        watcher.join()
    assert open_store(here / "a.zarr").checksum() == whole
    assert seen[0] <= 1
    assert seen[1] == 2


def test_ctrl_c_ends_a_run_in_order_and_takes_its_jobs_along(here):
    (here / "run.yaml").write_text(json.dumps(CONFIG | {"max_iter": 10**7}))
    (here / "cluster.yaml").write_text(json.dumps(QUEUE))
    command = [sys.executable, "-m", "mandeldask", "run", "run.yaml", "--out", "a.zarr", "--cluster", "cluster.yaml"]
    process = subprocess.Popen(
        command,
        env=ENV | {"SLURM_CONF": os.environ["SLURM_CONF"]},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    poll(lambda: jobs("running"), "a job that runs")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, err
    assert "mandeldask resume a.zarr" in err
    assert "Traceback" not in err


def test_workers_keep_freed_memory_and_end_before_the_walltime(here):
    with clusters.connect(load_cluster(QUEUE)) as client:
        wait_for_worker(client)
        assert list(client.run(os.getenv, "MALLOC_TRIM_THRESHOLD_").values()) == [None]
        assert client.run(_lifetime).popitem()[1] < 600


def _lifetime(dask_worker):
    return dask_worker.lifetime


def test_jobs_that_never_start_are_told_of_and_not_waited_for_for_ever(here, monkeypatch):
    monkeypatch.setattr("mandeldask.cluster.workers.FIRST_LINE_SECONDS", 0.5)
    said = []
    with pytest.raises(md.ClusterError, match="no worker came up within 3 s: the jobs are waiting"):
        md.run(
            CONFIG,
            here / "a.zarr",
            cluster=QUEUE | {"queue": "later", "start_timeout": 3},
            tell=lambda event: said.append(getattr(event, "text", "")),
        )
    assert any("no worker yet after" in text for text in said)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queue": "closed"}, "the batch system refused the job: sbatch: error: .*partition"),
        ({"queue": "nowhere"}, "refused the job: .*invalid partition specified: nowhere"),
        ({"interface": "none0"}, "cannot start a slurm cluster: 'none0' is not a valid network interface"),
        ({"options": {"job_extra": 1, "nonsense": 2}}, "cannot start a slurm cluster: .*nonsense"),
        ({"kind": "htcondor", "options": {"disk": "1GB"}}, "cannot start a htcondor cluster: .*queue"),
        ({"kind": "pbs"}, "refused the job: .*qsub"),
    ],
    ids=str,
)
def test_what_cannot_be_submitted_is_told_at_once(here, change, message):
    described = load_cluster(QUEUE | change)
    with pytest.raises(md.ClusterError, match=message), clusters.connect(described) as client:
        wait_for_worker(client)


@pytest.mark.parametrize("kind", ["slurm", "pbs", "sge", "lsf", "moab"])
def test_a_job_script_is_shown_where_no_job_can_be_submitted(monkeypatch, tmp_path, kind):
    monkeypatch.setenv("PATH", "/nonexistent")
    script = start.job_script(load_cluster(QUEUE | {"kind": kind, "walltime": "1-02:30", "account": "physics"}))
    assert ("26:30" if kind == "lsf" else "26:30:00") in script
    assert "physics" in script
    assert "--lifetime 94800s --lifetime-stagger 300s" in script
    assert "--host 127.0.0.1" in script
