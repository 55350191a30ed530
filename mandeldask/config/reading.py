"""YAML files, mappings and `--set` options, read to checked descriptions."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from mandeldask.config.clusters import KINDS, Cluster
from mandeldask.config.messages import Keys, explain, one_line, show
from mandeldask.config.picture import PictureDescription
from mandeldask.config.run import Config
from mandeldask.config.strict_yaml import MAX_BYTES, read_yaml
from mandeldask.config.values import Section
from mandeldask.config.view import ViewDescription
from mandeldask.errors import ConfigError

AnyCluster = Cluster | Mapping[str, Any] | str | os.PathLike[str]  # what `load_cluster` takes
Model = TypeVar("Model", bound=Section)


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
    mapping = read_file(name, "run description")
    if mapping is None:
        raise ConfigError(one_line(f"{name}: is empty; a run description needs at least view and max_iter"))
    changes = dict(_split(override) for override in overrides)
    if isinstance(mapping, dict):
        _apply(mapping, changes)
    return _check(Config, mapping, name, changes)


def read_file(path: str, what: str) -> Any:
    """The value of a YAML file; ConfigError where it cannot be read, or is not such a file."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(one_line(f"{path}: cannot read the {what}: {reason}")) from None
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
            raise ConfigError(one_line(f"--cluster takes an address with its protocol; did you mean tcp://{text}?"))
        if not os.path.exists(text):
            raise ConfigError(
                one_line(
                    f"--cluster takes the address of a scheduler (tcp://HOST:PORT), a YAML file, a scheduler file "
                    f"(.json) or the word local; there is no file {show(text)}"
                )
            )
        mapping, source = read_file(text, "cluster description"), text
        if isinstance(mapping, dict) and "cluster" in mapping:
            mapping = mapping["cluster"]
        if not isinstance(mapping, dict):
            raise ConfigError(one_line(f"{text}: a cluster description is a mapping, KEY: VALUE; got {show(mapping)}"))
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


def _split(override: str) -> tuple[tuple[str, ...], Any]:
    key, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise ConfigError(one_line(f"--set takes KEY=VALUE, such as view.shape=[4096,4096]; got {show(override)}"))
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
                raise ConfigError(one_line(f"--set {'.'.join(keys)}: {'.'.join(keys[: i + 1])} has no keys of its own"))
        section[keys[-1]] = value


def _check(model: type[Model], mapping: Any, source: str, changes: Collection[tuple[str, ...]]) -> Model:
    try:
        return model.model_validate(dict(mapping) if isinstance(mapping, Mapping) else mapping)
    except ValidationError as error:
        raise ConfigError(explain(error, _SECTIONS, source, changes)) from None
