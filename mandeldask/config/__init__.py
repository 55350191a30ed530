"""The run description: one YAML file, or a dict, to a frozen `Config` of checked values."""

from __future__ import annotations

import copy
import difflib
import json
import operator
import os
import re
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    Strict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, ErrorDetails, PydanticKnownError, core_schema

from mandeldask.config.strict_yaml import MAX_BYTES, NUMBER, read_yaml
from mandeldask.config.words import bare, line, show
from mandeldask.errors import ConfigError
from mandeldask.kernels import AUTO, KERNELS, MAX_ITER_LIMIT
from mandeldask.view import MAX_SIDE, Number, Registration, View

FieldName = Literal["escape_time", "smooth", "distance"]
MAX_ERRORS = 5

Keys = tuple[str | int, ...]  # ("view", "shape", 0) is view.shape[0]

_BYTES = r"[0-9]{1,15}(\.[0-9]{1,15})? ?([kmgtpKMGTP]i?)?[bB]?"  # a part of what dask.utils.parse_bytes reads


def _integer(value: Any) -> Any:
    if isinstance(value, float | Decimal) and float(value).is_integer() and value == int(value):
        return int(value)  # 1e5
    return operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


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


def _byte_size(value: Any) -> str | int:
    size = _integer(value)
    if isinstance(size, str) and re.fullmatch(_BYTES, size) and re.search("[1-9]", size):
        return size
    if isinstance(size, int) and not isinstance(size, bool) and 0 < size < 10**18:
        return size
    raise ValueError("must be a size above zero, a number and a unit")


