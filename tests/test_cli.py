"""The commands as a user types them: those that compute in a process of their own, the others in this one."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import click
import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from conftest import skip_or_fail
from PIL import Image
from services import DEADLINE

from mandeldask.cli import Commands, cli
from mandeldask.cli.group import signals_end_in_order
from mandeldask.config import load
from mandeldask.kernels import KERNELS
from mandeldask.store import open_store

ROOT = Path(__file__).parent.parent
LESSON = str(ROOT / "configs/lesson.yaml")
SMALL = ["--set", "view.shape=[100,120]", "--set", "tile=[50,50]", "--set", "cluster.workers=1"]
# a numpy kernel that has hours to go
LONG = ["--set", "view.shape=[20000,20000]", "--set", "max_iter=100000", "--set", "cluster.workers=2"]
ENV = os.environ | {"PYTHONPATH": str(ROOT)}


def start(*words, cwd, **options):
    command = [sys.executable, "-m", "mandeldask", *map(str, words)]
    return subprocess.Popen(
        command, cwd=cwd, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def call(*words, cwd):
    """Exit code, stdout and stderr of a command in a process of its own."""
    process = start(*words, cwd=cwd)
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def invoke(*words, cwd):
    """As `call`, in this process: for what computes nothing."""
    with chdir(cwd):
        done = CliRunner().invoke(cli, [*map(str, words)], prog_name="mandeldask")
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the lesson, made small, was run."""
    cwd = tmp_path_factory.mktemp("run")
    code, out, err = call("run", LESSON, *SMALL, "--set", "cluster.workers=2", cwd=cwd)
    assert code == 0, err
    assert out == "", "what a person reads goes to stderr"
    return cwd, err


def test_run_shows_plan_link_and_summary_and_leaves_store_and_picture(finished):
    cwd, err = finished
    for words in (
        "x [-2.0, 1.0], y [-1.5, 1.5], gridline",
        "100 x 120 = 12 k samples, max_iter 100",
        "kernel     numpy\n",
        "6 of 50 x 50; 6 to compute",
        "lesson.zarr, at most 46.88 KiB before compression",
        "2 workers of 1 thread",
        "http://127.0.0.1:",
        "done       6 tiles in",
        "of the samples did not escape within 100 iterations: area 1.5",
        "picture    lesson.png",
        "mandeldask image lesson.zarr",
    ):
        assert words in err
    assert open_store(cwd / "lesson.zarr").done().all()
    drawn = Image.open(cwd / "lesson.png")
    assert (drawn.size, drawn.mode) == ((120, 100), "RGB"), "smooth, though the store has the counts alone"


