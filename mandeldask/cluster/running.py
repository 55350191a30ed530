"""A scheduler that runs already: its address or its file -> a connected Client.

Dask tries a bad address again and again, and tells of a wrong certificate in many ways; so the way there is walked in
steps before its Client is made, each with a message of its own: the file, the name of the host, the port, the
certificates, and who it is that answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import ssl
import warnings
from collections.abc import Iterator
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
STEP_SECONDS = 5.0  # for each step on the way to the scheduler
CONNECT_SECONDS = 10
MAX_GREETING = 2**20  # bytes; Dask's first message is some 100
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
            _probe(address, security)
        except ClusterError as error:
            if isinstance(cluster, SchedulerFile):
                raise ClusterError(
                    f"{error}. {cluster.path} has that address: if its scheduler ended, start it again"
                ) from None
            raise
        try:
            with warnings.catch_warnings():  # `preflight.check` tells of versions, and what of them matters
                warnings.simplefilter("ignore", VersionMismatchWarning)
                client = Client(address, security=security, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, TypeError, ImportError) as error:
            raise ClusterError(f"cannot connect to the scheduler at {address}: {_reason(error)}") from None
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
        raise ClusterError(f"{path} is no scheduler file: it holds no address; {remedy}")
    return address


def _security(cluster: SchedulerAddress | SchedulerFile, address: str) -> Security | None:
    """The certificates of the description, else those of Dask's settings; None where the address needs none."""
    if parse_address(address)[0] not in ("tls", "wss"):
        return None
    given = {CERTIFICATES[key]: path for key in CERTIFICATES if (path := getattr(cluster, key))}
    security = Security(**given, require_encryption=True)
    for key, name in CERTIFICATES.items():
        path = getattr(security, name)
        if not path and key != "key":  # the key may stand in the certificate's file
            raise _wrong_certificate(address, f"no {key} is named")
        if path and "\n" not in path:  # Dask takes the text itself too
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise ClusterError(f"cannot read {key}: {path}: {error.strerror or error}") from None
    try:
        security.get_connection_args("client")
    except (ssl.SSLError, ValueError) as error:
        raise _wrong_certificate(address, f"not PEM, or a key of another certificate: {_reason(error)}") from None
    return security


def _wrong_certificate(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"no TLS connection with {address} ({reason}). Both sides need TLS (tls:// here, --protocol tls there) and "
        "certificates of the authority in ca_file that are not expired: `openssl x509 -noout -issuer -dates -in CERT`. "
        "ca_file, cert and key are named in the cluster description, or in Dask's settings (distributed.comm.tls)"
    )


def _probe(address: str, security: Security | None) -> None:
    """Raise ClusterError at the first step to the scheduler that cannot be taken."""
    protocol, location = parse_address(address)
    try:
        host, port = parse_host_port(location, PORT)
        port = int(port)
    except ValueError:
        host, port = "", 0
    if not host or not 0 < port < 2**16:
        raise ClusterError(f"{address} is no address of a scheduler: tcp://HOST:PORT or tls://HOST:PORT")
    with _open(address, host, port) as plain:
        if protocol == "tls" and security:
            _greeting(address, plain, security.get_connection_args("client")["ssl_context"])
        elif protocol == "tcp":
            try:
                _greeting(address, plain, None)
            except ClusterError:
                if _speaks_tls(host, port):
                    raise _wrong_certificate(address, "the scheduler speaks TLS, the address says tcp://") from None
                raise
        else:
            return
    kind = _in_a_thread(_identity(address, security))
    if kind != "Scheduler":
        raise ClusterError(f"{address} is {kind or 'no scheduler'}: give the address that `dask scheduler` prints")


def _open(address: str, host: str, port: int) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=STEP_SECONDS)
    except socket.gaierror as error:
        raise ClusterError(f"cannot find the host {host} of {address}: {error.strerror}; check its name") from None
    except ConnectionRefusedError:
        raise ClusterError(
            f"nobody listens at {address}: start `dask scheduler` there, or check host and port (it prints its address)"
        ) from None
    except TimeoutError:
        raise ClusterError(
            f"no answer from {address} within {STEP_SECONDS:.0f} s: the host is down, or a firewall in between; "
            "a tunnel may help: ssh -L 8786:HOST:8786 LOGIN, then tcp://127.0.0.1:8786"
        ) from None
    except OSError as error:
        raise ClusterError(f"cannot reach {address}: {error.strerror or error}") from None


def _greeting(address: str, plain: socket.socket, context: ssl.SSLContext | None) -> None:
    """Read how the other side opens the conversation: a scheduler speaks first, and begins with a small length."""
    try:
        with context.wrap_socket(plain) if context else plain as channel:
            begin = b""
            while len(begin) < 8 and (more := channel.recv(8 - len(begin))):
                begin += more
    except ssl.SSLError as error:
        raise _wrong_certificate(address, _reason(error)) from None
    except OSError as error:  # silent for too long, or ended
        begin = b""
        if context and not isinstance(error, TimeoutError):
            raise _wrong_certificate(address, _reason(error)) from None
    if context and not begin:
        raise _wrong_certificate(address, "the other side ended the connection")
    if len(begin) < 8 or int.from_bytes(begin, "little") > MAX_GREETING:
        raise ClusterError(
            f"{address} takes connections but does not answer as a scheduler does: something else has this port (a "
            f"scheduler has {PORT} where none is given, its dashboard 8787), or the scheduler hangs"
        )


def _speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS handshake gets an answer in TLS, be it a refusal."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=STEP_SECONDS) as plain,
            context.wrap_socket(plain) as channel,
        ):
            return channel.version() is not None
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


async def _identity(address: str, security: Security | None) -> str:
    """What kind of Dask server answers; "" for none."""
    arguments = security.get_connection_args("client") if security else {}
    server: Any = rpc(address, timeout=STEP_SECONDS, connection_args=arguments)
    try:
        answer = await asyncio.wait_for(server.identity(), STEP_SECONDS)
        return str(answer["type"])
    except (OSError, TimeoutError, ValueError, LookupError, TypeError):
        return ""
    finally:
        await server.close_rpc()


def _in_a_thread(work: Any) -> Any:
    """The result of a coroutine, in a notebook too, where this thread has an event loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _reason(error: BaseException) -> str:
    """The innermost words of an error."""
    while error.__cause__:
        error = error.__cause__
    text = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].replace("_", " ").lower() if isinstance(error, ssl.SSLError) else str(text)