def _path(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be a path of printable characters")
    return value


Count = Annotated[int, Strict(), Field(ge=1), BeforeValidator(_integer)]
Side = Annotated[int, Strict(), Field(ge=1, le=MAX_SIDE), BeforeValidator(_integer)]
Coordinate = Annotated[
    Number,
    PlainValidator(_coordinate),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{NUMBER}$"}]}),
]
ByteSize = Annotated[
    str | int,
    PlainValidator(_byte_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_BYTES}$"}]}),
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ViewDescription(_Section):
    """Which samples of the complex plane: x and y, or centre and span."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["x", "y"]}, {"required": ["centre", "span"]}]})

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
    shape: tuple[Side, Side] = Field(description="Samples: [rows (y), columns (x)].", examples=[[1000, 1000]])
    registration: Registration = Field(
        "gridline",
        description="gridline: the first and last samples lie on the bounds, as numpy.linspace has it. "
        "pixel: samples lie at the centres of cells that fill the bounds.",
        examples=["pixel"],
    )

    def build(self) -> View:
        """The `View` described; ConfigError where it breaks one of the view's own rules."""
        given = [key for key in ("x", "y", "centre", "span") if getattr(self, key) is not None]
        if given == ["x", "y"]:
            assert self.x is not None
            assert self.y is not None
            return View(self.x, self.y, self.shape, self.registration)  # type: ignore[arg-type]
        if given == ["centre", "span"]:
            assert self.centre is not None
            assert self.span is not None
            return View.around(self.centre, self.span, self.shape, self.registration)
        raise ValueError(f"needs x and y, or centre and span, and not both; has {', '.join(given) or 'none'}")


class _Built:
    """Tells pydantic to read a `View` from a ViewDescription, or take one as it is, and how to dump it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def build(value: Any, read: ValidatorFunctionWrapHandler) -> View:
            return value if isinstance(value, View) else read(value).build()

        def dump(view: View) -> dict[str, Any]:
            given = {key: digits if key != "span" else digits[0] for key, digits in view.given.items()}
            return {**given, "shape": list(view.shape), "registration": view.registration}

        return core_schema.no_info_wrap_validator_function(
            build,
            handler.generate_schema(ViewDescription),
            serialization=core_schema.plain_serializer_function_ser_schema(dump),
        )


class LocalCluster(_Section):
    """Worker processes on this machine, bound to loopback."""

    kind: Literal["local"] = Field("local", description="Where the workers run.", examples=["local"])
    workers: Count | None = Field(
        None, description="Worker processes; one for each usable core when left out.", examples=[4]
    )
    threads_per_worker: Count = Field(1, description="Threads of each worker.", examples=[1])
    memory_limit: ByteSize | None = Field(
        None, description="Memory of each worker; a fair share when left out.", examples=["4GiB"]
    )


class Config(_Section):
    """A mandeldask run: what to compute, with what, and where to put it."""

    view: Annotated[View, _Built()] = Field(
        description="Which samples of the complex plane: x and y, or centre and span; shape; registration.",
        examples=[{"x": [-2, 1], "y": [-1.5, 1.5], "shape": [1000, 1000]}],
    )
    max_iter: Annotated[int, Strict(), Field(ge=1, le=MAX_ITER_LIMIT), BeforeValidator(_integer)] = Field(
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
    cluster: LocalCluster = Field(
        default_factory=lambda: LocalCluster.model_validate({}),
        description="Who computes.",
        examples=[{"kind": "local", "workers": 4}],
    )
    store: Annotated[str, Strict(), AfterValidator(_path)] | None = Field(
        None,
        description="Path of the Zarr store to write, from where the command runs; --out overrides it.",
        examples=["run.zarr"],
    )


_SECTIONS: dict[Keys, type[_Section]] = {(): Config, ("view",): ViewDescription, ("cluster",): LocalCluster}
_KEYS = {section: list(model.model_fields) for section, model in _SECTIONS.items()}


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
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(line(f"{name}: cannot read the run description: {reason}")) from None
    mapping = read_yaml(data, name)
    if mapping is None:
        raise ConfigError(line(f"{name}: is empty; a run description needs at least view and max_iter"))
    changes = dict(_split(override) for override in overrides)
    if isinstance(mapping, dict):
        _apply(mapping, changes)
    return _check(mapping, name, changes)


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
    return _check(changed, source, changes)


def json_schema() -> dict[str, Any]:
    """The JSON schema of the YAML file, for editors; `configs/schema.json` is a copy."""
    return {"title": "mandeldask run description"} | Config.model_json_schema()


def _split(override: str) -> tuple[tuple[str, ...], Any]:
    key, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise ConfigError(line(f"--set takes KEY=VALUE, such as view.shape=[4096,4096]; got {show(override)}"))
    return keys, read_yaml(text.encode(errors="surrogatepass"), f"--set {key}")


def _apply(mapping: dict[Any, Any], changes: Mapping[tuple[str, ...], Any]) -> None:
    """Set every key of `changes` in `mapping`, in place."""
    set_here = {keys[1] for keys, value in changes.items() if keys[0] == "view" and keys[1:] and value is not None}
    bounds, around = set_here & {"x", "y"}, set_here & {"centre", "span"}
    view = mapping.get("view")
    if isinstance(view, dict) and bool(bounds) != bool(around):
        for key in ("centre", "span") if bounds else ("x", "y"):
            view.pop(key, None)
    for keys, value in changes.items():
        section = mapping
        for i, key in enumerate(keys[:-1]):
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise ConfigError(line(f"--set {'.'.join(keys)}: {'.'.join(keys[: i + 1])} has no keys of its own"))
        section[keys[-1]] = value


def _check(mapping: Any, source: str, changes: Collection[tuple[str, ...]]) -> Config:
    try:
        return Config.model_validate(dict(mapping) if isinstance(mapping, Mapping) else mapping)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    lines = []
    for fault in faults[:MAX_ERRORS]:
        set_here = fault["loc"] and any(all(map(operator.eq, keys, fault["loc"])) for keys in changes)
        lines.append(line(f"{source}{' with --set' if set_here else ''}: {_explain(fault)}"))
    if len(faults) > MAX_ERRORS:
        lines.append(line(f"{source}: and {len(faults) - MAX_ERRORS} more"))
    raise ConfigError("\n".join(lines)) from None


# What pydantic calls the fault, and what a user is told of it.
_RULES = {
    "extra_forbidden": "is no key here",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be an integer",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_type": "must be a mapping, KEY: VALUE",
    "string_type": "must be text (in quotes if it looks like a number)",
    "too_long": "must have {max_length} values",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}


def _explain(fault: ErrorDetails) -> str:
    """Key, rule, value and remedy of one fault."""
    keys: Keys = fault["loc"]
    context = fault.get("ctx", {})
    rule = _RULES[fault["type"]].format_map(context) if fault["type"] in _RULES else fault["msg"]
    key = "".join(f"[{k}]" if isinstance(k, int) else f".{bare(k)}" for k in keys).lstrip(".")
    if isinstance(context.get("error"), ConfigError):  # by View, which names the key and the value
        return f"{key}.{rule}" if re.split(r"\W", rule)[0] in _KEYS[keys] else f"{key}: {rule}"
    if fault["type"] == "extra_forbidden":
        return f"{key} {rule}{_did_you_mean(keys[-1], keys[:-1])}. Permitted: {', '.join(_KEYS[keys[:-1]])}"
    got = "" if fault["type"] == "missing" else f"; got {show(fault['input'])}"
    return f"{key} {rule}{got}{_example(keys, fault['type'])}".lstrip()


def _did_you_mean(word: object, section: Keys) -> str:
    close = difflib.get_close_matches(str(word)[:50].lower(), _KEYS[section], n=1)
    close += [".".join(map(str, (*other, word))) for other, names in _KEYS.items() if word in names]
    return f"; did you mean {close[0]}" if close else ""


def _example(keys: Keys, fault: str) -> str:
    names = tuple(key for key in keys if isinstance(key, str))
    field = _SECTIONS[names[:-1]].model_fields.get(names[-1]) if names and names[:-1] in _SECTIONS else None
    if not field or not field.examples or fault == "literal_error":
        return ""
    return f"; for example {names[-1]}: {json.dumps(field.examples[0])}"
