"""Opening and creating: a store is held against its own description before a byte of it is decoded."""

from __future__ import annotations

import errno
import importlib
import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import StoreError
from mandeldask.store import layout
from mandeldask.store.description import FORMAT_VERSION, Description
from mandeldask.store.place import PARTIAL, AnyPath, Folder, Place, place_of
from mandeldask.store.stored import Samples, Store


def open_store(path: AnyPath) -> Store:
    """Open an existing store.

    Raises
    ------
    StoreError
        Nothing there, no store, a store of another program, or of another format version; arrays that are not as the
        store's own description has them.
    """
    place = place_of(path)
    path = _as_given(path)
    try:
        if not place.names() and not os.path.lexists(place.url):
            raise StoreError(f"no store at {path}; compute one with `mandeldask run CONFIG --out {path}`")
        return _opened(place)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from None


def _opened(place: Place) -> Store:
    manifest = layout.manifest(place)
    if manifest is None:
        mend = layout.copy_of_manifest(place) and f"; `mandeldask verify {place.url} --repair` puts it back"
        raise StoreError(f"{place.url} is not a store of mandeldask: its root carries no field description{mend or ''}")
    version = manifest["field"].get("format_version")
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{place.url} has format version {version}, and this mandeldask reads {FORMAT_VERSION}: "
            "open it with the mandeldask that wrote it"
        )
    if manifest.get("digest", layout.digest(manifest)) != layout.digest(manifest):
        raise _edited(place)
    try:
        return Store(place, str(manifest["identity"]), Description.from_json(manifest["field"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{place.url} has a damaged field description: {error!r}") from None


def open_damaged(path: AnyPath) -> tuple[Store, str]:
    """Open a store, by the copy beside the field where its description is lost; what is wrong with it, "" if nothing.

    Raises StoreError as `open_store` does, where there is no such copy.
    """
    try:
        return open_store(path), ""
    except StoreError as error:
        place = place_of(path)
        try:
            found, copy = layout.manifest(place), layout.copy_of_manifest(place)
        except OSError:  # it says why
            raise error from None
        if copy is None or (found and found.get("digest") == layout.digest(found)):  # it was not edited
            raise
        try:
            store = Store(place, str(copy["identity"]), Description.from_json(copy["field"]))
        except (KeyError, TypeError, ValueError):
            store = None
        if store is None:
            raise
        return (
            store,
            "has another field description than the store was made with" if found else "has no field description",
        )


def open_field(path: AnyPath, level: int = 0) -> Any:
    """Open a store to read its field: an xarray Dataset of lazy Dask arrays, or a Zarr group where xarray is missing.

    Either way `opened["escape_time"]` is int32 of shape (y, x), 0 where not computed yet, and `opened["x"]`,
    `opened["y"]` are the coordinates; at level k every 2^k-th of them. Raises StoreError as `open_store` does.
    """
    store = open_store(path)
    levels = len(store.description.levels)
    if not 0 <= level < levels:
        raise StoreError(f"{store.path} has the levels 0 to {levels - 1}; got {level}")
    check(store)
    try:
        lazy: Any = importlib.import_module("mandeldask.store.dataset")
    except ImportError:
        return layout.open_group(store.place, str(level))
    d = store.description
    parts: dict[str, list[NDArray[np.float64]]] = {"y": [], "x": []}
    for chunk in layout.coordinates(d, d.levels[level]):
        parts[chunk.name].append(chunk.values)
    return lazy.dataset(
        {name: Samples(store, level, name) for name in d.fields},
        {name: np.concatenate(values) for name, values in parts.items()},
        {name: json.loads(layout.documents(d)[f"{level}/{name}/zarr.json"]) for name in (*d.fields, "y", "x")},
        d,
        f"{store.identity}-{level}",
    )


def check(store: Store) -> None:
    """Check the arrays against the store's own description, before others decode a byte of them.

    Raises
    ------
    StoreError
        Names the first that is missing, or other than it must be.
    """
    problems = layout.problems(store.place, store.description)
    if problems:
        raise StoreError(
            f"{store.path} is not as its description has it: {problems[0]}; `mandeldask verify {store.path}` "
            f"names all, `mandeldask resume {store.path}` makes what is missing"
        )


def open_for_writing(
    path: AnyPath,
    description: Description,
    given: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Store:
    """Create the store, or open the one that is there if it holds the same field.

    Parameters
    ----------
    given : mapping, optional
        The view's decimal digits as the user wrote them; kept beside the description.
    overwrite : bool
        Replace what is there, the same field too. Only what carries our own description is ever removed.

    Raises
    ------
    StoreError
        Another field (names what differs), something that is not ours, a place that cannot be written.
    """
    place = place_of(path)
    path = _as_given(path)
    problem = description.problem()
    if problem:
        raise StoreError(problem)
    try:
        if isinstance(place, Folder) and Path(place.url).is_file():
            raise StoreError(f"{path} is a file; a store is a directory: choose another --out")
        # a writer killed at the very start leaves nothing but the temporary file of the root's metadata
        there = [name for name in place.names() if not PARTIAL.fullmatch(name)]
        if there:
            if layout.manifest(place) is None:
                raise StoreError(
                    f"{path} holds something else than a store of mandeldask, and is left alone: choose another --out"
                )
            if not overwrite:
                return _same(place, description, path)
            foreign = list(islice(layout.strays(place), 3))
            if foreign:
                raise StoreError(f"{path} also holds {', '.join(foreign)}: move that away before you --overwrite it")
            place.remove()
        else:
            inside = next((p.url for p in place.above() if _is_ours(p)), None)
            if inside:
                raise StoreError(f"{path} lies inside {inside}, a store itself: choose another --out")
        return _create(place, description, given or {})
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; choose another --out") from None


def _same(place: Place, description: Description, path: str) -> Store:
    store = _opened(place)
    different = store.description.differences(description)
    if different:
        raise StoreError(
            f"{path} holds another field: {'; '.join(different)}. Choose another --out, or replace it with --overwrite"
        )
    if isinstance(place, Folder) and not os.access(place.url, os.W_OK):
        raise PermissionError(errno.EACCES, "Permission denied")
    found = layout.problems(place, description)
    wrong = [problem for problem in found if not problem.missing]
    if wrong:
        raise StoreError(
            f"{path} is damaged: {wrong[0]}; `mandeldask verify {path} --repair` mends it; or choose another --out"
        )
    layout.make(place, description, found)
    return store


def _create(place: Place, description: Description, given: Mapping[str, Any]) -> Store:
    store = Store(place, uuid.uuid4().hex, description)
    manifest = {"field": description.to_json(), "identity": store.identity, "given": dict(given)}
    manifest["digest"] = layout.digest(manifest)
    if not place.create("zarr.json", layout.dumps(layout.root(manifest, description))):
        return _same(place, description, place.url)  # another run came first
    layout.make(place, description)
    return store


def _as_given(path: AnyPath) -> str:
    return os.fspath(path) if isinstance(path, str | os.PathLike) else path.url


def _is_ours(place: Place) -> bool:
    with suppress(OSError, StoreError):  # credentials may be for a prefix alone
        return layout.manifest(place) is not None
    return False


def _edited(place: Place) -> StoreError:
    return StoreError(
        f"the field description of {place.url} was changed since the store was made; "
        f"`mandeldask verify {place.url} --repair` puts the right one back"
    )
