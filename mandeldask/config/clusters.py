"""Who computes: the kinds of cluster that a description can name, each with its own keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import BeforeValidator, Field, Strict, model_validator

from mandeldask.config.values import ByteSize, Count, Path, Section, Text
from mandeldask.text import plural

ADDRESS = r"^(tcp|tls|ws|wss|ucx)://\S+$"
Minutes = Annotated[str, Strict(), Field(pattern=r"^([0-9]+-)?[0-9]{1,3}:[0-5][0-9](:[0-5][0-9])?$")]


class _Described(Section):
    start_timeout: Count = Field(60, description="Seconds to wait for the first worker.")


class LocalCluster(_Described):
    """Worker processes on this machine, bound to loopback."""

    kind: Literal["local"] = Field("local", description="Where the workers run.")
    workers: Count | None = Field(None, description="Worker processes; one for each usable core when left out.")
    threads_per_worker: Count = Field(1, description="Threads of each worker.")
    memory_limit: ByteSize | None = Field(
        None, description="Memory of each worker, such as 4GiB; a fair share when left out."
    )

    @property
    def introduction(self) -> str:
        """Which cluster it is, in a few words."""
        return "worker processes on this machine"


class RunningScheduler(_Described):
    """A scheduler that runs already. Files for TLS are PEM; Dask's own settings hold where none is given."""

    ca_file: Path | None = Field(None, description="The authority that signed all certificates.")
    cert: Path | None = Field(None, description="This client's certificate.")
    key: Path | None = Field(None, description="The key of the certificate, where it is in a file of its own.")


class SchedulerAddress(RunningScheduler):
    """A scheduler that runs already."""

    kind: Literal["address"] = Field(description="A scheduler that runs already.")
    address: Annotated[str, Strict()] = Field(pattern=ADDRESS, description="tcp://HOST:PORT, or tls://HOST:PORT.")

    @property
    def introduction(self) -> str:
        return f"the scheduler at {self.address}"


class SchedulerFile(RunningScheduler):
    """A scheduler that runs already and wrote its address to a file: dask scheduler --scheduler-file."""

    kind: Literal["scheduler-file"] = Field(
        description="A scheduler that runs already and wrote its address to a file."
    )
    path: Path = Field(description="The file, as this machine sees it.")

    @property
    def introduction(self) -> str:
        return f"the scheduler of {self.path}"


class Queue(_Described):
    """Workers as jobs of a batch system, through dask-jobqueue; the scheduler runs where the command does."""

    kind: Literal["slurm", "pbs", "sge", "lsf", "htcondor", "oar", "moab"] = Field(description="The batch system.")
    jobs: Count = Field(1, description="Batch jobs to keep in the queue; one that ends is submitted again.")
    minimum_jobs: Count | None = Field(
        None, description="Where given, the number of jobs follows the work, from this up to `jobs`."
    )
    cores: Count = Field(description="Cores of a job.")
    memory: ByteSize = Field(description="Memory of a job, such as 32GiB.")
    processes: Count | None = Field(None, description="Workers of a job; one for each core when left out.")
    walltime: Minutes = Field("04:00:00", description="Time limit of a job, [days-]hours:minutes[:seconds].")
    queue: Text | None = Field(None, description="Queue or partition.")
    account: Text | None = Field(None, description="Account or project that pays.")
    interface: Text | None = Field(
        None,
        description="Network interface that the jobs reach the scheduler by, such as ib0; loopback, which only jobs on "
        "this machine reach, when left out.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of dask-jobqueue's cluster class, as they are."
    )
    start_timeout: Count = Field(3600, description="Seconds to wait for the first worker.")

    @property
    def introduction(self) -> str:
        jobs = plural(self.jobs, f"{self.kind} job")
        return f"{jobs} of {self.cores} cores and {self.memory}, for {self.walltime} each"

    @model_validator(mode="after")
    def _numbers_agree(self) -> Queue:
        if (self.processes or 1) > self.cores:
            raise ValueError(f"processes must be at most cores; got {self.processes} and {self.cores}")
        if (self.minimum_jobs or 1) > self.jobs:
            raise ValueError(f"minimum_jobs must be at most jobs; got {self.minimum_jobs} and {self.jobs}")
        return self


class ClusterClass(_Described):
    """Any other Dask cluster manager, by its import path."""

    kind: Literal["class"] = Field(description="A cluster manager by its import path.")
    type: Text = Field(description="Import path of the class, such as dask_kubernetes.operator.KubeCluster.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Its arguments, by name.")
    workers: Count | None = Field(
        None, description="Workers to ask for with its scale(); as its arguments say when left out."
    )
    start_timeout: Count = Field(600, description="Seconds to wait for the first worker; a machine may be rented.")

    @property
    def introduction(self) -> str:
        return self.type


KINDS: dict[str, type[Section]] = {
    kind: model
    for model in (LocalCluster, SchedulerAddress, SchedulerFile, Queue, ClusterClass)
    for kind in get_args(get_type_hints(model)["kind"])
}


def _kind(value: Any) -> Any:
    """The local cluster, where a mapping names no kind."""
    return {"kind": "local"} | value if isinstance(value, dict) else value


Cluster = Annotated[
    LocalCluster | SchedulerAddress | SchedulerFile | Queue | ClusterClass,
    Field(discriminator="kind"),
    BeforeValidator(_kind),
]
