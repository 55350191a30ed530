"""The sections of a run description, each with its keys and their types, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    Strict,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from mandeldask.config.values import (
    ADDRESS,
    Address,
    Arguments,
    ByteSize,
    Coordinate,
    Count,
    KernelName,
    Minutes,
    Pair,
    Path,
    Section,
    Side,
    Text,
    integer,
)
from mandeldask.kernels import AUTO, DEEP, MAX_ITER_LIMIT, Proof, kernel_names
from mandeldask.text import plural
from mandeldask.view import LOG_POLAR, Arithmetic, Deep, Registration, Turned, View


class ViewDescription(Section):
    """Which samples of the complex plane: x and y, or centre and span; or, in a log-polar strip, centre and radius."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["x", "y"]}, {"required": ["centre", "span"]}, {"required": ["centre", "radius"]}]
        }
    )

    x: Pair | None = Field(None, description="Bounds of the real part, [low, high].")
    y: Pair | None = Field(None, description="Bounds of the imaginary part, [low, high].")
    centre: Pair | None = Field(
        None, description="The point in the middle, [re, im]. All digits count, in quotes or not."
    )
    span: Coordinate | None = Field(
        None, description="Distance from the first column to the last (gridline), or width of the window (pixel)."
    )
    rotation: Coordinate | None = Field(
        None,
        description="Degrees by which the rectangle is turned anticlockwise about its centre, from -360 to 360; "
        "with centre and span, or with centre and the bounds x and y of the offsets from it.",
    )
    unit: Annotated[int, Strict(), BeforeValidator(integer)] | None = Field(
        None,
        description="With centre, x and y: these are bounds of the offsets from it in units of 2^unit, at any depth.",
    )
    projection: Literal["log-polar"] | None = Field(
        None,
        description="log-polar: columns are angles over a full turn, rows are radii in equal ratios; with centre and "
        "radius. When left out, a rectangle.",
    )
    radius: Pair | None = Field(
        None,
        description="Of a log-polar strip, [inner, outer]: the first and the last row. The rows follow from the "
        "columns, 1 + ln(outer / inner) columns / 2 pi.",
    )
    shape: tuple[Side, Side] = Field(description="Samples: [rows (y), columns (x)].")
    registration: Registration = Field(
        "gridline",
        description="gridline: the first and last samples lie on the bounds, as numpy.linspace has it. "
        "pixel: samples lie at the centres of cells that fill the bounds.",
    )


def _build(value: Any, read: ValidatorFunctionWrapHandler) -> View:
    """The view described; ConfigError where it breaks one of the view's rules."""
    if isinstance(value, View):
        return value
    described: ViewDescription = read(value)
    shape, registration = described.shape, described.registration
    placed = {key: value for key, value in described if value is not None and key not in ("shape", "registration")}
    match sorted(placed):
        case ["x", "y"]:
            return View(**placed, shape=shape, registration=registration)
        case ["centre", "span"] | ["centre", "rotation", "span"]:
            return View.around(**placed, shape=shape, registration=registration)
        case ["centre", "rotation", "x", "y"]:
            return View(placed["x"], placed["y"], shape, registration, Turned(placed["centre"], placed["rotation"]))
        case ["centre", "unit", "x", "y"] | ["centre", "rotation", "unit", "x", "y"]:
            frame = Deep(placed["centre"], placed["unit"], placed.get("rotation", "0"))
            return View(placed["x"], placed["y"], shape, registration, frame)
        case ["centre", "projection", "radius"] if registration == "gridline":
            return View.log_polar(placed["centre"], placed["radius"], shape[1], shape[0])
    raise ValueError(
        "needs x and y; or centre and span, with rotation if wanted; or projection, centre and radius for a "
        f"log-polar strip, with registration gridline; has {', '.join(placed) or 'none'}"
    )


def _dump(view: View) -> dict[str, Any]:
    given: dict[str, Any] = dict(view.given)
    given |= {key: given[key][0] for key in ("span", "rotation") if key in given}
    if isinstance(view.frame, Deep) and "unit" in given:
        given["unit"] = view.frame.unit
    if view.strip:
        given["projection"] = LOG_POLAR
    return {**given, "shape": list(view.shape), "registration": view.registration}


AnyView = Annotated[  # a View, read from a ViewDescription or taken as it is
    View,
    GetPydanticSchema(lambda _, handler: handler.generate_schema(ViewDescription)),
    WrapValidator(_build),
    PlainSerializer(_dump),
]


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
    address: Address = Field(json_schema_extra={"pattern": ADDRESS}, description="tcp://HOST:PORT, or tls://HOST:PORT.")

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
    options: Arguments = Field(
        default_factory=dict, description="Further arguments of dask-jobqueue's cluster class, as they are."
    )
    start_timeout: Count = Field(3600, description="Seconds to wait for the first worker.")

    @property
    def introduction(self) -> str:
        jobs = plural(self.jobs, f"{self.kind} job")
        return f"{jobs} of {plural(self.cores, 'core')} and {self.memory}, for {self.walltime} each"

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
    arguments: Arguments = Field(default_factory=dict, description="Its arguments, by name.")
    workers: Count | None = Field(
        None, description="Workers to ask for with its scale(); as its arguments say when left out."
    )
    start_timeout: Count = Field(600, description="Seconds to wait for the first worker; a machine may be rented.")

    @property
    def introduction(self) -> str:
        return self.type


