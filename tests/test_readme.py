"""What README pages show holds: their Python runs, their run description is one, their commands exist."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mandeldask.cli import cli
from mandeldask.config import load
from mandeldask.job.graph import written_tiles

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *ROOT.glob("mandeldask/*/*.md"))}


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_python_of_the_readme_runs(tmp_path):
    """The API in its few lines; what is submitted outlives its script, and is left to the tests of that."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    local = [block for block in blocks("python") if "submit" not in block]
    assert len(local) == 2
    script = tmp_path / "readme.py"
    lines = "".join(local).replace("field.sum().compute() ", "assert field.sum().compute() == 20943298 ")
    script.write_text(lines.replace('md.open("lesson.zarr") ', 'print(type(md.open("lesson.zarr")).__name__) '))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Dataset\n"), done.stderr


def test_the_three_lines_of_the_main_path_are_those_of_the_code():
    (lines,) = blocks("text")
    source = [line.strip() for line in inspect.getsource(written_tiles).splitlines()]
    assert source[-3:] == lines.splitlines()


def test_the_run_description_that_is_shown_is_one(tmp_path):
    (description,) = blocks("yaml", PAGES[ROOT / "mandeldask/config/README.md"])
    (tmp_path / "a.yaml").write_text(description)
    assert load(tmp_path / "a.yaml").max_iter == 100


SHOWN = "".join(PAGES.values()).replace("\\\n", " ")
COMMANDS = dict.fromkeys(line.split("#")[0].strip() for line in re.findall(r"(?m)^\$ (mandeldask .*)", SHOWN))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_shown_parses(command):
    words = shlex.split(command)
    result = CliRunner().invoke(cli, [*words[1:], "--help"])
    assert result.exit_code == 0, result.output


def test_files_that_the_pages_name_are_there():
    for page, text in PAGES.items():
        for name in re.findall(r"\]\(((?!http)[^)#]+)", text):
            assert (page.parent / name).exists(), (page, name)


def test_tests_that_the_pages_name_are_there():
    files = {path.name: path.read_text() for path in (ROOT / "tests").glob("*.py")}
    there = {name for text in files.values() for name in re.findall(r"def (test_\w+)\(", text)}
    shown = "".join(PAGES.values())
    assert set(re.findall(r"`(test_\w+)`", shown)) - there == set()
    assert set(re.findall(r"`tests/(\w+\.py)`", shown)) - files.keys() == set()
