"""Any other Dask cluster manager: a class by its import path, with its arguments."""

from __future__ import annotations

import inspect
import logging
import pkgutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from distributed import Client
from distributed.utils import silence_logging_cmgr

from mandeldask.cluster.settings import DASHBOARD, LOOPBACK, cluster_settings, said
from mandeldask.config import ClusterClass
from mandeldask.errors import ClusterError


@contextmanager
def started(cluster: ClusterClass) -> Iterator[Client]:
    """A client of a new cluster of the class described, which ends with the context.

    One of this machine is kept on loopback, where its class takes a host and is given no other.
    """
    ours = {"host": LOOPBACK, "dashboard_address": DASHBOARD}
    with silence_logging_cmgr(logging.CRITICAL), cluster_settings(), ExitStack() as stack:
        try:
            made = pkgutil.resolve_name(cluster.type)
            takes = ours.keys() <= inspect.signature(made).parameters.keys()
            manager = stack.enter_context(made(**(ours if takes else {}) | cluster.arguments))
            if cluster.workers is not None:
                manager.scale(cluster.workers)
            client = stack.enter_context(manager.get_client())
        except Exception as error:  # whatever a manager of clusters may raise
            raise ClusterError(
                f"cannot start {cluster.type}, which has to be a class of Dask clusters: "
                f"{type(error).__name__}: {said(error)}"
            ) from None
        yield client
