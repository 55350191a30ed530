"""Who computes: the kinds of cluster that a description can name, each with its own keys."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field, Strict, model_validator

from mandeldask.config.values import ByteSize, Count, Path, Section, Text

ADDRESS = r"(tcp|tls|ws|wss|ucx)://\S+"
Minutes = Annotated[str, Strict(), Field(pattern=r"^([0-9]+-)?[0-9]{1,3}:[0-5][0-9](:[0-5][0-9])?$")]


def _address(value: str) -> str:
    if not re.fullmatch(ADDRESS, value):
        raise ValueError("must be the address of a scheduler, tcp://HOST:PORT or tls://HOST:PORT")
    return value


def _import_path(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value):
        raise ValueError("must be the import path of a class, package.Class")
    return value


def _start_timeout(default: str) -> Any:
    return Field(None, description=f"Seconds to wait for the first worker; {default} when left out.", examples=[600])


class LocalCluster(Section):
    """Worker processes on this machine, bound to loopback."""

    kind: Literal["local"] = Field("local", description="Where the workers run.", examples=["local"])
    workers: Count | None = Field(
        None, description="Worker processes; one for each usable core when left out.", examples=[4]
    )
    threads_per_worker: Count = Field(1, description="Threads of each worker.", examples=[1])
    memory_limit: ByteSize | None = Field(
        None, description="Memory of each worker; a fair share when left out.", examples=["4GiB"]
    )
    start_timeout: Count | None = _start_timeout("60")


class Certificates(Section):
    """Files for TLS, in PEM; Dask's own settings, distributed.comm.tls, where none is given."""

    ca_file: Path | None = Field(None, description="The authority that signed all certificates.", examples=["ca.pem"])
    cert: Path | None = Field(None, description="This client's certificate.", examples=["client.pem"])
    key: Path | None = Field(
        None, description="The key of the certificate, where it is in a file of its own.", examples=["client.key"]
    )


class SchedulerAddress(Certificates):
    """A scheduler that runs already."""

    kind: Literal["address"] = Field(description="A scheduler that runs already.", examples=["address"])
    address: Annotated[str, Strict(), AfterValidator(_address)] = Field(
        description="tcp://HOST:PORT, or tls://HOST:PORT.", examples=["tcp://127.0.0.1:8786"]
    )
    start_timeout: Count | None = _start_timeout("60")


class SchedulerFile(Certificates):
    """A scheduler that runs already and wrote its address to a file: dask scheduler --scheduler-file."""

    kind: Literal["scheduler-file"] = Field(
        description="A scheduler that runs already and wrote its address to a file.", examples=["scheduler-file"]
    )
    path: Path = Field(description="The file, as this machine sees it.", examples=["scheduler.json"])
    start_timeout: Count | None = _start_timeout("60")


class Queue(Section):
    """Workers as jobs of a batch system, through dask-jobqueue; the scheduler runs where the command does."""

    kind: Literal["slurm", "pbs", "sge", "lsf", "htcondor", "oar", "moab"] = Field(
        description="The batch system.", examples=["slurm"]
    )
    jobs: Count = Field(
        1, description="Batch jobs to keep in the queue; one that ends is submitted again.", examples=[8]
    )
    minimum_jobs: Count | None = Field(
        None, description="Where given, the number of jobs follows the work, from this up to `jobs`.", examples=[1]
    )
    cores: Count = Field(description="Cores of a job.", examples=[8])
    memory: ByteSize = Field(description="Memory of a job.", examples=["32GiB"])
    processes: Count | None = Field(
        None, description="Workers of a job; one for each core when left out.", examples=[8]
    )
    walltime: Minutes = Field(
        "04:00:00", description="Time limit of a job, [days-]hours:minutes[:seconds].", examples=["04:00:00"]
    )
    queue: Text | None = Field(None, description="Queue or partition.", examples=["debug"])
    account: Text | None = Field(None, description="Account or project that pays.", examples=["physics"])
    interface: Text | None = Field(
        None,
        description="Network interface that the jobs reach the scheduler by; loopback, which only jobs on this machine "
        "reach, when left out.",
        examples=["ib0"],
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of dask-jobqueue's cluster class, as they are.",
        examples=[{"job_extra_directives": ["--exclusive"]}],
    )
    start_timeout: Count | None = _start_timeout("3600, an hour,")

    @model_validator(mode="after")
    def _numbers_agree(self) -> Queue:
        if (self.processes or 1) > self.cores:
            raise ValueError(f"processes must be at most cores; got {self.processes} and {self.cores}")
        if (self.minimum_jobs or 1) > self.jobs:
            raise ValueError(f"minimum_jobs must be at most jobs; got {self.minimum_jobs} and {self.jobs}")
        return self


class ClusterClass(Section):
    """Any other Dask cluster manager, by its import path."""

    kind: Literal["class"] = Field(description="A cluster manager by its import path.", examples=["class"])
    type: Annotated[str, Strict(), AfterValidator(_import_path)] = Field(
        description="Import path of the class.", examples=["dask_kubernetes.operator.KubeCluster"]
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Its arguments, by name.", examples=[{"name": "mandel"}]
    )
    workers: Count | None = Field(
        None, description="Workers to ask for with its scale(); as its arguments say when left out.", examples=[10]
    )
    start_timeout: Count | None = _start_timeout("600")


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
