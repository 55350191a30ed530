"""YAML files, mappings and `--set` options, read to checked descriptions; errors name the key, the rule and the value.

YAML is one document of YAML 1.2, read strictly: no anchors, aliases, tags or duplicate keys; numbers keep all digits.
"""

from __future__ import annotations

import copy
import difflib
import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn, TypeVar, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mandeldask.config.examples import locate, no_such
from mandeldask.config.models import (
    Cluster,
    Config,
    LocalCluster,
    PictureDescription,
    ViewDescription,
)
from mandeldask.config.values import NUMBER, Section
from mandeldask.errors import ConfigError, check_type
from mandeldask.text import command, option, printable
from mandeldask.view import as_centre

AnyCluster = Cluster | Mapping[str, Any] | str | os.PathLike[str]  # what `load_cluster` takes
Model = TypeVar("Model", bound=Section)

MAX_BYTES = 64 * 1024  # of a file
MAX_ERRORS = 5
MAX_LINE = 400  # characters
# The ways to place a view: a key set on the command line drops those of the file that do not go with it.
PLACES = (
    {"x", "y"},
    {"centre", "span", "rotation"},
    {"centre", "projection", "radius"},
    {"centre", "unit", "x", "y", "rotation"},
)


class _ClusterAlone(Section):
    """A cluster description in a file of its own, read as if it stood in a run description."""

    cluster: Cluster


_SECTIONS: dict[tuple[str | int, ...], type[Section]] = {  # by their places, that of a cluster with its kind
    (): Config,
    ("view",): ViewDescription,
    ("picture",): PictureDescription,
    **{
        ("cluster", kind): model
        for model in get_args(get_args(Cluster)[0])
        for kind in get_args(model.model_fields["kind"].annotation)
    },
}
# Where pydantic speaks of Python, its name of the fault and what is said instead.
_RULES = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be an integer",
    "model_attributes_type": "must be a mapping, KEY: VALUE",
    "model_type": "must be a mapping, KEY: VALUE",
    "string_type": "must be text (in quotes if it looks like a number)",
    "too_long": "must be two numbers",  # no other list has a length
    "tuple_type": "must be a list",
    "union_tag_invalid": "kind must be one of {expected_tags}; got {tag}",
}


