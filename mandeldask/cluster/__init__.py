"""cluster description -> a connected client whose workers are there and fit to compute.

What we start listens on loopback unless the description names more.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property, partial
from multiprocessing import current_process
from typing import Any, Self

import dask
from distributed import Client

from mandeldask import config as configs
from mandeldask.cluster.preflight import check, check_devices, check_store, kernels_of, version_lines, versions
from mandeldask.cluster.scheduler import SchedulerReference, connect_scheduler
from mandeldask.cluster.start import job_script, start_class, start_local, start_queue
from mandeldask.cluster.workers import (
    IDLE_WORKER_BYTES,
    START_SECONDS,
    Size,
    results,
    size_of,
    size_of_client,
    wait_for_worker,
    workers_of,
)
from mandeldask.errors import ConfigError, check_type
from mandeldask.kernels import AUTO
from mandeldask.store import Store

__all__ = [
    "IDLE_WORKER_BYTES",
    "SchedulerReference",
    "Session",
    "Size",
    "connect",
    "job_script",
    "resolve",
    "results",
    "size_of",
    "size_of_client",
    "version_lines",
    "versions",
    "workers_of",
]


def connect(cluster: configs.Cluster) -> AbstractContextManager[Client]:
    """A client of the cluster described. What was started for it ends with the context; what ran already stays.

    The workers may still come up while the caller goes on: `wait_for_worker` waits for the first.
    """
    match cluster:
        case configs.LocalCluster():
            return start_local(cluster)
        case configs.Queue():
            return start_queue(cluster)
        case configs.ClusterClass():
            return start_class(cluster)
    return connect_scheduler(cluster)


def resolve(cluster: configs.AnyCluster | None) -> configs.Cluster:
    """The cluster described; where none is, the scheduler that Dask's settings name, else a local cluster."""
    if cluster:
        return configs.load_cluster(cluster)
    address = dask.config.get("scheduler-address", None)
    if not address:
        return configs.load_cluster("local")
    try:
        return configs.load_cluster(address if "://" in address else f"tcp://{address}")  # as Dask reads it
    except ConfigError as error:
        raise ConfigError(f"Dask's setting scheduler-address (DASK_SCHEDULER_ADDRESS): {error}") from None


class Session:
    """A cluster to compute on, as far as it is needed; what was started for it ends with the context.

    Each method may be called again, and then does nothing new. ClusterError says what is wrong and what to do. What
    another process keeps has a `start` of its own, in place of `connect`, and `say` is not told of it.
    """

    def __init__(
        self,
        cluster: configs.AnyCluster | None = None,  # by default as `resolve` says
        *,
        kernel: str = "numpy",  # which scheduler and workers must be able to run
        client: Client | None = None,  # of a cluster that is there already: nothing is started, and nothing ends
        upload: bool = False,  # send this mandeldask to the scheduler and the workers before they are checked
        needs: str = "mandeldask.check",  # what of ours they must be able to import: a driver takes more packages
        say: Callable[[str], None] = lambda _: None,  # is given lines for a person: which cluster, what is waited for
        start: Callable[[configs.Cluster], AbstractContextManager[Client]] = connect,
    ) -> None:
        self._stack = ExitStack()
        if client is None and getattr(current_process(), "_inheriting", False):
            raise SystemExit(1)  # a worker that imports a script without main guard; `wait_for_worker` tells its parent
        hint = "The address of a scheduler goes into cluster="
        check_type("client", client, Client | None, "a distributed.Client", hint)
        self.description = resolve(cluster) if client is None else None
        self.kernel, self.client, self.say, self.start = kernel, client, say, start
        self._check = partial(check, kernel=kernel, upload=upload, needs=needs, say=say)
        self._ready = False
        if start is connect and self.description and not isinstance(self.description, configs.LocalCluster):
            say(self.description.introduction)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @property
    def runs_already(self) -> bool:
        """Whether the cluster was there before this session, and stays when it ends."""
        return self.description is None or isinstance(self.description, configs.RunningScheduler)

    @property
    def in_this_environment(self) -> bool:
        """Whether the workers are processes of ours on this machine: their versions and files are this process's."""
        return self.description is not None and isinstance(self.description, configs.LocalCluster)

    @property
    def planned_size(self) -> Size | None:
        """The size that the description asks for; None where only the scheduler knows."""
        return size_of(self.description) if self.description else None

    @cached_property
    def size(self) -> Size:
        """The size the cluster will have, from its description; else that of the cluster, once it is `ready`."""
        return self.planned_size or size_of_client(self.ready())

    def connect(self) -> Client:
        """A client. The cluster is started at the first call; its workers may still come up."""
        if self.client is None:
            assert self.description is not None
            self.client = self._stack.enter_context(self.start(self.description))
        return self.client

    def ready(self) -> Client:
        """A client of a cluster that has a worker, and whose versions were checked."""
        client = self.connect()
        if not self._ready:
            wait_for_worker(client, self.description.start_timeout if self.description else START_SECONDS, self.say)
            if not self.in_this_environment:
                self._check(client)
            if self.kernel == "cuda":  # also on this machine: a GPU may be another's, or have no room for so many
                check_devices(client)
            if self.kernel == AUTO:
                for line in kernels_of(client):
                    self.say(line)
            self._ready = True
        return client

    def check_store(self, store: Store) -> None:
        """Have every worker use the store, unless its files are this process's."""
        if not self.in_this_environment:
            check_store(self.ready(), store)
