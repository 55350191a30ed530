"""Jobs on a scheduler and workers that are processes of their own: clients, drivers and workers come and go."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import preloaded
import pytest
from distributed import Client
from faults import counted, held
from services import DEADLINE, ENV, Processes, keepers, listening, poll

import mandeldask as md
from mandeldask import job
from mandeldask.dashboard import problem_with
from mandeldask.job import background, job_status, lease, submission
from mandeldask.job.ledger import Ledger
from mandeldask.store import Description, open_for_writing, open_store

UNIT = {
    "view": {"x": [0, 1], "y": [0, 1], "shape": [96, 96]},
    "max_iter": 50,
    "tile": [16, 16],
    "kernel": "counted",
}
TILES = 36
TINY = Description.of(md.View((0, 1), (0, 1), (4, 4)), 9, ("escape_time",), (2, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("submit")


@pytest.fixture(scope="module")
def counts(folder):
    """The file in which workers and this process count computed tiles."""
    path = folder / "counted"
    preloaded.install(str(path))
    yield path
    preloaded.remove()


@pytest.fixture(scope="module")
def dask(folder, counts):
    """Two workers that are started again when they die."""
    env = ENV | {"COUNTED": str(counts)}
    with Processes(folder / "dask", options=("--preload", "preloaded"), env=env) as processes:
        yield processes


@pytest.fixture(scope="module")
def expected(client, folder):
    """The checksum of a plain local run."""
    md.run({**UNIT, "kernel": "numpy"}, folder / "expected.zarr", client=client)
    return open_store(folder / "expected.zarr").checksum()


@pytest.fixture
def fresh(counts):
    """Count from zero."""
    counts.unlink(missing_ok=True)
    return counts


@pytest.fixture
def scheduler(dask):
    with dask.client() as client:
        yield client


def drivers(client, name):
    """The processes that a job's driver has lived in, the latest last."""
    texts = [text for _, text in md.job(name, client=client).logs()]
    return [int(re.search("process ([0-9]+)", text)[1]) for text in texts if text.startswith("the driver runs on")]


