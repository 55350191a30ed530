"""The run description: one YAML file, or a dict, to a frozen `Config` of checked values."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from mandeldask.config.clusters import (
    KINDS,
    Cluster,
    ClusterClass,
    LocalCluster,
    Queue,
    SchedulerAddress,
    SchedulerFile,
)
from mandeldask.config.faults import Faults, Keys
from mandeldask.config.parts import Path, Section, integer
from mandeldask.config.picture import PictureDescription
from mandeldask.config.strict_yaml import MAX_BYTES, NUMBER, read_yaml
from mandeldask.config.words import line, show
from mandeldask.errors import ConfigError
from mandeldask.kernels import AUTO, KERNELS, MAX_ITER_LIMIT
from mandeldask.view import LOG_POLAR, MAX_SIDE, LogPolar, Number, Registration, Turned, View

__all__ = [
    "AnyCluster",
    "Cluster",
    "ClusterClass",
    "Config",
    "LocalCluster",
    "PictureDescription",
    "Queue",
    "SchedulerAddress",
    "SchedulerFile",
    "ViewDescription",
    "cluster_schema",
    "json_schema",
    "load",
    "load_cluster",
    "parse",
]

FieldName = Literal["escape_time", "smooth", "distance"]

AnyCluster = Cluster | Mapping[str, Any] | str | os.PathLike[str]  # what `load_cluster` takes

Model = TypeVar("Model", bound=Section)


def _coordinate(value: Any) -> Any:
    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not (number or (isinstance(value, str) and re.fullmatch(NUMBER, value))):
        raise ValueError('must be a finite number, bare or in quotes (-0.75, "1e-5")')
    return value


def _kernel(value: str) -> str:
    if value not in (*KERNELS, AUTO):
        raise PydanticKnownError("literal_error", {"expected": " or ".join(map(repr, (*KERNELS, AUTO)))})
    return value


def _fields(value: tuple[FieldName, ...]) -> tuple[FieldName, ...]:
    if "escape_time" not in value or len(set(value)) < len(value):
        raise ValueError("must hold escape_time, and nothing twice")
    return value


Side = Annotated[int, Strict(), Field(ge=1, le=MAX_SIDE), BeforeValidator(integer)]
Coordinate = Annotated[
    Number,
    PlainValidator(_coordinate),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{NUMBER}$"}]}),
]


class ViewDescription(Section):
    """Which samples of the complex plane: x and y, or centre and span; or, in a log-polar strip, centre and radius."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["x", "y"]}, {"required": ["centre", "span"]}, {"required": ["centre", "radius"]}]
        }
    )

    x: tuple[Coordinate, Coordinate] | None = Field(
        None, description="Bounds of the real part, [low, high].", examples=[[-2, 1]]
    )
    y: tuple[Coordinate, Coordinate] | None = Field(
        None, description="Bounds of the imaginary part, [low, high].", examples=[[-1.5, 1.5]]
    )
    centre: tuple[Coordinate, Coordinate] | None = Field(
        None,
        description="The point in the middle, [re, im]. All digits count, in quotes or not.",
        examples=[["-0.743643887037151", "0.131825904205330"]],
    )
    span: Coordinate | None = Field(
        None,
        description="Distance from the first column to the last (gridline), or width of the window (pixel).",
        examples=["1e-5"],
    )
    rotation: Coordinate | None = Field(
        None,
        description="Degrees by which the rectangle is turned anticlockwise about its centre, from -360 to 360; "
        "with centre and span, or with centre and the bounds x and y of the offsets from it.",
        examples=["30"],
    )
    projection: Literal["log-polar"] | None = Field(
        None,
        description="log-polar: columns are angles over a full turn, rows are radii in equal ratios; with centre and "
        "radius. When left out, a rectangle.",
        examples=["log-polar"],
    )
    radius: tuple[Coordinate, Coordinate] | None = Field(
        None,
        description="Of a log-polar strip, [inner, outer]: the first and the last row. The rows follow from the "
        "columns, 1 + ln(outer / inner) columns / 2 pi.",
        examples=[["1e-9", 2]],
    )
    shape: tuple[Side, Side] = Field(description="Samples: [rows (y), columns (x)].", examples=[[1000, 1000]])
    registration: Registration = Field(
        "gridline",
        description="gridline: the first and last samples lie on the bounds, as numpy.linspace has it. "
        "pixel: samples lie at the centres of cells that fill the bounds.",
        examples=["pixel"],
    )

    def build(self) -> View:
        """The `View` described; ConfigError where it breaks one of the view's own rules."""
        names = ("x", "y", "centre", "span", "rotation", "projection", "radius")
        values = {key: getattr(self, key) for key in names if getattr(self, key) is not None}
        given = set(values)
        if given == {"x", "y"}:
            return View(**values, shape=self.shape, registration=self.registration)
        if given - {"rotation"} == {"centre", "span"}:
            return View.around(**values, shape=self.shape, registration=self.registration)
        if given == {"x", "y", "centre", "rotation"}:
            frame = Turned(values.pop("centre"), values.pop("rotation"))
            return View(**values, shape=self.shape, registration=self.registration, frame=frame)
        if given == {"projection", "centre", "radius"}:
            if self.registration != "gridline":
                raise ValueError("with projection log-polar has registration gridline")
            return View.log_polar(values["centre"], values["radius"], self.shape[1], self.shape[0])
        needs = "x and y, or centre and span, and not both"
        if given & {"projection", "radius"}:
            needs = "projection, centre and radius for a log-polar strip"
        elif "rotation" in given:
            needs = "centre and span for a rotation"
        raise ValueError(f"needs {needs}; has {', '.join(values) or 'none'}")


