"""What the README shows holds: its Python runs, its run description is one, its commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mandeldask.cli import cli
from mandeldask.config import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_of_the_readme_runs(tmp_path):
    """The API in its few lines; the block for a remote scheduler needs one, and is left to the tests of clusters."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    local = [block for block in blocks("python") if "tcp://" not in block]
    assert len(local) == 2
    script = tmp_path / "readme.py"
    lines = "".join(local).replace("field.sum().compute() ", "assert field.sum().compute() == 20943298 ")
    script.write_text(lines.replace('md.open("lesson.zarr") ', 'print(type(md.open("lesson.zarr")).__name__) '))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Dataset\n"), done.stderr


def test_the_run_description_of_the_readme_is_one(tmp_path):
    (description,) = blocks("yaml")
    (tmp_path / "a.yaml").write_text(description)
    assert load(tmp_path / "a.yaml").max_iter == 100


COMMANDS = [
    line[2:].split("#")[0].split() for block in blocks("console") for line in block.splitlines() if line[:2] == "$ "
]


@pytest.mark.parametrize("words", [c for c in COMMANDS if c[0] == "mandeldask"], ids=" ".join)
def test_a_command_of_the_readme_parses(words):
    result = CliRunner().invoke(cli, [*words[1:], "--help"])
    assert result.exit_code == 0, result.output


def test_files_that_the_readme_names_are_there():
    for name in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / name).exists(), name