def mandeldask(*words, cwd, env=None):
    return subprocess.run(
        [sys.executable, "-m", "mandeldask", *map(str, words)],
        cwd=cwd,
        env=ENV | (env or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def rated(status):
    """A status that tells a rate."""
    return status if status.progress and status.progress.samples_per_second else None


def test_a_job_goes_on_without_its_client(dask, scheduler, fresh, tmp_path, expected):
    with held(fresh, after=TILES // 2):
        with dask.client() as mine:
            submitted = job.submit(UNIT, tmp_path / "a.zarr", name="alone", client=mine)
        assert (submitted.tiles, submitted.pending) == (TILES, TILES)
        running = poll(
            lambda: (s := md.job("alone", client=scheduler).status()).state == "running" and s.done and s, "a tile"
        )
        assert running.progress.workers == 2
    end = md.job("alone", client=scheduler).wait(DEADLINE)
    assert (end.state, end.done, end.failed, end.exit_code) == ("finished", TILES, 0, 0)
    assert open_store(tmp_path / "a.zarr").checksum() == expected
    assert len(counted(fresh)) == TILES
    assert [known.name for known in md.jobs(client=scheduler)].count("alone") == 1
    texts = [text for _, text in md.job("alone", client=scheduler).logs()]
    assert texts[0].startswith("the driver runs on tcp://")
    assert texts[-1] == f"finished: {TILES} tiles computed, 0 failed"


def test_a_job_is_found_again_listed_and_shown_without_its_client(dask, fresh, tmp_path):
    with held(fresh, after=TILES // 2):
        with dask.client() as mine:
            submitted = md.submit(UNIT, tmp_path / "a.zarr", name="handle", client=mine)
            assert mine.dashboard_link.replace("status", "mandeldask") == submitted.dashboard
            assert not problem_with(submitted.dashboard)
        assert repr(submitted).startswith(f"<Job handle: submitted, {TILES} of {TILES} tiles to compute; {tmp_path}")
        running = poll(lambda: (s := submitted.status()).done and s, "a tile")
        assert (running.state, submitted.last) == ("running", running)
        found = md.job("handle", dask.address)
        assert found == dataclasses.replace(submitted, pending=found.pending)
        assert f"<Job handle: running: {found.last.done}/{TILES} tiles" in repr(found)
        (listed,) = [known for known in md.jobs(dask.address) if known.name == "handle"]
        assert listed.last.state == "running"
    assert submitted.wait(DEADLINE).state == found.status().state == md.status(found.store).state == "finished"
    page = found._repr_html_()
    assert f'value="{TILES}" max="{TILES}"' in page and "<img" in page and f'href="{found.dashboard}"' in page
    with pytest.raises(md.ConfigError, match="knows no job 'nobody'"):
        md.job("nobody", dask.address)
    with pytest.raises(md.ConfigError, match="which scheduler"):
        md.jobs()


def test_a_job_whose_scheduler_is_gone_says_so(tmp_path, counts):
    with Processes(tmp_path / "dask", workers=1) as dask:
        submitted = md.submit({**UNIT, "kernel": "numpy"}, tmp_path / "a.zarr", cluster=dask.address)
        assert submitted.wait(DEADLINE).exit_code == 0
    for ask in (submitted.status, submitted.wait, submitted.cancel, submitted.logs):
        with pytest.raises(md.ClusterError, match="nothing is listening on tcp"):
            ask()
    assert "nothing is listening on tcp" in submitted._repr_html_()


def test_the_store_tells_how_far_its_job_is(dask, scheduler, fresh, tmp_path):
    path = tmp_path / "a.zarr"
    with held(fresh, after=TILES // 2):
        job.submit(UNIT, path, name="told", client=scheduler)
        status = poll(
            lambda: (s := job.status(path)).progress and s.progress.samples_per_second and s,
            "a rate in the store",
        )
        assert (status.state, status.job, status.tiles) == ("running", "told", TILES)
        assert status.progress.workers == 2
    end = job.wait(lambda: job.status(path), DEADLINE)
    assert (end.state, end.done, end.exit_code, end.job) == ("finished", TILES, 0, "told")


def test_a_second_driver_is_kept_out(dask, scheduler, fresh, tmp_path):
    path = tmp_path / "a.zarr"
    with held(fresh):
        job.submit(UNIT, path, name="first", client=scheduler)
        with pytest.raises(md.StoreError, match=r"job first is writing .*mandeldask wait"):
            job.submit(UNIT, path, name="second", client=scheduler)
        told = []
        with pytest.raises(md.StoreError, match="job first is writing"):
            md.run(UNIT, path, client=scheduler, tell=told.append)
        assert [type(event).__name__ for event in told] == ["Preparing"], "before there is a plan to be told"
    assert md.job("first", client=scheduler).wait(DEADLINE).done == TILES
    assert len(counted(fresh)) == TILES


def test_a_cancelled_job_ends_soon_and_another_finishes_its_store(dask, scheduler, fresh, tmp_path, expected):
    path = tmp_path / "a.zarr"
    with held(fresh, after=TILES // 2):
        job.submit({**UNIT, "tile": [8, 8]}, path, name="stopped", client=scheduler)
        poll(lambda: md.job("stopped", client=scheduler).status().done, "a finished tile")
    end = md.job("stopped", client=scheduler).cancel()
    assert (end.state, end.exit_code) == ("cancelled", 130)
    stored = job.status(path)
    assert (stored.state, stored.exit_code, stored.message) == ("cancelled", 130, end.message)
    assert 0 < stored.done < 4 * TILES
    with pytest.raises(md.ConfigError, match="ended already: cancelled"):
        md.job("stopped", client=scheduler).cancel()
    again = job.submit({**UNIT, "tile": [8, 8]}, path, client=scheduler)
    assert again.name.startswith("a-")
    assert again.pending <= 4 * TILES - stored.done
    md.job(again.name, client=scheduler).wait(DEADLINE)
    assert open_store(path).checksum() == expected


def test_a_driver_survives_the_death_of_its_worker_five_times(dask, scheduler, fresh, tmp_path, expected):
    name, kills = "hunted", 5
    path, tiles = tmp_path / "a.zarr", 64  # so few that no driver looks ahead, which would count
    job.submit({**UNIT, "kernel": "slow", "tile": [12, 12]}, path, name=name, client=scheduler)
    for n in range(kills):
        computing = lambda n=n: len(drivers(scheduler, name)) > n and job.status(path).done > 4 * n  # noqa: E731
        poll(computing, "a driver that computes")
        os.kill(drivers(scheduler, name)[-1], signal.SIGKILL)
    end = md.job(name, client=scheduler).wait(120)
    assert (end.state, end.done, end.failed) == ("finished", tiles, 0)
    assert len(drivers(scheduler, name)) == kills + 1
    assert open_store(path).checksum() == expected
    # a death costs the tile beside the driver and the one on the other worker, which nobody waits for any more
    assert tiles <= len(counted(fresh)) <= tiles + 2 * kills


def test_a_job_that_has_ended_is_not_driven_again_when_the_worker_with_its_result_dies(dask, scheduler, tmp_path):
    submitted = md.submit(UNIT | {"kernel": "numpy"}, tmp_path / "a.zarr", name="ended", client=scheduler)
    assert submitted.wait(DEADLINE).state == "finished"
    md.run(UNIT | {"kernel": "numpy", "max_iter": 20}, tmp_path / "a.zarr", overwrite=True, client=scheduler)
    key = job_status.driver_key("ended", scheduler.get_metadata([job_status.SPACE, "ended", "run"]))
    (home,) = poll(lambda: scheduler.who_has().get(key), "its result")
    os.kill(drivers(scheduler, "ended")[-1], signal.SIGKILL)
    poll(lambda: set(scheduler.who_has().get(key, ())) - {home}, "its result on another worker")
    assert submitted.status().state == "finished"
    assert len(drivers(scheduler, "ended")) == 1


def test_a_tile_that_kills_its_workers_is_named_and_the_rest_is_computed(dask, scheduler, tmp_path):
    path = tmp_path / "a.zarr"
    job.submit({**UNIT, "kernel": "crash", "tile": [48, 48]}, path, name="deadly", client=scheduler)
    end = md.job("deadly", client=scheduler).wait(200)
    assert (end.state, end.done, end.failed, end.exit_code) == ("incomplete", 3, 1, 4)
    assert list(end.errors) == ["0,0"]
    assert "worker died" in end.errors["0,0"]


def test_the_command_line_submits_asks_and_waits(dask, tmp_path, expected):
    (tmp_path / "unit.yaml").write_text(
        json.dumps({**UNIT, "kernel": "numpy", "tile": [8, 8], "store": "unit.zarr", "picture": {"light": [315, 45]}})
    )
    env = {"DASK_SCHEDULER_ADDRESS": dask.address}
    sent = mandeldask("submit", "unit.yaml", "--cluster", dask.address, "--name", "cli", cwd=tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert "mandeldask status cli --cluster tcp://" in sent.stderr
    assert f"  job        cli, on the scheduler at {dask.address}\n" in sent.stderr
    assert sent.stderr.count("\n  cluster ") == 1
    assert mandeldask("wait", "cli", cwd=tmp_path, env=env).returncode == 0
    shown = mandeldask("status", "unit.zarr", cwd=tmp_path)
    assert "finished: 144/144 tiles" in shown.stdout
    listed = mandeldask("jobs", "--json", cwd=tmp_path, env=env)
    assert {"cli": "finished"}.items() <= {j["job"]: j["state"] for j in json.loads(listed.stdout)}.items()
    assert "finished: 144 tiles" in mandeldask("logs", "cli", "--cluster", dask.address, cwd=tmp_path).stdout
    assert open_store(tmp_path / "unit.zarr").checksum() == expected
    assert md.picture(tmp_path / "unit.zarr").options.light == (315, 45)
    unknown = mandeldask("status", "nobody", cwd=tmp_path, env=env)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "knows no job 'nobody'" in unknown.stderr
    which = mandeldask("status", "cli", cwd=tmp_path)
    assert which.returncode == 2
    assert "which scheduler?" in which.stderr
    assert not [r for r in (sent, shown, listed, unknown, which) if "Traceback" in r.stderr]


def test_a_client_killed_right_after_it_submitted_leaves_its_job_running(dask, scheduler, tmp_path, expected):
    (tmp_path / "unit.yaml").write_text(json.dumps({**UNIT, "kernel": "numpy", "store": "unit.zarr"}))
    program = f"""if True:
        import os, signal
        from mandeldask import job
        def tell(event):
            if isinstance(event, job.Started):  # the client is still connected
                os.kill(os.getpid(), signal.SIGKILL)
        job.submit("unit.yaml", cluster="{dask.address}", name="orphan", tell=tell)
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=ENV, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    end = md.job("orphan", client=scheduler).wait(DEADLINE)
    assert (end.state, end.done) == ("finished", TILES)
    assert open_store(tmp_path / "unit.zarr").checksum() == expected


def test_a_submit_killed_before_its_job_is_sent_holds_the_store_for_a_minute(
    dask, scheduler, tmp_path, monkeypatch, expected
):
    config, path = {**UNIT, "kernel": "numpy"}, tmp_path / "a.zarr"
    program = f"""if True:
        import os, signal
        from mandeldask import job
        def tell(event):
            if isinstance(event, job.Plan):  # the store is made, and held for the job
                os.kill(os.getpid(), signal.SIGKILL)
        job.submit({config}, "a.zarr", cluster="{dask.address}", name="early", tell=tell)
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=ENV, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(md.StoreError, match=r"job early is writing .* forgotten after 60 s"):
        md.run(config, path, client=scheduler)
    monkeypatch.setattr(lease, "time", SimpleNamespace(time=lambda: time.time() + 61))
    assert md.run(config, path, client=scheduler).done == TILES
    assert open_store(path).checksum() == expected


def test_a_store_stays_held_while_the_cluster_of_its_job_starts(tmp_path, monkeypatch, counts):
    def start(cluster):
        beat = lambda: open_store(tmp_path / "a.zarr").read_notes()["lease"]["heartbeat"]  # noqa: E731
        first = beat()
        poll(lambda: beat() > first, "a heartbeat")
        raise md.ClusterError("it did not start")

    monkeypatch.setattr(submission, "kept_cluster", start)
    monkeypatch.setattr(submission, "HEARTBEAT_SECONDS", 0.05)
    with pytest.raises(md.ClusterError, match="it did not start"):
        job.submit(UNIT, tmp_path / "a.zarr", cluster={"kind": "local", "workers": 1})
    assert "lease" not in open_store(tmp_path / "a.zarr").read_notes()


def test_a_job_that_waits_for_a_worker_can_be_seen_and_cancelled(tmp_path, counts, expected):
    """The only worker goes between the store's making and the driver's start."""
    with Processes(tmp_path / "dask", workers=1) as dask, dask.client() as client:
        path = tmp_path / "a.zarr"
        config = {**UNIT, "kernel": "numpy"}

        def tell(event):
            if isinstance(event, job.Plan):
                dask.workers[0].kill()
                poll(lambda: not client.nthreads(), "the end of the worker")

        job.submit(config, path, name="waiting", client=client, tell=tell)
        assert md.job("waiting", client=client).status().state == "waiting"
        assert job.status(path).state == "waiting"
        with pytest.raises(md.StoreError, match="job waiting is writing"):
            md.run(config, path, cluster={"kind": "local", "workers": 1})
        end = md.job("waiting", client=client).cancel()
        assert (end.state, end.exit_code) == ("cancelled", 130)
        stored = job.status(path)
        assert (stored.state, stored.exit_code, stored.message) == ("cancelled", 130, end.message)
        dask.start_worker("--no-nanny")
        dask.wait(1)
        job.submit(config, path, name="waiting", client=client)
        assert md.job("waiting", client=client).wait(DEADLINE).state == "finished"
    assert open_store(path).checksum() == expected


def test_a_name_is_free_again_when_its_job_has_ended(scheduler, fresh, tmp_path):
    with held(fresh):
        job.submit(UNIT, tmp_path / "a.zarr", name="twice", client=scheduler)
        with pytest.raises(md.ConfigError, match="has a job twice that has not ended"):
            job.submit(UNIT, tmp_path / "b.zarr", name="twice", client=scheduler)
    assert not (tmp_path / "b.zarr").exists()
    md.job("twice", client=scheduler).wait(DEADLINE)
    job.submit(UNIT, tmp_path / "b.zarr", name="twice", client=scheduler)
    end = md.job("twice", client=scheduler).wait(DEADLINE)
    assert (end.state, end.done, end.store) == ("finished", TILES, str(tmp_path / "b.zarr"))


def test_a_cluster_started_for_a_job_is_kept_in_the_background_on_loopback(tmp_path, expected):
    path = tmp_path / "a.zarr"
    config = {**UNIT, "kernel": "numpy"}
    told = []
    submitted = job.submit(config, path, name="kept", cluster={"kind": "local", "workers": 2}, tell=told.append)
    (keeper,) = keepers()
    said = {event.about: event.text for event in told if isinstance(event, job.Notice)}
    assert said["job"] == "kept, on worker processes on this machine"
    assert said["background"].endswith("ends 60 s after its last job")
    try:
        assert os.getsid(keeper.pid) == keeper.pid  # a terminal that closes does not end it
        with Client(submitted.scheduler) as client:
            end = md.job("kept", client=client).wait(DEADLINE)
        assert (end.state, end.done) == ("finished", TILES)
        assert set(listening([keeper.pid])) == {"127.0.0.1"}
    finally:
        folder = Path(keeper.cmdline()[-1])
        keeper.terminate()
        keeper.wait(30)
    assert open_store(path).checksum() == expected
    assert not folder.exists()


def test_the_folder_of_a_cluster_whose_processes_were_killed_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, files in {"killed": 2, "at-work": 2, "failed": 1}.items():  # who failed left a log to be read
        folder = tmp_path / f"{background.PREFIX}{name}"
        folder.mkdir()
        for file in (background.LOG, background.SCHEDULER)[:files]:
            (folder / file).touch()
    with open(tmp_path / f"{background.PREFIX}at-work" / background.LOG) as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        keeper = subprocess.Popen(["sleep", "100"], stdout=log)
    try:
        background._sweep()
    finally:
        keeper.kill()
        keeper.wait()
    left = {path.name.removeprefix(background.PREFIX) for path in tmp_path.iterdir()}
    assert left == {"at-work", "failed"}


def test_a_store_where_the_workers_see_no_folder_is_refused(dask, scheduler, tmp_path):
    with pytest.raises(md.StoreError, match=r"there is no directory .*nowhere on .*where the workers run"):
        job.submit(UNIT, tmp_path / "nowhere" / "a.zarr", client=scheduler)
    assert not (tmp_path / "nowhere").exists()
    assert not any("Traceback" in dask.log(worker) and "nowhere" in dask.log(worker) for worker in dask.workers)


def test_a_cluster_that_cannot_be_started_is_told(counts, tmp_path):
    cluster = {"kind": "class", "type": "distributed.NoSuchCluster"}
    with pytest.raises(md.ClusterError, match="NoSuchCluster"):
        job.submit(UNIT, tmp_path / "a.zarr", cluster=cluster)
    assert not (tmp_path / "a.zarr").exists()


def test_a_process_that_ends_before_its_cluster_is_up_is_told_with_its_output(counts, monkeypatch, tmp_path):
    monkeypatch.setattr(background, "PROGRAM", "import sys; print('boo'); sys.exit(3)")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(md.ClusterError, match="ended with exit code 3: its output is in ") as error:
        job.submit(UNIT, tmp_path / "a.zarr", cluster={"kind": "local", "workers": 1})
    assert Path(str(error.value).rpartition(" is in ")[2]).read_text() == "boo\n"
    assert "lease" not in open_store(tmp_path / "a.zarr").read_notes()  # nothing holds the store


def test_the_same_name_on_another_scheduler_is_another_job(dask, scheduler, fresh, tmp_path):
    path = tmp_path / "a.zarr"
    with held(fresh), Processes(tmp_path / "other", workers=1) as other, other.client() as client:
        job.submit({**UNIT, "tile": [8, 8], "kernel": "slow"}, path, name="mini", client=scheduler)
        again = {**UNIT, "tile": [8, 8], "kernel": "numpy"}
        for overwrite in (False, True):
            with pytest.raises(md.StoreError, match="job mini is writing"):
                job.submit(again, path, name="mini", overwrite=overwrite, client=client)
    identity = open_store(path).identity
    assert md.job("mini", client=scheduler).cancel().state == "cancelled"
    assert open_store(path).identity == identity


def test_a_store_is_not_held_for_a_job_that_could_not_be_sent(scheduler, tmp_path, monkeypatch):
    def fails(*_):
        raise md.ClusterError("lost")

    monkeypatch.setattr(submission, "_send", fails)
    with pytest.raises(md.ClusterError, match="lost"):
        job.submit(UNIT, tmp_path / "a.zarr", name="unsent", client=scheduler)
    assert open_store(tmp_path / "a.zarr").read_notes().get("lease") is None


def test_a_store_that_the_driver_does_not_see_is_not_made_again(dask, scheduler, tmp_path):
    """The store is replaced between its making and the driver's start."""
    path = tmp_path / "a.zarr"
    config = {**UNIT, "kernel": "numpy"}

    def tell(event):
        if isinstance(event, job.Plan):
            path.rename(tmp_path / "elsewhere")

    job.submit(config, path, name="blind", client=scheduler, tell=tell)
    end = md.job("blind", client=scheduler).wait(DEADLINE)
    assert (end.state, end.exit_code, end.done) == ("failed", 3, 0)
    assert "does not see the store" in end.message
    assert not path.exists()


def test_the_lease_of_a_driver_is_not_taken_for_a_reservation(tmp_path):
    store = open_for_writing(tmp_path / "a.zarr", TINY)
    with lease.held(store, "job", "run"):
        lease.reserve(store, "job", "run")
        assert job.status(tmp_path / "a.zarr").state == "running"
        with pytest.raises(md.StoreError, match="job job is writing"):
            lease.reserve(store, "job", "another run")
    assert job.status(tmp_path / "a.zarr").state == "incomplete"
    lease.reserve(store, "job", "run")
    assert job.status(tmp_path / "a.zarr").state == "waiting"
    lease.release(store.path, "another run")
    assert job.status(tmp_path / "a.zarr").state == "waiting"
    for tile in np.ndindex(2, 2):
        store.write(tile, np.ones((2, 2), np.int32))
    store.write_level(1, (0, 0))
    assert job.status(tmp_path / "a.zarr").state == "finished"  # nothing is left to hold it for
    lease.release(store.path, "run")
    assert "lease" not in store.read_notes()


@pytest.mark.parametrize(
    "notes",
    [
        {"lease": [1, 2]},
        {"errors": [1]},
        {"errors": {"0,0": 5}},
        {"progress": "soon", "lease": {"job": 5, "heartbeat": "now", "pid": {}}},
        {"lease": {"job": "a", "heartbeat": 1e999, "pid": 1}, "progress": {"seconds_left": "x", "workers": []}},
    ],
)
def test_odd_notes_in_a_store_are_no_reason_to_fail(tmp_path, notes):
    store = open_for_writing(tmp_path / "a.zarr", TINY)
    store.write_notes(**notes)
    assert job.status(tmp_path / "a.zarr").tiles == 4
    Ledger(store)


def test_what_others_write_into_the_metadata_hides_no_job(scheduler, tmp_path):
    scheduler.set_metadata(["mandeldask", "odd"], {"name": "odd"})
    scheduler.set_metadata(["mandeldask", "text"], "text")
    job.submit({**UNIT, "kernel": "numpy"}, tmp_path / "a.zarr", name="seen", client=scheduler)
    assert md.job("seen", client=scheduler).wait(DEADLINE).state == "finished"
    assert not {"odd", "text"} & {known.name for known in md.jobs(client=scheduler)}


def test_cancel_and_logs_of_a_store_are_of_its_own_job(dask, scheduler, tmp_path):
    """A name is used again for another store, and the first store still names it."""
    for name in ("a.zarr", "b.zarr"):
        job.submit({**UNIT, "kernel": "numpy"}, tmp_path / name, name="nightly", client=scheduler)
        md.job("nightly", client=scheduler).wait(DEADLINE)
    for command in ("cancel", "logs"):
        refused = mandeldask(command, "a.zarr", "--cluster", dask.address, cwd=tmp_path)
        assert refused.returncode == 2
        assert "b.zarr, not on a.zarr" in refused.stderr


@pytest.mark.parametrize("name", ["", "z.zarr", "a b", "../up", "-x", "x" * 65])
def test_a_name_that_cannot_be_typed_is_refused(scheduler, tmp_path, name):
    with pytest.raises(md.ConfigError, match="a job's name is letters"):
        job.submit(UNIT, tmp_path / "a.zarr", name=name, client=scheduler)
    assert not (tmp_path / "a.zarr").exists()
