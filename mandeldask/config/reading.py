"""YAML files, mappings and `--set` options, read to checked descriptions."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from mandeldask.config.clusters import KINDS, Cluster
from mandeldask.config.messages import Sections, config_error, explain, show
from mandeldask.config.run import Config, PictureDescription
from mandeldask.config.strict_yaml import MAX_BYTES, read_yaml
from mandeldask.config.values import Section
from mandeldask.config.view import ViewDescription

AnyCluster = Cluster | Mapping[str, Any] | str | os.PathLike[str]  # what `load_cluster` takes
Model = TypeVar("Model", bound=Section)

# The ways to place a view: a key set on the command line drops those of the file that do not go with it.
PLACES = ({"x", "y"}, {"centre", "span", "rotation"}, {"centre", "projection", "radius"})


class _ClusterAlone(Section):
    """A cluster description in a file of its own, read as if it stood in a run description."""

    cluster: Cluster


_SECTIONS: Sections = {
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
    mapping = read_file(path)
    if mapping is None:
        raise config_error(f"{path}: is empty; a run description needs at least view and max_iter")
    return parse(mapping, os.fspath(path), overrides)


def parse(mapping: Mapping[str, Any], source: str = "run description", overrides: Iterable[str] = ()) -> Config:
    """Check a run description given as a dict, with the keys of the YAML file; `view` may be a `View`.

    Takes what `Config.model_dump()` gives. `source` is what error messages call it; `overrides` are as for `load`.

    Raises
    ------
    ConfigError
        A line for each fault.
    """
    changes = dict(map(_split, overrides))
    if not changes:
        return _check(Config, mapping, source)
    changed = copy.deepcopy(mapping)
    if isinstance(changed, dict):
        _apply(changed, changes)
    return _check(Config, changed, f"{source} with --set")


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
        return _check(_ClusterAlone, {"cluster": dict(cluster)}, "cluster description").cluster
    text, source = os.fspath(cluster), "--cluster"
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
        raise config_error(
            "--cluster takes the address of a scheduler (tcp://HOST:PORT), a YAML file, a scheduler file (.json) or "
            f"the word local; there is no file {show(text)}"
        )
    return _check(_ClusterAlone, {"cluster": described}, source).cluster


def read_file(path: str | os.PathLike[str]) -> Any:
    """The value of a YAML file; ConfigError where it cannot be read, or is not such a file."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise config_error(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return read_yaml(data, os.fspath(path))


def _split(override: str) -> tuple[tuple[str, ...], Any]:
    key, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise config_error(f"--set takes KEY=VALUE, such as view.shape=[4096,4096]; got {show(override)}")
    return keys, read_yaml(text.encode(errors="surrogatepass"), f"--set {key}")


def _apply(mapping: dict[str, Any], changes: Mapping[tuple[str, ...], Any]) -> None:
    """Set every key of `changes` in `mapping`, in place."""
    every = set().union(*PLACES)
    placed = {keys[1] for keys, value in changes.items() if keys[0] == "view" and keys[1:] and value is not None}
    fitting = [place for place in PLACES if placed & every and placed & every <= place]
    view = mapping.get("view")
    if fitting and isinstance(view, dict):
        for key in every.difference(*fitting):
            view.pop(key, None)
    for keys, value in changes.items():
        section = mapping
        for key in keys[:-1]:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise config_error(f"--set {'.'.join(keys)}: {key} has no keys of its own")
        section[keys[-1]] = value


def _check(model: type[Model], mapping: Any, source: str) -> Model:
    try:
        return model.model_validate(dict(mapping) if isinstance(mapping, Mapping) else mapping)
    except ValidationError as error:
        raise explain(error, source, _SECTIONS) from None
