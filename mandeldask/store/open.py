"""Opening and creating: only the field description decides whether a store is the one that is meant."""

from __future__ import annotations

import errno
import importlib
import json
import math
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from mandeldask.errors import StoreError
from mandeldask.store import metadata
from mandeldask.store.arrays import AXES, StoredSamples, dumps
from mandeldask.store.description import FORMAT_VERSION, READABLE, Description, Level, chunk_side
from mandeldask.store.place import PARTIAL, AnyPath, Place, place_of
from mandeldask.store.store import Store
from mandeldask.text import command, option

MAX_BLOCKS = 2**18  # tasks of an array: 300 MB in Dask
MAX_COORDINATES = 2**27  # 1 GiB of them
BLOCK_SIDE = 4096  # of a Dask block of `open_field`, in samples: 64 MiB of escape times


def open_store(path: AnyPath) -> Store:
    """Open an existing store.

    StoreError where nothing is, or something else: no store, one of another program or of another format version.
    """
    place, path = place_of(path), os.fspath(path)
    try:
        if not place.names() and not (place.is_folder and os.path.lexists(place.url)):
            raise StoreError(f"no store at {path}; compute one with `{command('run', 'CONFIG', '--out', path)}`")
        if place.is_folder and os.path.isfile(place.url):
            raise StoreError(f"{path} is not a store of mandeldask: it is a file, and a store is a directory")
        return _opened(place)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from None


def _repair(place: Place) -> str:
    return command("verify", place.url, "--repair")


def _opened(place: Place) -> Store:
    manifest = metadata.read_manifest(place)
    if manifest is None:
        mend = ""
        if metadata.read_copy(place):
            mend = f"; `{_repair(place)}` puts it back"
        elif metadata.is_unmade(place):
            again = command("run", "CONFIG", "--out", place.url)
            mend = f". A run was interrupted while it created this: `{again}` creates it again"
        raise StoreError(f"{place.url} is not a store of mandeldask: its root carries no field description{mend}")
    version = manifest["field"].get("format_version")
    if version not in READABLE:
        raise StoreError(
            f"{place.url} has format version {version}, and this mandeldask reads {READABLE[0]} to {FORMAT_VERSION}: "
            "open it with the mandeldask that wrote it"
        )
    if manifest.get("digest", metadata.digest(manifest)) != metadata.digest(manifest):
        raise StoreError(
            f"the field description of {place.url} was changed since the store was made; "
            f"`{_repair(place)}` puts the right one back"
        )
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
    except StoreError:
        place = place_of(path)
        with suppress(OSError, StoreError, KeyError, TypeError, ValueError):
            found, copy = metadata.read_manifest(place), metadata.read_copy(place) or {}
            if found is None or found.get("digest") != metadata.digest(found):  # lost, or edited by hand
                store = Store(place, str(copy["identity"]), Description.from_json(copy["field"]))
                edited = "has another field description than the store was made with"
                return store, edited if found else "has no field description"
        raise


def open_field(path: AnyPath, level: int = 0) -> Any:
    """Open a store to read its field: an xarray Dataset of lazy Dask arrays, or a Zarr group where xarray is missing.

    Either way `opened["escape_time"]` is int32 of shape (y, x), 0 where not computed yet, and `opened["x"]`,
    `opened["y"]` are the coordinates; at level k every 2^k-th of them. Raises StoreError as `open_store` does.
    """
    store = open_store(path)
    d = store.description
    if not 0 <= level < len(d.levels):
        raise StoreError(f"{store.path} has the levels 0 to {len(d.levels) - 1}; got {level}")
    fitting = [
        k for k, here in enumerate(d.levels) if _blocks(here) <= MAX_BLOCKS and sum(here.shape) <= MAX_COORDINATES
    ]
    if level not in fitting:
        size, remedy = " x ".join(map(str, d.levels[level].shape)), f": open its level {fitting[0]}" if fitting else ""
        raise StoreError(f"level {level} of {store.path}, {size} samples, is too large for Dask{remedy}")
    for key, problem in metadata.problems(store.place, d):
        if key.startswith(f"{level}/"):  # a description that claims more than was made
            raise metadata.damaged(store.place, key, problem)
    try:
        xarray = importlib.import_module("xarray")
    except ImportError:
        return zarr.open_group(store.place.zarr(), path=str(level), mode="r", use_consolidated=False)
    from dask.array import from_array

    def variable(name: str, values: Any) -> Any:
        dims = (name,) if name in AXES else AXES
        return xarray.Variable(dims, values, dict(store.array(level, name).attrs))

    fields = {}
    for name in d.fields:
        samples = StoredSamples(store, level, name)
        blocks = _block(samples.chunks)
        lazy = from_array(samples, blocks, name=f"{name}-{uuid.uuid4().hex}", meta=np.empty((0, 0), samples.dtype))
        fields[name] = variable(name, lazy)
    shape, stride = d.shape, d.levels[level].stride
    coordinates = {name: variable(name, d.view.axis(name, (0, n), stride)) for name, n in zip(AXES, shape, strict=True)}
    return xarray.Dataset(fields, coordinates, {metadata.KEY: json.dumps(d.to_json())})


