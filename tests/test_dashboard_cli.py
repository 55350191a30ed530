"""`mandeldask dashboard`, and what `run` does about dashboards: real processes, real schedulers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from services import DEADLINE, ENV, Processes, free_port, poll

from mandeldask import dashboard
from mandeldask.dashboard import announce, problem_with, running, ssh_tunnel

ROOT = Path(__file__).parent.parent
LESSON = str(ROOT / "configs/lesson.yaml")
SMALL = ["--set", "view.shape=[100,120]", "--set", "tile=[50,50]", "--set", "cluster.workers=1", "--no-image"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Runs of whoever else works on this machine are none of these tests' business."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SSH_CONNECTION", raising=False)


def start(*words, cwd, **options):
    command = [sys.executable, "-m", "mandeldask", *map(str, words)]
    env = ENV | {k: v for k, v in os.environ.items() if k in ("XDG_CACHE_HOME", "SSH_CONNECTION")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, env=env, text=True, **pipes | options)


def call(*words, cwd):
    process = start(*words, cwd=cwd)
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    with Processes(tmp_path_factory.mktemp("dask"), workers=1) as dask:
        yield dask


def test_a_run_elsewhere_on_this_machine_is_found_and_kept_until_enter(tmp_path):
    kept = start("run", LESSON, *SMALL, "--keep-dashboard", "--report", "report.html", cwd=tmp_path)
    try:
        ((link, _),) = poll(running, "the run")
        poll(lambda: not problem_with(link), "the page")
        code, out, _ = call("dashboard", cwd=tmp_path)
        assert code == 0
        assert out.splitlines()[0] == f"  dashboard  {link}"
        code, out, err = call("dashboard", "--json", cwd=tmp_path)
        assert (code, err) == (0, "")
        assert json.loads(out) == {
            "link": link,
            "store": str(tmp_path / "lesson.zarr"),
            "scheduler": None,
            "tunnel": None,
            "link_through_tunnel": None,
        }
        poll((tmp_path / "report.html").exists, "the report, which does not wait for Enter")
    finally:
        out, err = kept.communicate("\n", timeout=120)
    assert kept.returncode == 0, err
    assert f"dashboard  {link}" in err
    assert f"dashboard  {link}    stays up until you press Enter" in err
    assert "report     report.html" in err
    assert running() == []
    report = (tmp_path / "report.html").read_text()
    assert "Task Stream" in report
    assert "cdn.bokeh.org" not in report.replace("https://cdn.bokeh.org/bokeh/release/bokeh-icons", "")


def test_a_submitted_job_is_found_while_its_cluster_lives(tmp_path):
    code, out, err = call("submit", LESSON, *SMALL[:-1], "--json", cwd=tmp_path)
    assert code == 0, err
    ((link, store),) = running()
    (noted,) = (tmp_path / "cache/mandeldask/dashboards" / socket.gethostname()).iterdir()
    keeper = psutil.Process(int(noted.name))
    try:
        assert "mandeldask.job.background" in " ".join(keeper.cmdline())
        assert (link, store) == (json.loads(out)["dashboard"], str(tmp_path / "lesson.zarr"))
        code, out, err = call("dashboard", cwd=tmp_path)
        assert (code, err) == (0, "")
        assert out.splitlines()[0] == f"  dashboard  {link}"
    finally:
        keeper.terminate()
        psutil.wait_procs([keeper], timeout=30)
    assert running() == []


def test_a_run_that_is_interrupted_says_that_there_is_no_report(tmp_path):
    slow = ["--set", "max_iter=20000", "--set", "tile=[5,5]", "--report", "report.html"]
    process = start("run", LESSON, *SMALL, *slow, cwd=tmp_path)
    try:
        poll(lambda: any((tmp_path / "lesson.zarr/0/escape_time/c").glob("*/*")), "a tile")
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, err
    assert "no report: the run did not finish" in err
    assert "Traceback" not in err
    assert not (tmp_path / "report.html").exists()


def test_a_remote_scheduler_is_given_the_page(dask, tmp_path):
    code, out, err = call("dashboard", "--cluster", dask.address, "--json", cwd=tmp_path)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["scheduler"] == dask.address
    assert b'id="md-picture"' in urlopen(found["link"]).read()
    code, out, _ = call("dashboard", "--cluster", dask.file, cwd=tmp_path)
    assert (code, out.strip()) == (0, f"dashboard  {found['link']}")


def test_a_dashboard_that_is_switched_off_is_said_to_be_so_and_a_run_goes_on(tmp_path):
    with Processes(tmp_path / "dask", workers=0) as dask:
        file = tmp_path / "off.json"
        words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        dask.start("distributed.cli.dask_scheduler", *words, "--scheduler-file", file)
        dask.file = file
        dask.start_worker("--no-nanny")
        dask.wait()
        code, out, err = call("dashboard", "--cluster", dask.address, cwd=tmp_path)
        assert (code, out) == (5, "")
        assert "switched off" in err
        assert "dask scheduler --dashboard" in err
        code, _, err = call(
            "run", LESSON, *SMALL, "--cluster", dask.address, "--out", tmp_path / "a.zarr", cwd=tmp_path
        )
        assert code == 0, err
        assert err.count("dashboard  switched off") == err.count("  dashboard ") == 1
        with dask.client() as client:
            assert dashboard.install(client) == dashboard.SWITCHED_OFF


def test_a_scheduler_without_bokeh_is_said_to_have_none_and_a_run_goes_on(tmp_path):
    (tmp_path / "without/bokeh").mkdir(parents=True)
    (tmp_path / "without/bokeh/__init__.py").write_text("raise ImportError('no bokeh here')")
    env = ENV | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "without"), ENV["PYTHONPATH"]])}
    with Processes(tmp_path / "dask", workers=1, env=env) as dask:
        there = ["--cluster", dask.address, "--out", tmp_path / "a.zarr"]
        code, _, err = call("run", LESSON, *SMALL, *there, cwd=tmp_path)
        assert code == 0, err
        assert err.count("Dask's own pages only: the scheduler has no Bokeh that its dashboard can use") == 1
        said = dask.log(dask.scheduler)
        assert said.count("no page mandeldask") == 1
        assert "Traceback" not in said


BAD = {
    "nobody there": (["dashboard", "--cluster", "tcp://127.0.0.1:{port}"], 5, "scheduler"),
    "no such file": (["dashboard", "--cluster", "none.yaml"], 2, "there is no file"),
    "report in no directory": (
        ["run", LESSON, *SMALL, "--report", "none/a.html"],
        2,
        "there is no directory none to write a.html in",
    ),
    "report of another kind": (["run", LESSON, *SMALL, "--report", "a.md"], 2, "a report's name must end in .html"),
}


@pytest.mark.parametrize(("words", "exit_code", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_message(tmp_path, words, exit_code, message):
    code, out, err = call(*(word.format(port=free_port()) for word in words), cwd=tmp_path)
    assert (code, out) == (exit_code, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "lesson.zarr").exists()


def test_a_dashboard_that_does_not_answer_is_said_not_to(tmp_path):
    announce(f"http://127.0.0.1:{free_port()}/mandeldask", "<a store>", os.getpid())
    code, _, err = call("dashboard", cwd=tmp_path)
    assert code == 5
    assert "does not answer: Connection refused" in err


def test_files_of_runs_that_are_gone_or_no_runs_are_swept_away(tmp_path):
    announce("http://127.0.0.1:1/mandeldask", "a", os.getpid())
    folder = tmp_path / "cache/mandeldask/dashboards" / socket.gethostname()
    ours = folder / str(os.getpid())
    (folder / str(2**30)).write_text(ours.read_text())
    (folder / str(os.getppid())).write_text("[")  # which is written at this moment
    (folder / "no-number").write_text("")
    assert [store for _, store in running()] == ["a"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([str(os.getpid()), str(os.getppid())])
    os.utime(ours, (1, 1))
    assert running() == [], "it was of an earlier process of that number"


def test_a_tunnel_is_told_where_one_is_needed(monkeypatch):
    assert ssh_tunnel("http://127.0.0.1:8787/mandeldask") is None
    assert ssh_tunnel("http://10.9.8.7:8787/mandeldask") == (
        "ssh -N -L 8787:10.9.8.7:8787 10.9.8.7",
        "http://localhost:8787/mandeldask",
    )
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    assert ssh_tunnel("http://127.0.0.1:8788/mandeldask") == (
        "ssh -N -L 8788:127.0.0.1:8788 192.0.2.2",
        "http://localhost:8788/mandeldask",
    )
