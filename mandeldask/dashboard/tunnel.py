"""Whether a dashboard can be seen from here, and if not, what is to be typed."""

from __future__ import annotations

import ipaddress
import os
import socket
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import psutil

TIMEOUT_SECONDS = 5.0


def problem_with(link: str) -> str:
    """Fetch a page; gives what is wrong, or "" where it is there."""
    if urlsplit(link).scheme not in ("http", "https"):
        return f"{link} is no address of a web page"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a cluster is not behind the proxy
    try:
        with direct.open(link, timeout=TIMEOUT_SECONDS) as response:
            return "" if response.status == 200 else f"HTTP {response.status}"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except urllib.error.URLError as error:
        return str(getattr(error.reason, "strerror", None) or error.reason)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


def ssh_tunnel(link: str) -> tuple[str, str] | None:
    """The ssh command to type on one's own machine, and the link that then works there; None where none is needed."""
    parts = urlsplit(link)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    here = _is_here(host)
    by_ssh = os.environ.get("SSH_CONNECTION", "").split()
    if here and len(by_ssh) != 4:
        return None
    login = by_ssh[2] if here else host
    target = f"[{host}]" if ":" in host else host
    return f"ssh -N -L {port}:{target}:{port} {login}", f"{parts.scheme}://localhost:{port}{parts.path}"


def _is_here(host: str) -> bool:
    try:
        if ipaddress.ip_address(host).is_loopback:
            return True
    except ValueError:
        return host in ("localhost", socket.gethostname())
    return any(host == address.address for each in psutil.net_if_addrs().values() for address in each)