def _block(chunks: tuple[int, int]) -> tuple[int, ...]:
    """Rows and columns of samples of a Dask block: whole chunks."""
    return tuple(side * max(1, BLOCK_SIDE // side) for side in chunks)


def _blocks(level: Level) -> int:
    sides = _block((chunk_side(level.tile[0]), chunk_side(level.tile[1])))
    return math.prod(-(-n // side) for n, side in zip(level.shape, sides, strict=True))


def open_for_writing(
    path: AnyPath,
    description: Description,
    given: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Store:
    """Create the store, or open the one that is there if it holds the same field.

    `given` are the view's decimal digits as the user wrote them; they are kept beside the description. To `overwrite`
    replaces what is there, the same field too; only what carries our own description is ever removed. StoreError for
    another field, by what differs, for something that is not ours, and for a place that cannot be written.
    """
    place, path = place_of(path), os.fspath(path)
    if problem := description.problem():
        raise StoreError(problem)
    try:
        if place.is_folder and Path(place.url).is_file():
            raise StoreError(f"{path} is a file; a store is a directory: choose another path")
        # a writer killed at the very start leaves nothing but the temporary file of the root's metadata
        there = [name for name in place.names() if not PARTIAL.fullmatch(name)]
        unmade = there and metadata.is_unmade(place)
        if there and not unmade and metadata.read_manifest(place) is None:
            raise StoreError(
                f"{path} holds something else, not a store of mandeldask, and is left alone: choose another path"
            )
        if unmade:
            return _create(place, description, given or {}, place.put)  # which leaves alone what else is there
        if there and not overwrite:
            return _continued(place, description, path)
        if there:
            if foreign := list(islice(metadata.strays(place), 3)):
                raise StoreError(f"{path} also holds {', '.join(foreign)}: move that away before you overwrite it")
            place.remove()
        elif inside := next((p.url for p in place.above() if _is_ours(p)), None):
            raise StoreError(f"{path} lies inside {inside}, a store itself: choose another path")
        return _create(place, description, given or {}, place.create)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; choose another path") from None


def _continued(place: Place, description: Description, path: str) -> Store:
    """The store that is there, to go on with, where it holds the same field in today's format."""
    store = _opened(place)
    version = store.description.format_version
    if different := store.description.differences(description):
        raise StoreError(
            f"{path} holds another field: {'; '.join(different)}. Choose another path, or replace it with "
            f"{option('overwrite')}"
        )
    as_today = version == 3 and (description.exact or "smooth" not in description.fields)
    if version != description.format_version and not as_today:
        raise StoreError(
            f"{path} has format version {version}, which this mandeldask reads but does not write: compute it again "
            f"into another path or with {option('overwrite')}, or finish it with the mandeldask that wrote it"
        )
    if place.is_folder and not os.access(place.url, os.W_OK):
        raise PermissionError(errno.EACCES, "Permission denied")
    metadata.complete(place, description)
    return store


def _create(
    place: Place, description: Description, given: Mapping[str, Any], write: Callable[[str, bytes], None]
) -> Store:
    """A new store; `write` gives the root its name."""
    identity = uuid.uuid4().hex
    manifest = metadata.new_manifest(description, identity, given)
    write("zarr.json", dumps(metadata.root(manifest, description)))
    if (metadata.read_manifest(place) or {}).get("identity") != identity:
        return _continued(place, description, place.url)  # another run came first
    metadata.complete(place, description)
    return Store(place, identity, description)


def _is_ours(place: Place) -> bool:
    with suppress(OSError, StoreError):  # credentials may be for a prefix alone
        return metadata.read_manifest(place) is not None
    return False
