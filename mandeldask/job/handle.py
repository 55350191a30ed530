"""A handle on a submitted job, for any process that reaches its scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from distributed import Client

from mandeldask import config as configs
from mandeldask.cluster import SchedulerReference, Session
from mandeldask.dashboard import page_of
from mandeldask.errors import ClusterError, ConfigError, MandeldaskError
from mandeldask.job import job_status
from mandeldask.job.events import in_notebook
from mandeldask.job.job_status import Status, status_of_job, status_of_jobs, topic_of
from mandeldask.text import command


@dataclass
class Job:
    """A submitted job, by its name on a scheduler.

    It keeps no connection: each call opens one, by the address and with the certificates that the job was submitted or
    found with, and closes it; a client that was given is used as long as it is open. So it may be pickled, and used
    from another process. Its calls raise ClusterError where the scheduler is gone.
    """

    name: str
    store: str  # as the workers see it
    scheduler: str  # its address
    dashboard: str  # the link of our page; "" where the dashboard is switched off
    tiles: int
    pending: int  # tiles that were to be computed when it was submitted, or found
    reach: SchedulerReference = field(repr=False, compare=False)
    last: Status | None = field(default=None, repr=False, compare=False)  # what was last heard of it

    def status(self) -> Status:
        """How far it is; what is finished is in the store whatever becomes of the job."""
        with self.reach.client() as client:
            return self._look(client)

    def wait(self, timeout: float | None = None, *, tell: Callable[[Status], None] | None = None) -> Status:
        """Wait until it has ended; its status then. ClusterError where it has not after `timeout` seconds.

        `tell` is given each status on the way; by default a notebook shows it, with the picture as it forms.
        """
        with self.reach.client() as client:
            return job_status.wait(lambda: self._look(client), timeout, tell or self._watcher(client))

    def cancel(self) -> Status:
        """End it; what is finished stays in its store. ConfigError where it has ended already."""
        with self.reach.client() as client:
            self.last = job_status.cancel(client, self.name)
        return self.last

    def logs(self) -> list[tuple[float, str]]:
        """What its driver had to say: Unix time and text, the oldest first, at most the last thousand."""
        with self.reach.client() as client:
            try:
                events = client.get_events(topic_of(self.name)) or ()
            except OSError as error:
                raise ClusterError(f"the scheduler was lost: {error}") from None
            if not events:
                status_of_job(client, self.name)  # which may be unknown
        return [(float(event["time"]), str(event["text"])) for _, event in events]

    def _look(self, client: Client) -> Status:
        self.last = status_of_job(client, self.name)
        return self.last

    def _watcher(self, client: Client) -> Callable[[Status], None]:
        if not in_notebook():
            return lambda _: None
        from mandeldask.job.cell import Watcher  # imports what draws pictures, which no worker needs

        return Watcher(client, self.name)

    def __repr__(self) -> str:
        state = self.last.words if self.last else f"submitted, {self.pending} of {self.tiles} tiles to compute"
        return f"<Job {self.name}: {state}; {self.store}, {self.scheduler}>"

    def _repr_html_(self) -> str:
        from mandeldask.job.notebook import block  # imports what draws pictures, which no worker needs

        try:
            now = self.status()
            facts, done = {"state": now.words}, now.done
        except MandeldaskError as error:
            facts, done = {"state": str(error)}, self.tiles - self.pending
        facts |= {"store": self.store, "scheduler": self.scheduler, "dashboard": self.dashboard}
        return block(self.store if done else None, {"job": self.name} | facts, done, self.tiles)


def find(name: str, cluster: configs.AnyCluster | None = None, *, client: Client | None = None) -> Job:
    """The submitted job of this name, from any process.

    Parameters
    ----------
    cluster : address of the scheduler, its file, path of a YAML file, or mapping, optional
        As it was submitted to; by default what Dask's settings name (DASK_SCHEDULER_ADDRESS).
    client : distributed.Client, optional
        In place of `cluster`.

    Raises
    ------
    ConfigError
        The scheduler knows no such job, or none is named.
    ClusterError
        There is no scheduler.
    """
    with scheduler_of(cluster, client) as there:
        return _job(there, status_of_job(there, name), page_of(there, add=False)[0], client)


def jobs(cluster: configs.AnyCluster | None = None, *, client: Client | None = None) -> list[Job]:
    """The jobs that a scheduler has had since it started, the oldest first; `last` tells of each. See `job`."""
    with scheduler_of(cluster, client) as there:
        found = status_of_jobs(there)
        link = page_of(there, add=False)[0] if found else ""
        return [_job(there, status, link, client) for status in found]


@contextmanager
def scheduler_of(cluster: configs.AnyCluster | None, client: Client | None = None) -> Iterator[Client]:
    """A client of the scheduler that is named: none is started."""
    with Session(cluster, client=client) as there:
        if not there.runs_already:
            raise ConfigError(
                "which scheduler? Name one that is up (cluster=, or --cluster tcp://HOST:PORT on a command line), or "
                f"set DASK_SCHEDULER_ADDRESS; the status of a store needs none: {command('status', 'STORE')}"
            )
        yield there.connect()


def _job(there: Client, status: Status, link: str, given: Client | None) -> Job:
    reach, pending = SchedulerReference(there, given), status.tiles - status.done
    return Job(str(status.job), status.store, reach.address, link, status.tiles, pending, reach, status)
