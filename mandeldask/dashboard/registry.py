"""Where the dashboards of this user's runs on this machine are: a small file for each process, gone when it is."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class RunningDashboard:
    """The dashboard of a run that goes on."""

    link: str
    store: str
    pid: int
    created: float  # when its process was, Unix time: numbers of processes come again
    started: float


@contextmanager
def announced(link: str, store: str) -> Iterator[None]:
    """Let `running` find this process's dashboard until the context ends. Costs nothing where it cannot be written."""
    announce(link, store, os.getpid())
    try:
        yield
    finally:
        with suppress(OSError):
            _file(os.getpid()).unlink(missing_ok=True)


def announce(link: str, store: str, pid: int) -> None:
    """Let `running` find the dashboard of a process while it lives."""
    path = _file(pid)
    part = path.with_suffix(f".{os.getpid()}.part")  # whoever looks in the meantime finds the whole file or none
    with suppress(OSError, psutil.Error):
        run = RunningDashboard(link, store, pid, psutil.Process(pid).create_time(), time.time())
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if _is_ours(path.parent):
            part.write_text(json.dumps(asdict(run)))
            os.replace(part, path)


def running() -> list[RunningDashboard]:
    """The runs of this user on this machine that live, the latest first."""
    found = []
    folder = _folder()
    for path in folder.glob("*.json") if _is_ours(folder) else ():
        try:
            run = RunningDashboard(**json.loads(path.read_text()))
            lives = abs(psutil.Process(run.pid).create_time() - run.created) < 1
        except (OSError, ValueError, TypeError, psutil.Error):
            lives = False
        if lives:
            found.append(run)
        else:
            with suppress(OSError):
                path.unlink()
    return sorted(found, key=lambda run: -run.started)


def _folder() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base, "mandeldask") if base else Path(tempfile.gettempdir(), f"mandeldask-{os.getuid()}")


def _file(pid: int) -> Path:
    return _folder() / f"{pid}.json"


def _is_ours(folder: Path) -> bool:
    """A folder of this user that nobody else can write: /tmp is everybody's."""
    try:
        stat = folder.lstat()
    except OSError:
        return False
    return folder.is_dir() and not folder.is_symlink() and stat.st_uid == os.getuid() and not stat.st_mode & 0o022
