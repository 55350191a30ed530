"""Where the dashboards of this user's runs on this machine are, and whether one can be seen from here."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class RunningDashboard:
    """The dashboard of a run that goes on."""

    link: str
    store: str
    pid: int
    announced: float  # Unix time


def announce(link: str, store: str, pid: int) -> None:
    """Let `running` find the dashboard of a process while it lives. Costs nothing where it cannot be written."""
    with suppress(OSError):
        _folder().mkdir(parents=True, exist_ok=True)
        (_folder() / str(pid)).write_text(json.dumps([link, store]))


def running() -> list[RunningDashboard]:
    """The runs of this user on this machine that live, the latest first."""
    found = []
    with suppress(OSError):
        for path in list(_folder().iterdir()):
            written = path.stat().st_mtime
            try:
                lives = psutil.Process(int(path.name)).create_time() <= written  # else it has another's number
            except (ValueError, psutil.Error):
                lives = False
            if not lives:
                path.unlink()
                continue
            with suppress(ValueError):  # it is being written
                link, store = json.loads(path.read_text())
                found.append(RunningDashboard(link, store, int(path.name), written))
    return sorted(found, key=lambda run: -run.announced)


def _folder() -> Path:
    """The folder of this machine: a home may be shared by several."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "mandeldask", "dashboards", socket.gethostname())


def problem_with(link: str) -> str:
    """Fetch a page; gives what is wrong, or "" where it is there."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a cluster is not behind the proxy
    try:
        with direct.open(link, timeout=TIMEOUT_SECONDS):
            return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return str(getattr(reason, "strerror", None) or reason)


def ssh_tunnel(link: str) -> tuple[str, str] | None:
    """The ssh command to type on one's own machine, and the link that then works there; None where none is needed."""
    parts = urlsplit(link)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    here = host in ("localhost", "127.0.0.1", "::1", socket.gethostname())
    by_ssh = os.environ.get("SSH_CONNECTION", "").split()
    if here and len(by_ssh) != 4:
        return None
    login = by_ssh[2] if here else host
    target = f"[{host}]" if ":" in host else host
    return f"ssh -N -L {port}:{target}:{port} {login}", f"{parts.scheme}://localhost:{port}{parts.path}"