def test_an_interruption_after_the_last_tile_names_nothing_to_go_on_with(finished, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mandeldask.image.picture", interrupted)
    code, _, err = invoke("resume", "lesson.zarr", cwd=finished[0])
    assert code == 130
    assert "interrupted" in err and "mandeldask resume" not in err


def test_an_unknown_option_beside_set_is_told_of_the_keys(tmp_path):
    code, _, err = invoke("run", "lesson", "--size", "400", "300", cwd=tmp_path)
    assert code == 2
    assert "--set 'view.shape=[300,400]'" in err


def test_json_is_one_object_that_agrees_with_the_store(finished, tmp_path):
    code, out, err = call("run", LESSON, *SMALL, "--out", tmp_path / "a.zarr", "--json", cwd=tmp_path)
    summary = json.loads(out)
    field = open_store(tmp_path / "a.zarr").escape_time[:]
    assert (code, err) == (0, "")
    assert summary["iterations"] == field.sum()
    assert summary["not_escaped"] == np.count_nonzero(field == 100)
    assert (summary["tiles"], summary["computed"], summary["failed"], summary["errors"]) == (6, 6, 0, {})
    assert Path(summary["picture"]) == tmp_path / "a.png"


def test_quiet_says_nothing(finished):
    cwd, _ = finished
    assert invoke("resume", "lesson.zarr", "--quiet", cwd=cwd) == (0, "", "")


def test_resume_says_what_is_done_and_run_does_the_same(finished):
    cwd, _ = finished
    shard = cwd / "lesson.zarr/0/escape_time/c/1/2"
    for words in (["resume", "lesson.zarr", "--kernel", "numba", "--workers", "1"], ["run", LESSON, *SMALL]):
        shard.unlink()
        code, _, err = call(*words, cwd=cwd)
        assert code == 0
        assert "5 done already: resuming; 1 to compute" in err
    code, _, err = invoke("resume", "lesson.zarr", cwd=cwd)
    assert code == 0
    assert "every tile was computed already" in err


def test_where_nothing_is_computed_there_is_no_page_and_it_is_said_what_to_type(finished):
    cwd, _ = finished
    code, _, err = invoke("run", LESSON, *SMALL, "--report", "r.html", cwd=cwd)
    again = shlex.join(["mandeldask", "run", LESSON, *SMALL, "--report", "r.html", "--overwrite"])
    assert (code, (cwd / "r.html").exists()) == (0, False)
    assert f"dashboard  none, and no report: nothing was computed. To compute it again: {again}\n" in err
    code, _, err = invoke("resume", "lesson.zarr", cwd=cwd)
    assert "dashboard  none: nothing was computed. To compute it again: mandeldask run CONFIG --overwrite\n" in err


def test_a_run_takes_any_kernel_tells_what_it_makes_and_draws_a_pixel_of_four_samples(client, tmp_path):
    at = ["--cluster", client.scheduler.address, "--kernel", "numpy-compact"]
    code, _, err = invoke("run", LESSON, "--out", "new/folder/a.zarr", *at, cwd=tmp_path)
    assert code == 0, err
    assert "kernel     numpy-compact" in err and f"store      made the directory new{os.sep}folder" in err
    assert re.findall("(?m)^  (cluster|workers) ", err) == ["cluster", "workers"]
    assert Image.open(tmp_path / "new/folder/a.png").size == (500, 500)


def test_checksum_is_of_the_samples_in_row_order(finished):
    cwd, _ = finished
    code, out, _ = invoke("checksum", "lesson.zarr", "lesson.zarr/", cwd=cwd)
    field = open_store(cwd / "lesson.zarr").escape_time[:]
    digest = hashlib.sha256(field.astype("<i4").tobytes()).hexdigest()
    assert (code, out) == (0, f"{digest}  lesson.zarr\n{digest}  lesson.zarr/\n")


def test_image_draws_with_the_looks_asked_for(finished, tmp_path):
    cwd, _ = finished
    code, _, err = invoke("image", "lesson.zarr", tmp_path / "a.png", "--colormap", "magma", "--size", "60", cwd=cwd)
    assert code == 0
    assert "60 x 50 pixels" in err
    assert Image.open(tmp_path / "a.png").size == (60, 50)


def test_schema_is_the_file_in_configs(tmp_path):
    code, out, _ = invoke("schema", cwd=tmp_path)
    assert code == 0
    assert json.loads(out) == json.loads((ROOT / "configs/schema.json").read_text())


BAD = {
    "no such config": (["run", "none.yaml"], 2, "none.yaml: cannot be read"),
    "unknown key": (["run", LESSON, "--set", "kernal=numba"], 2, "did you mean `kernel`"),
    "bad value": (["run", LESSON, "--set", "max_iter=0"], 2, "max_iter must be at least 1; got 0"),
    "bad set": (["run", LESSON, "--set", "max_iter"], 2, "--set takes KEY=VALUE"),
    "too deep": (
        ["run", LESSON, "--set", "view={centre: [-0.75, 0.1], span: 1e-15, shape: [10, 10]}"],
        2,
        "too deep for binary64",
    ),
    "block too large": (
        [
            "run",
            LESSON,
            "--set",
            "cluster.memory_limit=300MiB",
            "--set",
            "view.shape=[9999,9999]",
            "--set",
            "tile=[9999,9999]",
        ],
        5,
        "tile of 9999 x 9999 needs about",
    ),
    "output below a file": (["run", LESSON, "--out", "a-file/a.zarr"], 3, "cannot write a-file/a.zarr"),
    "output is a file": (["run", LESSON, "--out", "a-file"], 3, "a-file is a file"),
    "output of another": (["run", LESSON, "--out", "theirs", "--overwrite"], 3, "is left alone"),
    "a url": (["run", LESSON, "--out", "ftp://bucket/a.zarr"], 3, "a store is a path, or a URL of s3://"),
    "picture and none": (["run", LESSON, "--image", "a.png", "--no-image"], 2, "exclude each other"),
    "picture not png": (["run", LESSON, "--image", "a.jpg"], 2, ".png"),
    "resume of nothing": (["resume", "none.zarr"], 3, "no store at none.zarr"),
    "resume of a folder": (["resume", "theirs"], 3, "not a store of mandeldask"),
    "resume with no kernel": (["resume", "ours.zarr", "--kernel", "nunba"], 2, "numba"),
    "no workers": (["resume", "ours.zarr", "--workers", "0"], 2, "workers must be at least 1"),
    "image of nothing": (["image", "none.zarr", "a.png"], 3, "no store at none.zarr"),
    "image to nowhere": (["image", "ours.zarr", "none/a.png"], 2, "none"),
    "unknown colours": (["image", "ours.zarr", "a.png", "--colormap", "virdis"], 2, "viridis"),
    "checksum of nothing": (["checksum", "none.zarr"], 3, "no store at none.zarr"),
    "a kernel that is none": (["run", LESSON, "--kernel", "nunba"], 2, "numba, cuda, deep or auto; got 'nunba'"),
    "a dashboard as cluster": (
        ["run", LESSON, "--cluster", "http://127.0.0.1:8787"],
        2,
        "cluster.address must be that of a scheduler, tcp://HOST:PORT or tls://HOST:PORT (http:// is that of its "
        "dashboard); got 'http://127.0.0.1:8787'",
    ),
    "a picture's option": (
        ["run", LESSON, "--set", "picture.scale=lgo"],
        2,
        f"{LESSON}: picture: scale must be one of mix, log, equalised, root, linear; got 'lgo'; did you mean log?",
    ),
    "a large file to explore": (["explore", "large.png", "--no-browser"], 2, "large.png: is no description: that is"),
    "unknown command": (["rum"], 2, "No such command"),
}


@pytest.mark.parametrize(("words", "exit_code", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_message_and_changes_nothing(finished, tmp_path, words, exit_code, message):
    (tmp_path / "a-file").write_text("mine")
    (tmp_path / "large.png").write_bytes(bytes(2**17))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/notes.txt").write_text("precious")
    shutil.copytree(finished[0] / "lesson.zarr", tmp_path / "ours.zarr")
    before = contents(tmp_path)
    code, out, err = invoke(*words, cwd=tmp_path)
    assert (code, out) == (exit_code, ""), err
    assert message in err
    assert "Traceback" not in err
    assert contents(tmp_path) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_picture_from_elsewhere_is_left_alone_and_the_run_is_done_all_the_same(finished, tmp_path):
    (tmp_path / "photo.png").write_bytes(b"mine")
    (tmp_path / "folder.png").mkdir()
    shutil.copytree(finished[0] / "lesson.zarr", tmp_path / "folder.zarr")
    for run, name, computed in ((call, "photo", 6), (invoke, "folder", 0)):
        code, out, err = run("run", LESSON, *SMALL, "--out", f"{name}.zarr", "--json", cwd=tmp_path)
        assert (code, json.loads(out)["picture"], json.loads(out)["computed"]) == (0, None, computed)
        assert "no picture will be made" in err
    assert (tmp_path / "photo.png").read_bytes() == b"mine"


def test_overwrite_leaves_alone_what_lies_in_or_around_a_store(finished):
    cwd, _ = finished
    (cwd / "lesson.zarr/notes.txt").write_text("precious")
    code, _, err = invoke("run", LESSON, *SMALL, "--overwrite", cwd=cwd)
    assert (code, "also holds notes.txt" in err) == (3, True)
    (cwd / "lesson.zarr/notes.txt").unlink()
    code, _, err = invoke("run", LESSON, *SMALL, "--out", "lesson.zarr/sub.zarr", cwd=cwd)
    assert (code, "lies inside" in err) == (3, True)


def test_an_unfinished_store_is_said_to_be_so(finished, tmp_path):
    shutil.copytree(finished[0] / "lesson.zarr", tmp_path / "a.zarr")
    (tmp_path / "a.zarr/0/escape_time/c/0/0").unlink()
    code, _, err = invoke("checksum", "a.zarr", cwd=tmp_path)
    assert (code, "1 tile not computed yet" in err) == (4, True)
    code, _, err = invoke("image", "a.zarr", "a.png", cwd=tmp_path)
    assert (code, "1 tile not computed yet: grey" in err) == (0, True)


def test_files_that_look_like_leftovers_are_not(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/movie.partial").write_text("precious")
    code, _, err = invoke("run", LESSON, *SMALL, "--out", "downloads", cwd=tmp_path)
    assert code == 3, err
    assert (tmp_path / "downloads/movie.partial").read_text() == "precious"


def test_an_error_under_json_is_json_too(tmp_path):
    code, out, err = invoke("run", LESSON, "--set", "max_iter=0", "--json", cwd=tmp_path)
    assert code == 2
    assert json.loads(out) == {"error": err.removeprefix("mandeldask: ").strip(), "exit_code": 2}


def test_a_run_on_a_store_of_another_field_names_what_differs(finished):
    cwd, _ = finished
    before = contents(cwd)
    code, _, err = invoke("run", LESSON, *SMALL, "--set", "max_iter=99", cwd=cwd)
    assert code == 3
    assert "max_iter is 100 there, 99 here" in err
    assert contents(cwd) == before


@pytest.mark.parametrize(
    ("number", "to_group", "exit_code"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143), (signal.SIGHUP, True, 129)],
    ids=["Ctrl-C", "SIGTERM", "terminal closed"],
)
def test_a_run_listens_on_loopback_only_and_an_interrupted_one_stops_its_processes_and_says_how_to_resume(
    tmp_path, number, to_group, exit_code
):
    process = start("run", LESSON, *LONG, cwd=tmp_path, start_new_session=True)
    wait_for_workers(process, 2)
    children = psutil.Process(process.pid).children(recursive=True)
    listening = [address for each in (psutil.Process(process.pid), *children) for address in addresses(each)]
    assert len(listening) >= 4  # scheduler, dashboard, two workers
    assert set(listening) == {"127.0.0.1"}
    (os.killpg if to_group else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == exit_code
    assert "mandeldask resume lesson.zarr" in err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert "lease" not in open_store(tmp_path / "lesson.zarr").read_notes()


def test_a_second_ctrl_c_ends_a_run_at_once_and_leaves_no_warning(tmp_path):
    process = start("run", LESSON, *LONG, cwd=tmp_path, start_new_session=True)
    wait_for_workers(process, 2)
    os.killpg(process.pid, signal.SIGINT)
    said = iter(process.stderr.readline, "")
    assert next(line for line in said if "press Ctrl-C again" in line)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert "Warning" not in err and "Traceback" not in err


def wait_for_workers(process, n):
    """Until n worker processes listen."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        if sum(bool(addresses(child)) for child in psutil.Process(process.pid).children(recursive=True)) >= n:
            return
        time.sleep(0.05)
    raise AssertionError("no workers came up")


def addresses(process):
    """Those that a process listens at."""
    try:
        return [c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    except (psutil.Error, FileNotFoundError):  # gone in the meantime
        return []


def test_a_full_disk_is_told_and_loses_nothing(tmp_path):
    """A real file system of 700 kB: some tiles fit, the rest do not, and resume finishes once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k,nr_inodes=1000", "none", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        skip_or_fail("mounting a small tmpfs needs root")
    try:
        view = "view={centre: [-0.7436, 0.1318], span: 1e-3, shape: [1200, 1200]}"
        field = [view, "tile=[200,200]", "max_iter=500", "kernel=numba", "cluster.workers=2"]
        options = [word for setting in field for word in ("--set", setting)]
        code, _, err = call("run", LESSON, *options, "--out", disk / "a.zarr", "--no-image", cwd=tmp_path)
        assert code == 3, err
        assert "No space left on device" in err
        assert f"mandeldask resume {disk / 'a.zarr'}" in err
        assert "Traceback" not in err
        store = open_store(disk / "a.zarr")
        done = store.done()
        assert 0 < done.sum() < done.size
        for tile in np.argwhere(done).tolist():
            assert store.read(tuple(tile)).min() > 0
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        assert call("resume", disk / "a.zarr", "--no-image", "--workers", "1", cwd=tmp_path)[0] == 0
        whole = KERNELS["numba"](500)(load(LESSON, field).view.block((0, 1200), (0, 1200)))
        assert np.array_equal(store.escape_time[:], whole)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_that_cannot_be_read_is_told_in_a_line(tmp_path):
    group = Commands("mandeldask", commands=[click.Command("read", callback=(tmp_path / "none/zarr.json").read_bytes)])
    done = CliRunner().invoke(group, ["read"])
    assert done.exit_code == 3
    assert done.stderr.startswith(f"mandeldask: No such file or directory: {tmp_path}/none/zarr.json")
    assert done.stderr.count("\n") == 1


def test_a_connection_that_is_lost_where_none_should_be_is_a_bug_and_told_as_one():
    def lose():
        raise ConnectionResetError("by peer")

    done = CliRunner().invoke(Commands("mandeldask", commands=[click.Command("lose", callback=lose)]), ["lose"])
    assert isinstance(done.exception, ConnectionResetError)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_callback_of_the_garbage_collector_ends_the_run_too(number, capfd):
    """Dask has such a callback, and Python ignores what is raised there."""

    def callback(phase, info):
        gc.callbacks.remove(callback)
        signal.raise_signal(number)

    def collect():
        gc.callbacks.append(callback)
        gc.collect()
        time.sleep(DEADLINE)

    with pytest.raises(KeyboardInterrupt) as told, signals_end_in_order():
        collect()
    assert told.value.args == (number,)
    assert capfd.readouterr().err.count("stopping the workers") == 1