class _Built:
    """Tells pydantic to read a `View` from a ViewDescription, or take one as it is, and how to dump it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def build(value: Any, read: ValidatorFunctionWrapHandler) -> View:
            return value if isinstance(value, View) else read(value).build()

        def dump(view: View) -> dict[str, Any]:
            single = ("span", "rotation")
            given = {key: digits[0] if key in single else digits for key, digits in view.given.items()}
            if isinstance(view.frame, LogPolar):
                given["projection"] = LOG_POLAR
            return {**given, "shape": list(view.shape), "registration": view.registration}

        return core_schema.no_info_wrap_validator_function(
            build,
            handler.generate_schema(ViewDescription),
            serialization=core_schema.plain_serializer_function_ser_schema(dump),
        )


class Config(Section):
    """A mandeldask run: what to compute, with what, and where to put it."""

    view: Annotated[View, _Built()] = Field(
        description="Which samples of the complex plane: x and y, or centre and span, turned if wanted; or a log-polar "
        "strip; shape; registration.",
        examples=[{"x": [-2, 1], "y": [-1.5, 1.5], "shape": [1000, 1000]}],
    )
    max_iter: Annotated[int, Strict(), Field(ge=1, le=MAX_ITER_LIMIT), BeforeValidator(integer)] = Field(
        description="Iterations after which a sample counts as not escaped.", examples=[1000]
    )
    kernel: Annotated[str, Strict(), AfterValidator(_kernel)] = Field(
        AUTO,
        description="What iterates; all kernels give the same bits, and auto takes the fastest.",
        examples=[AUTO],
        json_schema_extra={"enum": [*KERNELS, AUTO]},
    )
    fields: Annotated[tuple[FieldName, ...], AfterValidator(_fields)] = Field(
        ("escape_time",),
        description="What to store: escape_time, and if wanted smooth (continuous escape time) and distance "
        "(exterior distance estimate); escape_time is the same whatever else is asked for.",
        examples=[["escape_time", "smooth"]],
    )
    tile: tuple[Side, Side] | None = Field(
        None,
        description="[rows, columns] of a tile, which is one Dask task and one Zarr shard. "
        "Chosen for the view and the workers' memory when left out.",
        examples=[[1024, 1024]],
    )
    cluster: Cluster | None = Field(
        None,
        description="Who computes: a local cluster, a scheduler that runs already, a batch system, or any Dask cluster "
        "class. When left out, the scheduler that Dask's settings name, else a local cluster.",
        examples=[{"kind": "local", "workers": 4}],
    )
    store: Path | None = Field(
        None,
        description="Path of the Zarr store to write, from where the command runs, or its URL in a bucket; --out "
        "overrides it.",
        examples=["run.zarr", "s3://bucket/run.zarr"],
    )
    picture: PictureDescription | None = Field(
        None,
        description="How the picture of a run looks; the field does not depend on it.",
        examples=[{"colormap": "magma", "scale": "log"}],
    )


class _ClusterAlone(Section):
    """A cluster description in a file of its own, read as if it stood in a run description."""

    cluster: Cluster


_SECTIONS: dict[Keys, type[Section]] = {
    (): Config,
    ("view",): ViewDescription,
    ("picture",): PictureDescription,
    **{("cluster", kind): model for kind, model in KINDS.items()},
}


def load(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Config:
    """Read and check one YAML file.

    Parameters
    ----------
    path
        The file: UTF-8, at most 64 KiB, one YAML 1.2 document without anchors, aliases and tags.
    overrides
        `KEY=VALUE` strings, with dotted keys and YAML values, that replace what the file says:
        `max_iter=500`, `view.shape=[4096,4096]`, `tile=null`. Centre or span set here drops the file's x and
        y, and x or y set here drops the file's centre and span; to set both kinds is an error.

    Raises
    ------
    ConfigError
        Anything wrong with the file, the overrides or a value: a line for each fault.
    """
    name = os.fspath(path)
    mapping = _read(name, "run description")
    if mapping is None:
        raise ConfigError(line(f"{name}: is empty; a run description needs at least view and max_iter"))
    changes = dict(_split(override) for override in overrides)
    if isinstance(mapping, dict):
        _apply(mapping, changes)
    return _check(Config, mapping, name, changes)


def _read(path: str, what: str) -> Any:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(line(f"{path}: cannot read the {what}: {reason}")) from None
    return read_yaml(data, path)


def load_cluster(cluster: AnyCluster) -> Cluster:
    """Read and check a cluster description: a scheduler's address, the path of a YAML file, or a mapping.

    The file holds what `cluster:` holds in a run description; a run description does too, for its `cluster:`. A file
    that ends in .json is what `dask scheduler --scheduler-file` writes.

    Raises
    ------
    ConfigError
        Anything wrong with the text, the file or a value: a line for each fault.
    """
    if isinstance(cluster, Section):
        return cluster
    if isinstance(cluster, Mapping):
        return _check(_ClusterAlone, {"cluster": dict(cluster)}, "cluster description", ()).cluster
    mapping: Any
    text = os.fspath(cluster)
    if "://" in text:
        mapping, source = {"kind": "address", "address": text}, "--cluster"
    elif text == "local":
        mapping, source = {"kind": "local"}, "--cluster"
    elif text.endswith(".json"):
        mapping, source = {"kind": "scheduler-file", "path": text}, "--cluster"
    else:
        if re.fullmatch(r"[\w.-]+:[0-9]+", text):
            raise ConfigError(line(f"--cluster takes an address with its protocol; did you mean tcp://{text}?"))
        if not os.path.exists(text):
            raise ConfigError(
                line(
                    f"--cluster takes the address of a scheduler (tcp://HOST:PORT), a YAML file, a scheduler file "
                    f"(.json) or the word local; there is no file {show(text)}"
                )
            )
        mapping, source = _read(text, "cluster description"), text
        if isinstance(mapping, dict) and "cluster" in mapping:
            mapping = mapping["cluster"]
        if not isinstance(mapping, dict):
            raise ConfigError(line(f"{text}: a cluster description is a mapping, KEY: VALUE; got {show(mapping)}"))
    return _check(_ClusterAlone, {"cluster": mapping}, source, ()).cluster


def parse(mapping: Mapping[str, Any], source: str = "run description", overrides: Iterable[str] = ()) -> Config:
    """Check a run description given as a dict, with the keys of the YAML file; `view` may be a `View`.

    Takes what `Config.model_dump()` gives. `source` is what error messages call it; `overrides` are as for `load`.

    Raises
    ------
    ConfigError
        A line for each fault.
    """
    changes = dict(_split(override) for override in overrides)
    changed = copy.deepcopy(dict(mapping)) if changes else mapping
    if isinstance(changed, dict):
        _apply(changed, changes)
    return _check(Config, changed, source, changes)


def json_schema() -> dict[str, Any]:
    """The JSON schema of the YAML file, for editors; `configs/schema.json` is a copy."""
    return {"title": "mandeldask run description"} | Config.model_json_schema()


def cluster_schema() -> dict[str, Any]:
    """The JSON schema of a cluster description in a file of its own; `configs/clusters/schema.json` is a copy."""
    return {"title": "mandeldask cluster description"} | TypeAdapter(Cluster).json_schema()


def _split(override: str) -> tuple[tuple[str, ...], Any]:
    key, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise ConfigError(line(f"--set takes KEY=VALUE, such as view.shape=[4096,4096]; got {show(override)}"))
    return keys, read_yaml(text.encode(errors="surrogatepass"), f"--set {key}")


def _apply(mapping: dict[Any, Any], changes: Mapping[tuple[str, ...], Any]) -> None:
    """Set every key of `changes` in `mapping`, in place."""
    set_here = {keys[1] for keys, value in changes.items() if keys[0] == "view" and keys[1:] and value is not None}
    bounds, around = set_here & {"x", "y"}, set_here & {"centre", "span", "rotation", "projection", "radius"}
    view = mapping.get("view")
    if isinstance(view, dict) and bool(bounds) != bool(around):
        for key in ("centre", "span", "rotation", "projection", "radius") if bounds else ("x", "y"):
            view.pop(key, None)
    if isinstance(view, dict) and bool(around & {"span", "rotation"}) != bool(around & {"projection", "radius"}):
        for key in ("projection", "radius") if around & {"span", "rotation"} else ("span", "rotation"):
            view.pop(key, None)
    for keys, value in changes.items():
        section = mapping
        for i, key in enumerate(keys[:-1]):
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise ConfigError(line(f"--set {'.'.join(keys)}: {'.'.join(keys[: i + 1])} has no keys of its own"))
        section[keys[-1]] = value


def _check(model: type[Model], mapping: Any, source: str, changes: Collection[tuple[str, ...]]) -> Model:
    try:
        return model.model_validate(dict(mapping) if isinstance(mapping, Mapping) else mapping)
    except ValidationError as error:
        raise ConfigError(Faults(_SECTIONS).told(error, source, changes)) from None