Cluster = Annotated[
    LocalCluster | SchedulerAddress | SchedulerFile | Queue | ClusterClass,
    Field(discriminator="kind"),
    # a mapping that names no kind is a local cluster
    BeforeValidator(lambda value: {"kind": "local"} | value if isinstance(value, dict) else value),
]


class PictureDescription(Section):
    """The options of `mandeldask image`, which checks their values; what is left out is as that command has it."""

    colormap: str | None = Field(None, description="classic, a palette of Bokeh such as magma, or a map of cmap.")
    reverse: bool | None = Field(None, description="The map from its last colour to its first.")
    scale: str | None = Field(None, description="mix, log, equalised, root or linear.")
    limits: tuple[float, float] | None = Field(
        None, description="The escape times that scale root, log or linear begins and ends with, [low, high]."
    )
    repeat: float | None = Field(
        None, description="Run through the map, there and back, so many times on the scale; above 0."
    )
    period: float | None = Field(
        None, description="Run through the map, there and back, once in so many iterations; above 0."
    )
    phase: float | None = Field(None, description="Where the rounds start; 0.5 starts with the map's last colour.")
    interior: str | None = Field(None, description="Colour of the samples that do not escape, #rrggbb.")
    shade: str | None = Field(None, description="What is coloured: counts, smooth or distance.")
    light: tuple[float, float] | None = Field(
        None, description="Slopes under a light: [azimuth, height] in degrees, such as [315, 45]."
    )
    supersample: int | None = Field(None, description="Samples a side of a pixel, 1 to 8.")
    size: int | None = Field(None, description="Pixels of the longer side, about.")


FieldName = Literal["escape_time", "smooth", "distance", "interior"]


def _fields(value: tuple[FieldName, ...]) -> tuple[FieldName, ...]:
    if "escape_time" not in value or len(set(value)) < len(value):
        raise ValueError("must hold escape_time, and nothing twice")
    return value


class Config(Section):
    """A mandeldask run: what to compute, with what, and where to put it."""

    view: AnyView = Field(
        description="Which samples of the complex plane: x and y, or centre and span, turned if wanted; or a log-polar "
        "strip; shape; registration."
    )
    max_iter: Annotated[int, Strict(), Field(ge=1, le=MAX_ITER_LIMIT), BeforeValidator(integer)] = Field(
        description="Iterations after which a sample counts as not escaped."
    )
    kernel: KernelName = Field(
        AUTO,
        description="What iterates; those of binary64 all give the same bits, and auto takes the fastest of each "
        "worker. deep counts in exact arithmetic; auto takes it where binary64 cannot tell the samples apart.",
        json_schema_extra={"enum": [*kernel_names()]},
    )
    arithmetic: Arithmetic | None = Field(
        None,
        description="binary64, or exact: each count is proven to be the mathematical one. When left out, exact where "
        "binary64 cannot tell the samples apart, or for the kernel deep.",
    )
    proof: Proof = Field(
        "full",
        description="In exact arithmetic: full; double-double, which leaves the hardest samples unproven; or none, a "
        "preview in which some counts are wrong.",
    )
    fields: Annotated[tuple[FieldName, ...], AfterValidator(_fields)] = Field(
        ("escape_time",),
        description="What to store: escape_time, and if wanted smooth (continuous escape time), distance (exterior "
        "distance estimate) and interior (0 escaped, 1 not escaped within max_iter, 2 proved never to escape in this "
        "arithmetic); escape_time is the same whatever else is asked for. When left out, escape_time; in exact "
        "arithmetic with smooth, which a picture could not work out again from the counts.",
    )
    tile: tuple[Side, Side] | None = Field(
        None,
        description="[rows, columns] of a tile, which is one Dask task and one Zarr shard. "
        "Chosen for the view and the workers' memory when left out.",
    )
    cluster: Cluster | None = Field(
        None,
        description="Who computes: a local cluster, a scheduler that runs already, a batch system, or any Dask cluster "
        "class. When left out, the scheduler that Dask's settings name, else a local cluster.",
    )
    store: Path | None = Field(
        None,
        description="Path of the Zarr store to write, from where the command runs, or its URL in a bucket, such as "
        "s3://bucket/run.zarr; --out overrides it.",
    )
    picture: PictureDescription | None = Field(
        None, description="How the picture of a run looks; the field does not depend on it."
    )

    @model_validator(mode="after")
    def _has_one_arithmetic(self) -> Config:
        """The view in the arithmetic that is asked for."""
        deep = isinstance(self.view.frame, Deep)
        if self.arithmetic == "binary64" and (deep or self.kernel == DEEP):
            problem = "kernel deep has no other" if self.kernel == DEEP else "the view is too deep for binary64"
            raise ValueError(f"arithmetic must be exact here, for {problem}")
        if not deep and (self.arithmetic == "exact" or self.kernel == DEEP):
            object.__setattr__(self, "view", self.view.in_exact_arithmetic())
        if "fields" not in self.model_fields_set and isinstance(self.view.frame, Deep):
            object.__setattr__(self, "fields", ("escape_time", "smooth"))
        if self.proof != "full" and not isinstance(self.view.frame, Deep):
            raise ValueError("proof goes with arithmetic: exact; in binary64 nothing is proven")
        return self


def json_schema(what: str = "run") -> dict[str, Any]:
    """The JSON schema of a run or a cluster description, for editors; configs/ and configs/clusters/ have copies."""
    schema = Config.model_json_schema() if what == "run" else TypeAdapter(Cluster).json_schema()
    return {"title": f"mandeldask {what} description"} | schema
