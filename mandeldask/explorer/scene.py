"""What an explorer shows: a store, or the view of a run description whose store is not there yet."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from mandeldask.config import Config, load
from mandeldask.errors import ConfigError, StoreError
from mandeldask.explorer.tiles import MAX_ITER, SIDE
from mandeldask.image import palette
from mandeldask.kernels import AUTO, choose
from mandeldask.store import Description, Store, open_store
from mandeldask.text import short_path
from mandeldask.view import View

COLORMAPS = ("classic", "viridis", "magma", "inferno", "plasma", "cividis", "turbo")


@dataclass(frozen=True)
class Scene:
    """The home view, and the store that has its samples, if there is one."""

    name: str
    view: View
    max_iter: int
    kernel: str
    store: Store | None = None
    config: Config | None = None

    def __post_init__(self) -> None:
        if self.view.frame is not None:
            raise ConfigError(
                f"the explorer shows upright rectangles, and this is {self.view}; "
                "draw it with `mandeldask image STORE OUT.png`"
            )

    def tiles(self) -> tuple[int, int]:
        """How many tiles of the store are done, and how many there are, of all its levels."""
        done = [self.store.done(level.number) for level in self.store.description.levels] if self.store else []
        return sum(int(level.sum()) for level in done), sum(level.size for level in done)

    def to_json(self) -> dict[str, Any]:
        """What the page needs to know of it."""
        d = self.store.description if self.store else None
        levels = d.levels if d else ()
        return {
            "name": self.name,
            "x": [exact(v) for v in self.view.x],
            "y": [exact(v) for v in self.view.y],
            "rows": self.view.shape[0],
            "columns": self.view.shape[1],
            "registration": self.view.registration,
            "max_iter": self.max_iter,
            "max_iter_limit": MAX_ITER,
            "side": SIDE,
            "stored": d is not None,
            "smooth": d is not None and "smooth" in d.fields,
            "levels": [{"rows": v.shape[0], "columns": v.shape[1], "stride": v.stride} for v in levels],
            "colormaps": {name: [list(colour) for colour in palette(name)[1:255]] for name in COLORMAPS},
        }


def exact(value: float) -> str:
    """All the decimal digits of a binary64 number."""
    return format(Decimal(value), "f")


def open_scene(path: str) -> Scene:
    """The scene of a store, or of a run description with its store, if that exists and holds the same field.

    Raises
    ------
    ConfigError
        There is neither; a run description with a fault; a turned view or a log-polar strip.
    StoreError
        The store is not one of mandeldask's, or damaged.
    """
    if os.path.isfile(path):
        return _of_config(path)
    if not os.path.lexists(path) and Path(path).suffix.lower() in (".yaml", ".yml"):
        raise ConfigError(f"{path}: no such file")
    store = open_store(path)
    d = store.description
    return Scene(Path(store.path).name, d.view, d.max_iter, choose(AUTO)[0], store)


def _of_config(path: str) -> Scene:
    config = load(path)
    kernel, _ = choose(config.kernel, config.view)
    store = _same_field(config)
    name = Path(store.path).name if store else Path(path).name
    return Scene(name, config.view, config.max_iter, kernel, store, config)


def _same_field(config: Config) -> Store | None:
    """The store that the description names, if it exists and holds its field, in tiles of any size."""
    if not config.store or not os.path.lexists(config.store):
        return None
    store = open_store(config.store)
    d = store.description
    wanted = replace(Description.of(config.view, config.max_iter, d.fields, d.tile), format_version=d.format_version)
    if d != wanted:
        raise StoreError(
            f"{short_path(store.path)} holds another field than the run description: "
            f"{'; '.join(d.differences(wanted))}. "
            f"Look at the store itself, `mandeldask explore {short_path(store.path)}`, or name another in the "
            "description"
        )
    return store
