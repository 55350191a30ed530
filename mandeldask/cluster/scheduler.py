"""A scheduler that runs already: its address or its file -> a connected Client."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from distributed import Client, rpc
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.security import Security
from distributed.utils import silence_logging_cmgr
from distributed.versions import VersionMismatchWarning

from mandeldask import config as configs
from mandeldask.errors import ClusterError, ConfigError

ANSWER_SECONDS, SOON_SECONDS = 5.0, 0.3
CERTIFICATES = {"ca_file": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}


@contextmanager
def connect_scheduler(cluster: configs.RunningScheduler) -> Iterator[Client]:
    """A client of a scheduler that runs already, and goes on when the context ends; ClusterError within seconds."""
    address = _address(cluster)
    where = f". The address is that of {cluster.path}" if isinstance(cluster, configs.SchedulerFile) else ""
    with _connected(address, partial(_security, cluster, address), where) as client:
        yield client


class SchedulerReference:
    """How to reach a client's scheduler again: by a client that was given, while it is open, else by address and
    certificates.

    It may be pickled, without the client, for another process.
    """

    def __init__(self, client: Client, given: Client | None) -> None:
        self.address, self.security, self._given = client.scheduler.address, client.security, given

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_given": None}

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client; ClusterError within seconds where there is no scheduler any more."""
        if self._given and self._given.status == "running":
            yield self._given
        else:
            with _connected(self.address, lambda: self.security) as client:
                yield client


@contextmanager
def _connected(address: str, security: Callable[[], Security | None], where: str = "") -> Iterator[Client]:
    with silence_logging_cmgr(logging.CRITICAL):
        try:
            client = _client(address, security())
        except ClusterError:
            raise
        except Exception as error:  # whatever Dask makes of what another program sends
            raise ClusterError(f"{_explain(error, address)}{where}") from None
        with client:
            yield client


def _address(cluster: configs.RunningScheduler) -> str:
    """The address described, or in the file that `dask scheduler --scheduler-file` wrote."""
    if isinstance(cluster, configs.SchedulerAddress):
        return cluster.address
    assert isinstance(cluster, configs.SchedulerFile)
    try:
        with open(cluster.path, encoding="utf-8") as file:
            described = {"kind": "address", "address": json.load(file)["address"]}
        return cast("configs.SchedulerAddress", configs.load_cluster(described)).address
    except (OSError, ValueError, LookupError, TypeError, ConfigError) as error:
        raise ClusterError(
            f"{cluster.path} is not a scheduler file ({error}): a scheduler writes it when it has started, dask "
            "scheduler --scheduler-file FILE"
        ) from None


def _security(cluster: configs.RunningScheduler, address: str) -> Security | None:
    """The certificates of the description, else those of Dask's settings; None where the address needs none."""
    if not _is_tls(address):
        return None
    given = {CERTIFICATES[key]: path for key in CERTIFICATES if (path := getattr(cluster, key))}
    for path in given.values():
        try:
            open(path, "rb").close()
        except OSError as error:
            raise ClusterError(f"cannot read the certificate {path}: {error.strerror}") from None
    security = Security(**given, require_encryption=True)
    if not security.get_connection_args("client").get("ssl_context"):
        raise ValueError("no ca_file is named, or no cert")
    return security


def _client(address: str, security: Security | None) -> Client:
    """A client of a scheduler; Dask's waits without end for whatever has the port (distributed 2026.8).

    So it is asked first who that is.
    """
    with ThreadPoolExecutor(1) as thread:  # in a notebook this one has an event loop that runs
        kind = thread.submit(asyncio.run, _kind_of_server(address, security)).result()
    if kind != "Scheduler":
        raise ClusterError(f"{address} is a {kind.lower()}: give the address that `dask scheduler` prints")
    with warnings.catch_warnings():  # `preflight.check` tells of versions, and what of them matters
        warnings.simplefilter("ignore", VersionMismatchWarning)
        return Client(address, security=security, timeout=2 * ANSWER_SECONDS)


async def _kind_of_server(address: str, security: Security | None) -> str:
    """What a server says it is. Dask tries an address again and again, even where nothing listens.

    So where no answer comes soon, a connection is tried; a scheduler notes in its log each that says nothing.
    """
    host, port = parse_host_port(parse_address(address)[1], 8786)
    arguments = security.get_connection_args("client") if security else {}
    server: Any = rpc(address, timeout=ANSWER_SECONDS, connection_args=arguments)
    try:
        asked = asyncio.ensure_future(server.identity())
        if not (await asyncio.wait([asked], timeout=SOON_SECONDS))[0]:
            socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
        return str((await asyncio.wait_for(asked, ANSWER_SECONDS))["type"])
    finally:
        await server.close_rpc()


def _explain(error: BaseException, address: str) -> str:
    """Why there is no connection, and what to do."""
    while error.__cause__:
        error = error.__cause__
    if isinstance(error, socket.gaierror):
        return f"cannot find the host of {address} ({error.strerror}); check its name"
    if isinstance(error, ConnectionRefusedError):
        remedy = "start `dask scheduler` there, or check host and port (it prints its address)"
        return f"nothing is listening on {address}: {remedy}"
    if _is_tls(address) and not isinstance(error, TimeoutError | asyncio.CancelledError):
        reason = getattr(error, "reason", None) or error
        return (
            f"no TLS connection with {address} ({reason}). Both sides need TLS (tls:// here, --protocol tls there) and "
            "certificates of the authority in ca_file that are not expired: `openssl x509 -noout -issuer -dates -in "
            "CERT`. ca_file, cert and key are named in the cluster description, or in Dask's settings "
            "(distributed.comm.tls)"
        )
    if isinstance(error, ValueError | OverflowError):
        return f"{address} is not the address of a scheduler: tcp://HOST:PORT or tls://HOST:PORT"
    return (
        f"no scheduler answers at {address} within {ANSWER_SECONDS:.0f} s: the host is down, a firewall is in between "
        "(a tunnel may help: ssh -L 8786:HOST:8786 LOGIN, then tcp://127.0.0.1:8786), another program has this port "
        "(a scheduler has 8786 where none is given, its dashboard 8787), the scheduler wants TLS (tls://), or it hangs"
    )


def _is_tls(address: str) -> bool:
    return address.startswith(("tls://", "wss://"))
