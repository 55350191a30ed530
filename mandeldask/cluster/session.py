"""One session with a cluster: description -> a connected client whose workers are there and fit to compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property

from distributed import Client

from mandeldask.cluster.local import leave_if_being_spawned
from mandeldask.cluster.preflight import check, check_store
from mandeldask.cluster.start import connect, introduce, resolve, size_of
from mandeldask.cluster.workers import Size, silent, size_of_client, wait_for_worker
from mandeldask.config import AnyCluster, Cluster, LocalCluster, SchedulerAddress, SchedulerFile
from mandeldask.store import Store

Start = Callable[[Cluster], AbstractContextManager[Client]]


@contextmanager
def session(
    cluster: AnyCluster | None = None,
    *,
    kernel: str = "numpy",
    client: Client | None = None,
    upload: bool = False,
    say: Callable[[str], None] = silent,
    start: Start = connect,
) -> Iterator[Session]:
    """A cluster to compute on. Nothing is started before it is needed; what was started ends with the context.

    Parameters
    ----------
    cluster : path of a YAML file, address of a scheduler, mapping, or Cluster, optional
        By default the scheduler that Dask's settings name, else worker processes on this machine.
    kernel : str
        A name of KERNELS, which scheduler and workers must be able to run.
    client : distributed.Client, optional
        A cluster that is already there: `cluster` is not looked at, nothing is started, and nothing ends.
    upload : bool
        Send this mandeldask to the scheduler and the workers before they are checked.
    say : callable, optional
        Is given lines for a person: which cluster it is, what is waited for, versions that differ.
    start : callable, optional
        Starts the cluster described, in place of `connect`: for a cluster that another process keeps.

    Raises
    ------
    ConfigError
        The description breaks a rule.
    """
    if client is None:
        leave_if_being_spawned()
    description = resolve(cluster) if client is None else None
    if description and (introduction := introduce(description)):
        say(introduction)
    with ExitStack() as stack:
        yield Session(description, kernel, client, upload, say, start, stack)


class Session:
    """A cluster, as far as it is needed: its description, its size, a client, a client that can compute.

    Every method may be called again, and then does nothing new. All of them raise ClusterError, which says what is
    wrong and what to do.
    """

    def __init__(
        self,
        description: Cluster | None,
        kernel: str,
        client: Client | None,
        upload: bool,
        say: Callable[[str], None],
        start: Start,
        stack: ExitStack,
    ) -> None:
        self.description = description  # None for a client that was given
        self._kernel, self._client, self._upload, self._say = kernel, client, upload, say
        self._start, self._stack = start, stack
        self._ready = False

    @property
    def runs_already(self) -> bool:
        """Whether the cluster was there before this session, and stays when it ends."""
        return self.description is None or isinstance(self.description, SchedulerAddress | SchedulerFile)

    @property
    def introduction(self) -> str:
        """Which cluster it is, in a few words."""
        if self.description is None:
            return "the cluster of the client given"
        return introduce(self.description) or "worker processes on this machine"

    @property
    def in_this_environment(self) -> bool:
        """Whether the workers are processes of ours on this machine: their versions and files are this process's."""
        return isinstance(self.description, LocalCluster)

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
        if self._client is None:
            assert self.description is not None
            self._client = self._stack.enter_context(self._start(self.description))
        return self._client

    def ready(self) -> Client:
        """A client of a cluster that has a worker, and whose versions were checked."""
        client = self.connect()
        if not self._ready:
            wait_for_worker(client, self.description, self._say)
            if not self.in_this_environment:
                check(client, self._kernel, upload=self._upload, say=self._say)
            self._ready = True
        return client

    def check_store(self, store: Store) -> None:
        """Have every worker use the store, unless its files are this process's."""
        if not self.in_this_environment:
            check_store(self.ready(), store)
