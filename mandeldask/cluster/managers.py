"""Any other Dask cluster manager: a class by its import path, with its arguments."""

from __future__ import annotations

import inspect
import logging
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client
from distributed.utils import silence_logging_cmgr

from mandeldask.cluster.settings import DASHBOARD, LOOPBACK, cluster_settings
from mandeldask.config import ClusterClass
from mandeldask.errors import ClusterError


@contextmanager
def started(cluster: ClusterClass) -> Iterator[Client]:
    """A client of a new cluster of the class described, which ends with the context.

    Raises
    ------
    ClusterError
        The class cannot be imported, is no cluster manager, or cannot be started with these arguments.
    """
    made = _class(cluster.type)
    with silence_logging_cmgr(logging.CRITICAL), cluster_settings():
        try:
            manager = made(**(_on_loopback(made) | cluster.arguments))
        except TypeError as error:
            raise ClusterError(f"wrong arguments for {cluster.type}: {error}") from None
        except Exception as error:  # whatever a manager of clusters may raise
            raise _failed(cluster, error) from None
        with manager:
            try:
                if cluster.workers is not None:
                    manager.scale(cluster.workers)
                client = manager.get_client()
            except Exception as error:
                raise _failed(cluster, error) from None
            with client:
                yield client


def _on_loopback(made: Any) -> dict[str, str]:
    """Arguments that keep a cluster of this machine on loopback, where its class takes them and is given no others."""
    ours = {"host": LOOPBACK, "dashboard_address": DASHBOARD}
    return ours if ours.keys() <= inspect.signature(made).parameters.keys() else {}


def _class(path: str) -> Any:
    try:
        made = pkgutil.resolve_name(path)
    except ModuleNotFoundError as error:
        raise ClusterError(f"cannot import {path}: no module {error.name}; install what brings it") from None
    except (ImportError, AttributeError) as error:
        raise ClusterError(f"cannot import {path}: {error}") from None
    if not isinstance(made, type) or not all(hasattr(made, name) for name in ("get_client", "close", "__enter__")):
        raise ClusterError(f"{path} is no class of Dask clusters, such as dask_kubernetes.operator.KubeCluster")
    return made


def _failed(cluster: ClusterClass, error: Exception) -> ClusterError:
    text = str(error.__cause__ or error).splitlines()
    return ClusterError(f"cannot start {cluster.type}: {type(error).__name__}: {text[0] if text else ''}")