def load(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Config:
    """Read and check one YAML file, or one that comes with mandeldask, by its name: `lesson`, `gallery/shell`.

    ConfigError has a line for each fault.

    `overrides` are `KEY=VALUE` strings, with dotted keys and YAML values, that replace what the file says:
    `max_iter=500`, `view.shape=[4096,4096]`, `tile=null`. Centre or span set here drops the file's x and y, and x or y
    set here drops the file's centre and span; to set both kinds is an error.
    """
    mapping = read_file(path)
    if mapping is None:
        raise _error(f"{path}: is empty; a run description needs at least view and max_iter")
    return parse(mapping, os.fspath(path), overrides)


def parse(mapping: Mapping[str, Any], source: str = "run description", overrides: Iterable[str] = ()) -> Config:
    """Check a run description given as a dict, with the keys of the YAML file; `view` may be a `View`.

    Takes what `Config.model_dump()` gives. `source` is what error messages call it; `overrides` are as for `load`.
    """
    if isinstance(mapping, Mapping) and isinstance(view := mapping.get("view"), Mapping):
        mapping = {**mapping, "view": as_centre(view, f"{source}: view")}
    check_type("overrides", overrides, list | tuple, "a list of KEY=VALUE, such as ['max_iter=500']")
    changes = dict(map(_split, overrides))
    if not changes:
        return _check(Config, mapping, source)
    changed = _changed(dict(mapping), changes) if isinstance(mapping, Mapping) else mapping
    return _check(Config, changed, f"{source} with --set")


def picture_options(config: Config) -> dict[str, Any]:
    """The options of its picture that a description gives."""
    return config.picture.model_dump(exclude_none=True) if config.picture else {}


def refuse_untrusted(cluster: Cluster | None) -> None:
    """ConfigError for a cluster of a file from anybody that could run programs as the user: any but worker processes.

    A class and a batch system do so here; a scheduler may send its clients pickled objects that do.
    """
    if not isinstance(cluster, LocalCluster | None):
        raise ConfigError(
            f"the description names a cluster of kind {cluster.kind}, which can run any program as you: if you trust "
            f"the file, add {option('trust')}, or name a cluster of your own (cluster=, or --cluster FILE)"
        )


def load_cluster(cluster: AnyCluster) -> Cluster:
    """Read and check a cluster description: a scheduler's address, the path of a YAML file, or a mapping.

    The file holds what `cluster:` holds in a run description; a run description does too, for its `cluster:`. A file
    that ends in .json is what `dask scheduler --scheduler-file` writes. ConfigError has a line for each fault.
    """
    if isinstance(cluster, Section):
        return cluster
    if isinstance(cluster, Mapping):
        return _check(_ClusterAlone, {"cluster": dict(cluster)}, "cluster description").cluster
    takes = "the address of a scheduler, the path of a YAML file, or a mapping"
    check_type("cluster", cluster, str | os.PathLike, takes, "A distributed.Client goes into client=")
    text, source = os.fspath(cluster), ""
    if "://" in text:
        described: Any = {"kind": "address", "address": text}
    elif text == "local":
        described = {"kind": "local"}
    elif text.endswith(".json"):
        described = {"kind": "scheduler-file", "path": text}
    elif os.path.exists(text):
        described, source = read_file(text), text
        if isinstance(described, dict) and "cluster" in described:
            described = described["cluster"]
    else:
        raise _error(
            "cluster must be the address of a scheduler (tcp://HOST:PORT), a YAML file, a scheduler file (.json) or "
            f"the word local; there is no file {_show(text)}"
        )
    return _check(_ClusterAlone, {"cluster": described}, source).cluster


def read_file(path: str | os.PathLike[str]) -> Any:
    """The value of a YAML file, or of one that comes with mandeldask, by its name; ConfigError where it is neither."""
    path = locate(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise _error(f"{path}: must be a YAML file, and is a folder; `{command('resume')}` takes a store") from None
    except FileNotFoundError as error:
        raise _error(f"{path}: cannot be read: {error.strerror}, and {no_such(path)}") from None
    except (OSError, ValueError) as error:
        raise _error(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return _read_yaml(data, path)


def _split(override: str) -> tuple[tuple[str, ...], Any]:
    check_type("an override", override, str, "KEY=VALUE, such as 'max_iter=500'")
    key, equals, text = override.partition("=")
    keys = tuple("centre" if part.strip() == "center" else part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise _error(f"--set takes KEY=VALUE, such as 'view.shape=[4096,4096]'; got {_show(override)}")
    return keys, _read_yaml(text.encode(errors="surrogatepass"), f"--set {key}")


def _changed(mapping: dict[str, Any], changes: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """The mapping with every key of `changes` set."""
    mapping = copy.deepcopy(mapping)
    every = set().union(*PLACES)
    placed = every & {
        keys[1] for keys, value in changes.items() if keys[0] == "view" and keys[1:] and value is not None
    }
    fitting = [place for place in PLACES if placed and placed <= place and ("unit" in placed) == ("unit" in place)]
    if fitting and isinstance(view := mapping.get("view"), dict):
        for key in every.difference(*fitting):
            view.pop(key, None)
    for keys, value in changes.items():
        section = mapping
        for key in keys[:-1]:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise _error(f"--set {'.'.join(keys)}: {key} has no keys of its own")
        section[keys[-1]] = value
    return mapping


# YAML


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 (as PyYAML has it)
        None: [
            ("tag:yaml.org,2002:null", re.compile(r"(?:null|Null|NULL|~|)\Z")),
            ("tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")),
            ("tag:yaml.org,2002:float", re.compile(rf"(?:{NUMBER})\Z")),
        ]
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
            _refuse("anchors, aliases and tags (&, * and !) are not allowed: write the value out", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                _refuse(f"keys must be words; got {_show(key)}", key_node.start_mark)
            if key in mapping:
                _refuse(f"the key {key} is given twice", key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping

    def construct_number(self, node: yaml.ScalarNode) -> Decimal | str:
        try:
            return Decimal(node.value)  # a float would lose digits
        except InvalidOperation:  # an exponent beyond Decimal's
            return str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def _refuse(rule: str, mark: yaml.Mark) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=rule, problem_mark=mark)


def _read_yaml(data: bytes, source: str) -> Any:
    """The value of one YAML document: dicts, lists, text, Decimals, booleans, None."""
    if len(data) > MAX_BYTES:
        raise _error(f"{source}: is no description: that is a YAML file of at most {MAX_BYTES // 1024} KiB")
    try:
        return yaml.load(data.decode("utf-8-sig"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _error(f"{source}{where}: {', '.join(filter(None, (error.context, error.problem)))}") from None
    except RecursionError:
        raise _error(f"{source}: is nested too deep") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML lets chr() and int() fail
        raise _error(f"{source}: is not YAML in UTF-8: {getattr(error, 'reason', error)}") from None


# Errors


def _check(model: type[Model], mapping: Any, source: str) -> Model:
    """The section, or ConfigError with a line for each of the first faults."""
    try:
        return model.model_validate(dict(mapping) if isinstance(mapping, Mapping) else mapping)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    start = source and f"{source}: "
    lines = [str(_error(f"{start}{_explain(fault)}")) for fault in faults[:MAX_ERRORS]]
    more = [f"{source}: and {len(faults) - MAX_ERRORS} more"] if len(faults) > MAX_ERRORS else []
    raise ConfigError("\n".join(lines + more))


def _explain(fault: ErrorDetails) -> str:
    location = fault["loc"]
    if location[0:1] == ("cluster",):
        location = "cluster", *location[2:]  # without its kind
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if fault["type"] == "extra_forbidden":
        there = [*_SECTIONS[fault["loc"][:-1]].model_fields]
        elsewhere = [
            ".".join(map(str, (*place[:1], name))) for place in _SECTIONS for name in _SECTIONS[place].model_fields
        ]
        close = difflib.get_close_matches(str(location[-1])[:50].lower(), [*there, *elsewhere], n=1)
        return f"unknown key `{key}`; " + (f"did you mean `{close[0]}`?" if close else f"there are {', '.join(there)}")
    if fault["type"] == "missing" and isinstance(location[-1], int):
        return f"{key.rpartition('[')[0]} {_RULES['too_long']}; got {_show(fault['input'])}"
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] in _RULES:
        rule = _RULES[fault["type"]].format_map(fault.get("ctx", {}))
    else:
        rule = re.sub(r"^\w+ should", "must", fault["msg"].removeprefix("Value error, "))
    if fault["type"] == "tuple_type" and isinstance(fault["input"], str) and "," in fault["input"]:
        rule += f", in brackets (--set '{key}=[{fault['input']}]')"
    if isinstance(fault["input"], Mapping):  # the rule is one of several keys, and names them
        return f"{key}: {rule}" if key else rule
    return f"{key} {rule}; got {_show(fault['input'])}".lstrip()


class _Shown(reprlib.Repr):
    def repr_Decimal(self, value: Decimal, level: int) -> str:  # noqa: N802 (named for the type)
        return self.repr_int(value, level).removeprefix("Decimal('").removesuffix("')")  # type: ignore[arg-type]


_show = _Shown().repr


def _error(text: str) -> ConfigError:
    """An error on one line of bounded length, which a terminal can show."""
    line = printable(text)
    return ConfigError(line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 103]}...{line[-100:]}")
