"""A scheduler that runs already: its address or its file -> a connected Client.

Dask's Client waits without end for the first words of whatever has the port, so the scheduler is asked who it is first,
within a time limit (distributed 2026.8).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import ssl
import warnings
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from distributed import Client, rpc
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.security import Security
from distributed.utils import silence_logging_cmgr
from distributed.versions import VersionMismatchWarning

from mandeldask.config import SchedulerAddress, SchedulerFile
from mandeldask.config.clusters import ADDRESS
from mandeldask.errors import ClusterError

PORT = 8786  # of a scheduler that was told no other
ANSWER_SECONDS = 5.0
CERTIFICATES = {"ca_file": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}


@contextmanager
def connected(cluster: SchedulerAddress | SchedulerFile) -> Iterator[Client]:
    """A client of a scheduler that runs already, and goes on when the context ends.

    Raises
    ------
    ClusterError
        The scheduler's file, host, port or certificates are wrong; within seconds.
    """
    address = cluster.address if isinstance(cluster, SchedulerAddress) else _address_in(cluster.path)
    with silence_logging_cmgr(logging.CRITICAL):
        security = _security(cluster, address)
        try:
            _knock(address)
            _ask_who_it_is(address, security)
            client = _client(address, security)
        except ClusterError as error:
            if isinstance(cluster, SchedulerAddress):
                raise
            remedy = f"{cluster.path} has that address: if its scheduler ended, start it again"
            raise ClusterError(f"{error}. {remedy}") from None
        with client:
            yield client


def _address_in(path: str) -> str:
    """The address that `dask scheduler --scheduler-file` wrote."""
    remedy = "a scheduler writes it when it has started: dask scheduler --scheduler-file FILE"
    try:
        with open(path, encoding="utf-8") as file:
            address = json.load(file)["address"]
    except OSError as error:
        raise ClusterError(f"cannot read the scheduler file {path}: {error.strerror or error}; {remedy}") from None
    except (ValueError, LookupError, TypeError):
        address = None
    if not isinstance(address, str) or not re.fullmatch(ADDRESS, address):
        raise ClusterError(f"{path} is not a scheduler file: it holds no address; {remedy}")
    return address


def _security(cluster: SchedulerAddress | SchedulerFile, address: str) -> Security | None:
    """The certificates of the description, else those of Dask's settings; None where the address needs none."""
    if parse_address(address)[0] not in ("tls", "wss"):
        return None
    given = {CERTIFICATES[key]: path for key in CERTIFICATES if (path := getattr(cluster, key))}
    security = Security(**given, require_encryption=True)
    for key, name in CERTIFICATES.items():
        path = getattr(security, name)
        if path and "\n" not in path:  # Dask takes the text itself too
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise ClusterError(f"cannot read {key}: {path}: {error.strerror or error}") from None
    try:
        context = security.get_connection_args("client").get("ssl_context")
    except (ssl.SSLError, ValueError) as error:
        raise _tls_error(address, f"not PEM, or a key of another certificate: {_reason(error)}") from None
    if context is None:
        raise _tls_error(address, "no ca_file is named, or no cert")
    return security


def _knock(address: str) -> None:
    """Dask tries an address again and again: whether anything listens there is known at once."""
    try:
        host, port = parse_host_port(parse_address(address)[1], PORT)
        port = int(port)
    except ValueError:
        host, port = "", 0
    if not host or not 0 < port < 2**16:
        raise ClusterError(f"{address} is not the address of a scheduler: tcp://HOST:PORT or tls://HOST:PORT")
    try:
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
    except socket.gaierror as error:
        raise ClusterError(f"cannot find the host {host} of {address}: {error.strerror}; check its name") from None
    except ConnectionRefusedError:
        raise ClusterError(
            f"nothing is listening on {address}: start `dask scheduler` there, or check host and port (it prints its "
            "address)"
        ) from None
    except TimeoutError:
        raise ClusterError(
            f"no answer from {address} within {ANSWER_SECONDS:.0f} s: the host is down, or a firewall is in between; "
            "a tunnel may help: ssh -L 8786:HOST:8786 LOGIN, then tcp://127.0.0.1:8786"
        ) from None
    except OSError as error:
        raise ClusterError(f"cannot reach {address}: {error.strerror or error}") from None


def _ask_who_it_is(address: str, security: Security | None) -> None:
    try:
        kind = _in_a_thread(_identity(address, security))
    except Exception as error:  # whatever Dask makes of what another program sends
        if security and not isinstance(error, TimeoutError):
            raise _tls_error(address, _reason(error)) from None
        raise ClusterError(
            f"{address} takes connections but does not answer as a scheduler does: another program has this port (a "
            f"scheduler has {PORT} where none is given, its dashboard 8787), the scheduler wants TLS (tls://), or it "
            "hangs"
        ) from None
    if kind != "Scheduler":
        raise ClusterError(f"{address} is a {kind.lower()}: give the address that `dask scheduler` prints")


async def _identity(address: str, security: Security | None) -> str:
    """What kind of Dask server answers."""
    arguments = security.get_connection_args("client") if security else {}
    server: Any = rpc(address, timeout=ANSWER_SECONDS, connection_args=arguments)
    try:
        answer = await asyncio.wait_for(server.identity(), ANSWER_SECONDS)
        return str(answer["type"])
    finally:
        await server.close_rpc()


def _in_a_thread(work: Coroutine[Any, Any, str]) -> str:
    """The result of a coroutine, in a notebook too, where this thread has an event loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _client(address: str, security: Security | None) -> Client:
    try:
        with warnings.catch_warnings():  # `preflight.check` tells of versions, and what of them matters
            warnings.simplefilter("ignore", VersionMismatchWarning)
            return Client(address, security=security, timeout=2 * ANSWER_SECONDS)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ClusterError(f"cannot connect to the scheduler at {address}: {_reason(error)}") from None


def _tls_error(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"no TLS connection with {address} ({reason}). Both sides need TLS (tls:// here, --protocol tls there) and "
        "certificates of the authority in ca_file that are not expired: `openssl x509 -noout -issuer -dates -in CERT`. "
        "ca_file, cert and key are named in the cluster description, or in Dask's settings (distributed.comm.tls)"
    )


def _reason(error: BaseException) -> str:
    """The innermost error, in words."""
    while error.__cause__:
        error = error.__cause__
    text = str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error or type(error).__name__)
    return text.splitlines()[0].replace("_", " ").lower() if isinstance(error, ssl.SSLError) else text
