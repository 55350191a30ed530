"""What a caller may give as a run description, read to a `Config`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mandeldask import config as configs
from mandeldask.store import open_store

AnyCluster = configs.Cluster | Mapping[str, Any] | str | os.PathLike[str]
AnyConfig = configs.Config | Mapping[str, Any] | str | os.PathLike[str]


def read(config: AnyConfig, overrides: Sequence[str], out: str | os.PathLike[str] | None) -> configs.Config:
    """The description, with what the caller changes in it."""
    if isinstance(config, configs.Config):
        config = configs.parse(config.model_dump(), overrides=overrides) if overrides else config
    elif isinstance(config, Mapping):
        config = configs.parse(config, overrides=overrides)
    else:
        config = configs.load(config, overrides)
    return config if out is None else config.model_copy(update={"store": os.fspath(out)})


def of_store(path: str | os.PathLike[str], kernel: str) -> dict[str, object]:
    """The run description, as a mapping, that goes on with a store."""
    store = open_store(path)
    d = store.description
    return {
        "view": d.view,
        "max_iter": d.max_iter,
        "fields": list(d.fields),
        "tile": list(d.tile),
        "store": store.path,
        "kernel": kernel,
    }
