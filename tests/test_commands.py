"""Every command that a page shows is run, in the page's order, and zsh reads it as bash does.

What takes long is made small: the descriptions beside the package are small copies, which names such as `gigapixel`
find, and films are short.
NOT_RUN says of each command that is left out why.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import skip_or_fail
from services import ENV, free_port, poll

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("mandeldask/*/*.md"))]
NOT_RUN = {
    r"^scripts/run$": "what it does is run by name: mandeldask run configs/lesson.yaml",
    r"^scripts/test$": "this is it",
    r"scripts/test ": "it runs for long; the file that it names is run with fewer rounds",
    r"^ssh ": "needs a host to log in to",
    r"^\. ": "the tests have an environment already",
    r"slurm\.yaml --|run .*slurm\.yaml": "needs a batch system: tests/test_slurm.py",
    r"tls|openssl|^for ": "needs another port and protocol: tests/test_tls.py",
    r"^mandeldask lab ": "takes a minute even when it is quick: tests/test_lab_report.py, tests/test_lab_strategies.py",
}
# What is added to a command so that it ends soon; nothing is taken from it
SHORTER = {
    r"^mandeldask zoom --": "--size 160x90 --seconds 1",
}
SMALL = 12  # times fewer samples a side
SECONDS = 240  # of one command, on a busy machine


def commands(page):
    """The commands of a page's console blocks, each on one line and without its comment."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)).replace("\\\n", " ")
    lines = re.findall(r"(?m)^\$ (.*)", blocks)
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines]


def small(text):
    """The description with fewer samples: a twelfth of the rows and columns, but for the lesson's; a short film."""

    def fewer(match):
        return f"{match[1]}[{int(match[2]) // SMALL}, {int(match[3]) // SMALL}]"

    text = re.sub(r"(?m)^(size: )\[.*\]", r"\1[160, 90]", re.sub(r"(?m)^seconds: .*", "seconds: 1", text))
    text = re.sub(r"(?m)^(tile: )\[.*\]", r"\1[128, 128]", text) if "[1000, 1000]" not in text else text
    return re.sub(r"(?m)^( *shape: )\[((?!1000)\d+), (\d+)\]", fewer, text)


@pytest.fixture
def folder(tmp_path):
    """A checkout to type commands in: its descriptions are small, and come with the mandeldask that is run."""
    for path in (ROOT / "configs").rglob("*.yaml"):
        name = path.relative_to(ROOT / "configs")
        text = path.read_text()
        if name.parts[0] != "clusters":
            text = small(text)
        copy = tmp_path / "configs" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)
    (tmp_path / "mandeldask").symlink_to(ROOT / "mandeldask")
    return tmp_path


class Typist:
    """Types the commands of a page into bash; servers go on until the end."""

    def __init__(self, folder, stack):
        self.folder, self.stack, self.port = folder, stack, str(free_port())
        bin_folder = Path(sys.executable).parent
        path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
        self.env = ENV | {"PATH": path, "PYTHONPATH": str(folder), "BROWSER": "true"}

    def type(self, line):
        for pattern, more in SHORTER.items():
            if re.search(pattern, line):
                line = f"{line} {more}"
        line = line.replace("8786", self.port).replace(":8787", ":0")
        if line.startswith("dask scheduler"):
            more = "" if self.port in line else f" --port {self.port}"
            self.serve(f"{line}{more} --scheduler-file scheduler.json", "Scheduler at", signal.SIGTERM)
        elif line.startswith("dask worker"):
            self.serve(line, "Registered to", signal.SIGTERM)
        elif line.startswith("mandeldask explore"):
            self.serve(line, "http://", signal.SIGINT)
        elif "--keep-dashboard" in line:
            self.serve(line, "Enter", None)
        else:
            done = subprocess.run(["bash", "-c", line], **self.where, capture_output=True, timeout=SECONDS, check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"

    @property
    def where(self):
        return {"cwd": self.folder, "env": self.env, "text": True, "stdin": subprocess.PIPE}

    def serve(self, line, ready, end):
        """Start what goes on until `end`, a signal or else Enter, and wait until it prints `ready`."""
        self.stack.enter_context(serving(line, ready, end, self.where))


@contextmanager
def serving(line, ready, end, where):
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(["bash", "-c", f"exec {line}"], **where, **both, start_new_session=True)
    printed = []
    threading.Thread(target=lambda: printed.extend(iter(process.stdout.readline, "")), daemon=True).start()
    try:
        poll(lambda: any(ready in text for text in printed) or process.poll() is not None, line, SECONDS)
        assert process.poll() is None, f"{line}\n{''.join(printed)}"
        yield
        if end is None:
            process.stdin.write("\n")
            process.stdin.flush()
        else:
            process.send_signal(end)
        assert process.wait(SECONDS) in (0, -signal.SIGTERM), f"{line}\n{''.join(printed)}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_here(page):
    return [line for line in commands(page) if not any(re.search(pattern, line) for pattern in NOT_RUN)]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if run_here(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_commands_of_a_page_do_what_they_say(page, folder):
    lines = run_here(page)
    with ExitStack() as stack:
        typist = Typist(folder, stack)
        servers = [line for line in lines if line.startswith("dask ")]
        if any("8786" in line for line in lines):
            for line in servers or [line for line in commands(PAGES[0]) if line.startswith("dask ")]:
                typist.type(line)
        for line in lines:
            if line not in servers:
                typist.type(line)


RECORDER = """#!{python}
import json, sys
print(json.dumps(sys.argv[1:]))
"""


def test_zsh_reads_each_command_as_bash_does(tmp_path):
    """Each shell hands the same words to the program, so what bash runs, zsh runs too."""
    if not shutil.which("zsh"):
        skip_or_fail("needs zsh")
    for name in ("mandeldask", "dask", "python", "ssh", "openssl"):
        (tmp_path / name).write_text(RECORDER.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    lines = [line for page in PAGES for line in commands(page) if not re.search(r"scripts/|^(\. |for |export )", line)]
    read = {}
    for shell in ("bash", "zsh"):
        told = {"env": {"PATH": f"{tmp_path}:/usr/bin:/bin"}, "capture_output": True, "text": True}
        read[shell] = subprocess.run([shell, "-c", "\n".join(lines)], **told, check=False)
    assert read["zsh"].stderr == read["bash"].stderr == ""
    assert read["zsh"].stdout == read["bash"].stdout
    assert len(read["bash"].stdout.splitlines()) == len(lines)
