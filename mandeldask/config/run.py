"""A run description: what to compute, with what, and where to put it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict, TypeAdapter

from mandeldask.config.clusters import Cluster
from mandeldask.config.values import Path, Section, Side, integer
from mandeldask.config.view import AnyView
from mandeldask.kernels import AUTO, KERNELS, MAX_ITER_LIMIT

FieldName = Literal["escape_time", "smooth", "distance"]


class PictureDescription(Section):
    """The options of `mandeldask image`, which checks their values; what is left out is as that command has it."""

    colormap: str | None = Field(None, description="classic, a palette of Bokeh such as magma, or a map of cmap.")
    reverse: bool | None = Field(None, description="The map from its last colour to its first.")
    scale: str | None = Field(None, description="mix, log, equalised or linear.")
    repeat: float | None = Field(
        None, description="Run through the map, there and back, so many times on the scale; above 0."
    )
    period: float | None = Field(
        None, description="Run through the map, there and back, once in so many iterations; above 0."
    )
    phase: float | None = Field(None, description="Where the rounds start; 0.5 starts with the map's last colour.")
    interior: str | None = Field(None, description="Colour of the samples that do not escape, #rrggbb.")
    shade: str | None = Field(None, description="What is coloured: counts, or the field smooth or distance.")
    light: tuple[float, float] | None = Field(
        None, description="Slopes under a light: [azimuth, height] in degrees, such as [315, 45]."
    )
    supersample: int | None = Field(None, description="Samples a side of a pixel: 1, 2, 4 or 8.")
    size: int | None = Field(None, description="Pixels of the longer side, about.")


def _kernel(value: str) -> str:
    if value not in (*KERNELS, AUTO):
        raise ValueError(f"must be {', '.join(KERNELS)} or {AUTO}")
    return value


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
    kernel: Annotated[str, Strict(), AfterValidator(_kernel)] = Field(
        AUTO,
        description="What iterates; all kernels give the same bits, and auto takes the fastest.",
        json_schema_extra={"enum": [*KERNELS, AUTO]},
    )
    fields: Annotated[tuple[FieldName, ...], AfterValidator(_fields)] = Field(
        ("escape_time",),
        description="What to store: escape_time, and if wanted smooth (continuous escape time) and distance "
        "(exterior distance estimate); escape_time is the same whatever else is asked for.",
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


def json_schema() -> dict[str, Any]:
    """The JSON schema of the YAML file, for editors; `configs/schema.json` is a copy."""
    return {"title": "mandeldask run description"} | Config.model_json_schema()


def cluster_schema() -> dict[str, Any]:
    """The JSON schema of a cluster description in a file of its own; `configs/clusters/schema.json` is a copy."""
    return {"title": "mandeldask cluster description"} | TypeAdapter(Cluster).json_schema()
