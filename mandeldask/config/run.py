"""A run description: what to compute, with what, and where to put it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict, TypeAdapter
from pydantic_core import PydanticKnownError

from mandeldask.config.clusters import Cluster
from mandeldask.config.picture import PictureDescription
from mandeldask.config.values import Path, Section, Side, integer
from mandeldask.config.view import AnyView
from mandeldask.kernels import AUTO, KERNELS, MAX_ITER_LIMIT

FieldName = Literal["escape_time", "smooth", "distance"]


def _kernel(value: str) -> str:
    if value not in (*KERNELS, AUTO):
        raise PydanticKnownError("literal_error", {"expected": " or ".join(map(repr, (*KERNELS, AUTO)))})
    return value


def _fields(value: tuple[FieldName, ...]) -> tuple[FieldName, ...]:
    if "escape_time" not in value or len(set(value)) < len(value):
        raise ValueError("must hold escape_time, and nothing twice")
    return value


class Config(Section):
    """A mandeldask run: what to compute, with what, and where to put it."""

    view: AnyView = Field(
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


def json_schema() -> dict[str, Any]:
    """The JSON schema of the YAML file, for editors; `configs/schema.json` is a copy."""
    return {"title": "mandeldask run description"} | Config.model_json_schema()


def cluster_schema() -> dict[str, Any]:
    """The JSON schema of a cluster description in a file of its own; `configs/clusters/schema.json` is a copy."""
    return {"title": "mandeldask cluster description"} | TypeAdapter(Cluster).json_schema()
