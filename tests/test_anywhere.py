"""Without a checkout: configs by their names, a wheel in an environment of its own, and hints that can be typed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import mandeldask as md
from mandeldask.cli import cli
from mandeldask.cli.init import NEXT
from mandeldask.config import load, load_cluster, shipped
from mandeldask.explorer import open_scene
from mandeldask.text import pip_install
from mandeldask.zoom import read_film

ROOT = Path(__file__).parent.parent
SMALL = ["--set", "view.shape=[20,20]", "--set", "tile=null", "--set", "cluster.workers=1"]


def call(*words, cwd, env=None):
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": ""} | (env or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The programs of an environment in which the wheel is installed, and that borrows what this one has."""
    folder = tmp_path_factory.mktemp("installed")
    made = call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT, cwd=folder)
    assert made.returncode == 0, made.stderr
    (wheel,) = folder.glob("mandeldask-*.whl")
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv/bin/python"
    done = call(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("venv/lib/*/site-packages")
    (site / "borrowed.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")))
    return folder / "venv/bin"


def test_a_wheel_runs_the_lesson_by_its_name_and_prints_a_command_that_works(installed, tmp_path):
    done = call(installed / "mandeldask", "run", "lesson", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    hint = re.search(r"next +(.*large\.png)", done.stderr)[1]
    assert hint.startswith(str(installed))
    assert call(*shlex.split(hint), cwd=tmp_path).returncode == 0
    assert (tmp_path / "large.png").is_file()
    listed = call(installed / "mandeldask", "init", cwd=tmp_path).stdout
    assert [line.split()[0] for line in listed.splitlines() if " A film " in line] == [
        "films/leaves",
        "films/seahorse-valley",
    ]


@pytest.mark.parametrize("how", ["below", "elsewhere", "module", "on PATH", "another on PATH"])
def test_a_hint_names_the_program_as_it_can_be_called_here(installed, tmp_path, how):
    (tmp_path / "mandeldask").write_text("#!/bin/sh\n")
    (tmp_path / "mandeldask").chmod(0o755)
    program, python = installed / "mandeldask", installed / "python"
    cwd = installed.parent.parent if how == "below" else tmp_path
    words = [python, "-m", "mandeldask"] if how == "module" else [program]
    first = {"on PATH": installed, "another on PATH": tmp_path}.get(how, "/usr/bin")
    said = call(*words, "checksum", "a b.zarr", cwd=cwd, env={"PATH": f"{first}:/usr/bin:/bin"}).stderr
    here = {"below": "venv/bin/mandeldask", "module": f"{python} -m mandeldask", "on PATH": "mandeldask"}
    assert f"`{here.get(how, program)} run CONFIG --out 'a b.zarr'`" in said


def test_an_extra_is_installed_from_the_checkout_or_by_name(installed, tmp_path, monkeypatch):
    program = "from mandeldask.text import pip_install; print(pip_install('zoom'))"
    assert call(installed / "python", "-c", program, cwd=tmp_path).stdout == "pip install 'mandeldask[zoom]'\n"
    pip = Path(sys.executable).parent / "pip"
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", "/usr/bin")
    assert pip_install("zoom") == f"{os.path.relpath(pip) if pip.is_relative_to(ROOT) else pip} install '.[zoom]'"
    monkeypatch.setenv("PATH", f"{pip.parent}:/usr/bin")
    assert pip_install("zoom") == "pip install '.[zoom]'"
    monkeypatch.setattr("mandeldask.text.distribution", lambda _: Installed())  # by `pip install .`
    assert pip_install("zoom") == "pip install '.[zoom]'"


class Installed:
    def read_text(self, _):
        return json.dumps({"dir_info": {}, "url": ROOT.as_uri()})


def test_each_description_runs_by_its_name(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["view.shape=[20,20]", "tile=null"]
    assert md.run("lesson", client=client, overrides=small).samples == 400
    assert load("gallery/shell") == load(ROOT / "configs/gallery/shell.yaml")
    assert open_scene("seahorse-valley").view == load("seahorse-valley").view
    assert read_film("films/seahorse-valley")["fps"] == 30
    (tmp_path / "lesson").write_text((ROOT / "configs/mini-set.yaml").read_text())
    assert load("lesson") == load("mini-set"), "a file comes first"


@pytest.mark.parametrize("words", [["run"], ["submit"], ["zoom"], ["init"]])
def test_an_unknown_name_is_told_with_one_that_is_like_it(tmp_path, words):
    done = call(sys.executable, "-m", "mandeldask", *words, "configs/mini-sett.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean `mini-set`?" in done.stderr and "init` lists those that do" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", shipped())
def test_init_writes_a_description_to_edit_and_overwrites_none(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    file, target = shipped()[name], tmp_path / f"{Path(name).name}.yaml"
    done = CliRunner().invoke(cli, ["init", name])
    assert done.exit_code == 0, done.output
    assert "$schema" not in target.read_text() and file.read_text().endswith(target.read_text())
    assert f" {NEXT.get(file.parent.name, ('run',))[0]} " in done.output
    title = target.read_text().partition("\n")[0]
    assert title.startswith("# ") and title.endswith(".")
    read = {"clusters": load_cluster, "films": read_film}.get(file.parent.name, load)
    assert read(str(target)) == read(str(file))
    target.write_text("mine")
    assert CliRunner().invoke(cli, ["init", name]).exit_code == 2
    assert target.read_text() == "mine"
