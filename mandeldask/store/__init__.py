"""The field on disk: a Zarr v3 hierarchy in which one tile is one shard, and a tile is done when its shards exist.

    STORE/                root attributes: the field description, under "mandeldask"; the levels, under "ome"
      0/escape_time       int32 (y, x); fill value 0 says *not computed*, for no finished sample is 0
      0/smooth, ...       float32 (y, x), other fields where asked for; written before the tile's escape_time
      0/y, 0/x            float64 coordinates: of c; in a turned view or a strip what `View.frame` says
      1/, 2/, ...         the same of every 2nd, 4th, ... sample, until one tile holds it
      tiles/seconds, ...  one value a tile, what its driver learned; losing the last seconds of it costs nothing

Storage in three verbs: `open_for_writing` (metadata, once), `Store.done` (what is there), `Store.write`
(one whole tile). This room knows no cluster: a `Store` is a small value that travels to the workers.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import DamagedError, StoreError
from mandeldask.kernels import FIELDS
from mandeldask.store import layout
from mandeldask.store.description import FORMAT_VERSION, Description, Level, Tile, chunk_side
from mandeldask.store.layout import KEY, TileColumns
from mandeldask.store.place import PARTIAL, AnyPath, Folder, Place, place_of
from mandeldask.store.shard import DamagedShardError, Shards

__all__ = [
    "FORMAT_VERSION",
    "KEY",
    "AnyPath",
    "DamagedShardError",
    "Description",
    "Folder",
    "Level",
    "Place",
    "Store",
    "Tile",
    "TileColumns",
    "chunk_side",
    "open_field",
    "open_for_writing",
    "open_store",
    "place_of",
    "shard_key",
]
_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True)
class Store:
    """An opened store, for any process that sees its place.

    `identity` changes when a store is replaced, so that no worker writes by old metadata.
    """

    place: Place
    identity: str
    description: Description

    @property
    def path(self) -> str:
        """The absolute path, or the URL."""
        return self.place.url

    def write(self, tile: Tile, block: NDArray[Any]) -> None:
        """Write one whole tile and its part of the fine levels: each shard at once and complete, the field's last.

        `block` holds escape times, or is structured with an item for each of the description's fields. Writing a tile
        twice gives the same bytes.

        Raises
        ------
        OSError
            The disk's error. No part of the shard is left where a reader looks.
        """
        self.check_identity()  # at every write: a worker may outlive its run
        for level in range(self.description.fine, -1, -1):
            part = block[:: 1 << level, :: 1 << level]
            self._put(level, tile, part)

    def write_level(self, level: int, tile: Tile) -> None:
        """Make one tile of a level above 0 from the shards of the level below.

        Raises
        ------
        DamagedError
            One of them is missing or damaged.
        OSError
            As for `write`.
        """
        self.check_identity()
        d, here = self.description, self.description.levels[level]
        (top, bottom), (left, right) = here.window(tile)
        kinds = [(name, FIELDS[name]) for name in d.fields]
        block = np.zeros((bottom - top, right - left), kinds)
        for child in d.children(level, tile):
            (y, y_end), (x, x_end) = d.levels[level - 1].window(child)
            # the first sample with an even index, and where it goes
            y, x = y + y % 2, x + x % 2
            window = slice(y // 2 - top, (y_end + 1) // 2 - top), slice(x // 2 - left, (x_end + 1) // 2 - left)
            for name in d.fields:
                samples = self.read_shard(child, level - 1, name)
                if samples is None:
                    raise self.damaged(child, level - 1, name, "is missing")
                block[name][window] = samples[samples.shape[0] - (y_end - y) :: 2, samples.shape[1] - (x_end - x) :: 2]
        self._put(level, tile, block)

    def _put(self, level: int, tile: Tile, block: NDArray[Any]) -> None:
        for name in sorted(self.description.fields, key="escape_time".__eq__):
            samples = block[name] if block.dtype.names else block
            key = shard_key(level, name, tile)
            self.place.put(key, self.shards(level, name).encode(samples))

    def done(self, level: int = 0) -> NDArray[np.bool_]:
        """Which tiles of a level are done, shape `Level.tiles`: those whose shards hold anything, in every field."""
        done = np.ones(self.description.levels[level].tiles, np.bool_)
        for name in self.description.fields:
            done &= self._listed(level, name)
        return done

    def _listed(self, level: int, name: str) -> NDArray[np.bool_]:
        done = np.zeros(self.description.levels[level].tiles, np.bool_)
        for tile, size in self.listing(level, name):
            done[tile] = size > 0  # a machine that lost its power may leave an empty file
        return done

    def listing(self, level: int, name: str) -> Iterator[tuple[Tile, int]]:
        """The tiles of an array whose shards are there, with their bytes."""
        rows, columns = self.description.levels[level].tiles
        for key, size in self.place.sizes(f"{level}/{name}/c"):
            match = _SHARD.fullmatch(key)
            tile = (int(match[1]), int(match[2])) if match else (rows, columns)
            if tile[0] < rows and tile[1] < columns and match and key == f"{tile[0]}/{tile[1]}":
                yield tile, size

    def discard(self, level: int, tile: Tile) -> None:
        """Take out a tile of a level, the field first: then it is not done, before anything else is gone."""
        self.check_identity()
        for name in sorted(self.description.fields, key="escape_time".__ne__):
            self.place.delete(shard_key(level, name, tile))

    def restore(self) -> None:
        """Put the field description back into the root's metadata, from the copy beside the field."""
        manifest = layout.copy_of_manifest(self.place)
        self.place.put("zarr.json", layout.dumps(layout.root(manifest or {}, self.description)))
        layout.consolidate(self.place, self.description)

    def read_shard(self, tile: Tile, level: int = 0, name: str = "escape_time") -> NDArray[Any] | None:
        """The samples of one tile; None where it is not done.

        Raises
        ------
        DamagedError
            It cannot be decoded.
        """
        shards = self.shards(level, name)
        data = self.place.get(shard_key(level, name, tile), size=shards.limit + 1)
        if not data:
            return None
        shape = self.description.levels[level].tile_shape(tile)
        try:
            return shards.decode(data, shape)
        except DamagedShardError as error:
            raise self.damaged(tile, level, name, str(error)) from None

    def read(self, tile: Tile, level: int = 0, name: str = "escape_time") -> NDArray[Any]:
        """The samples of one tile; the fill value where it is not done."""
        samples = self.read_shard(tile, level, name)
        if samples is None:
            shards = self.shards(level, name)
            samples = np.full(self.description.levels[level].tile_shape(tile), shards.fill, shards.dtype)
        return samples

    def window(self, rows: slice, columns: slice, level: int = 0, name: str = "escape_time") -> NDArray[Any]:
        """The samples of any window of a level, by its indices; the fill value where a tile is not done.

        Of each shard the chunks that lie in the window are read, and no others.

        Raises
        ------
        DamagedError
            A shard cannot be decoded.
        """
        here, shards = self.description.levels[level], self.shards(level, name)
        (top, bottom, _), (left, right, _) = rows.indices(here.shape[0]), columns.indices(here.shape[1])
        out = np.full((max(0, bottom - top), max(0, right - left)), shards.fill, shards.dtype)
        if not out.size:
            return out
        for i in range(top // here.tile[0], (bottom - 1) // here.tile[0] + 1):
            for j in range(left // here.tile[1], (right - 1) // here.tile[1] + 1):
                (y, y_end), (x, x_end) = here.window((i, j))
                first, last, start, end = max(top, y), min(bottom, y_end), max(left, x), min(right, x_end)
                get = partial(self.place.get, shard_key(level, name, (i, j)))
                part = slice(first - y, last - y), slice(start - x, end - x)
                into = out[first - top : last - top, start - left : end - left]
                try:
                    shards.read(get, part, into)
                except DamagedShardError as error:
                    raise self.damaged((i, j), level, name, str(error)) from None
        return out

    def shards(self, level: int, name: str) -> Shards:
        """How the shards of a level's array are made."""
        return _shards(self.description, level, name)

    def damaged(self, tile: Tile, level: int, name: str, problem: str) -> DamagedError:
        """What to say of a shard that cannot be read."""
        return DamagedError(
            f"{self.path} is damaged: shard {shard_key(level, name, tile)} {problem}. "
            f"`mandeldask verify {self.path} --repair` takes it out, and `mandeldask resume {self.path}` makes it again"
        )

    @property
    def escape_time(self) -> Samples:
        """The field, to be read by slices."""
        check(self)
        return Samples(self, 0, "escape_time")

    def read_tiles(self) -> dict[str, NDArray[Any]]:
        """The `tiles` group: for each of `TileColumns` an array of shape `description.tiles`.

        A part that is damaged reads as 0, not known: all but the seconds can be read from the shards again.
        """
        columns = {name: np.zeros(self.description.tiles, dtype) for name, dtype in TileColumns.items()}
        for _, name, (rows, columns_) in self._tiles_chunks():
            with suppress(DamagedShardError):
                self._read_tiles_chunk(name, (rows, columns_), columns[name][rows, columns_])
        return columns

    def damaged_tiles(self) -> list[tuple[str, str]]:
        """Keys of the `tiles` group's chunks that cannot be read, and what is wrong with each."""
        found = []
        for key, name, window in self._tiles_chunks():
            try:
                self._read_tiles_chunk(name, window, np.zeros(self.description.tiles, TileColumns[name])[window])
            except DamagedShardError as error:
                found.append((key, str(error)))
        return found

    def _tiles_chunks(self) -> Iterator[tuple[str, str, tuple[slice, slice]]]:
        """Key, column and window of tiles of each chunk of the `tiles` group that is there."""
        rows, columns = self.description.tiles
        for name in TileColumns:
            height, width = layout.tiles_chunk(self.description, name).shape
            for key, _ in self.place.sizes(f"tiles/{name}/c"):
                match = _SHARD.fullmatch(key)
                y, x = (int(match[1]) * height, int(match[2]) * width) if match else (rows, columns)
                if y < rows and x < columns:
                    yield f"tiles/{name}/c/{key}", name, (slice(y, y + height), slice(x, x + width))

    def _read_tiles_chunk(self, name: str, window: tuple[slice, slice], out: NDArray[Any]) -> None:
        chunk = layout.tiles_chunk(self.description, name)
        i, j = (part.start // side for part, side in zip(window, chunk.shape, strict=True))
        chunk.chunk_of(self.place.get(f"tiles/{name}/c/{i}/{j}", size=chunk.chunk_limit) or b"", out)

    def write_tiles(self, columns: Mapping[str, NDArray[Any]], changed: set[Tile]) -> None:
        """Write the chunks of the `tiles` group in which the `changed` tiles lie."""
        self.check_identity()
        for name in TileColumns:
            side = layout.tiles_chunk(self.description, name)
            rows, columns_ = side.shape
            for i, j in {(i // rows, j // columns_) for i, j in changed}:
                part = columns[name][i * rows : (i + 1) * rows, j * columns_ : (j + 1) * columns_]
                self.place.put(f"tiles/{name}/c/{i}/{j}", side.encode_chunk(part))

    def read_notes(self) -> dict[str, Any]:
        """Attributes of the `tiles` group: errors of failed tiles, the lease of a driver; {} where it is missing."""
        return layout.attributes(layout.read_json(self.place, "tiles/zarr.json"))

    def write_notes(self, **notes: Any) -> None:
        """Set attributes of the `tiles` group; None removes one."""
        self.check_identity()
        metadata = layout.read_json(self.place, "tiles/zarr.json") or {"zarr_format": 3, "node_type": "group"}
        attributes = {**layout.attributes(metadata), **notes}
        metadata["attributes"] = {k: v for k, v in attributes.items() if v is not None}
        self.place.put("tiles/zarr.json", layout.dumps(metadata))

    def finish(self) -> None:
        """Consolidate the metadata of the whole, which xarray asks for; done once, at the end of a run."""
        self.check_identity()
        layout.consolidate(self.place, self.description)

    def bands(self, level: int = 0) -> Iterator[NDArray[np.int32]]:
        """A level's escape times from the first row to the last, a row of chunks at a time."""
        here = self.description.levels[level]
        rows = self.shards(level, "escape_time").chunk[0]
        for first in range(0, here.shape[0], rows):
            yield self.window(slice(first, first + rows), slice(None), level)

    def checksum(self) -> str:
        """SHA-256 of the field's little-endian int32 samples in row order: the same for any tiling."""
        digest = hashlib.sha256()
        for band in self.bands():
            digest.update(np.ascontiguousarray(band, dtype="<i4").data)
        return digest.hexdigest()

    def check_identity(self) -> None:
        """Raise StoreError where the store cannot be seen from here, or is another by now."""
        found = layout.manifest(self.place)
        if found is None or found.get("identity") != self.identity:
            raise StoreError(
                f"{self.path} cannot be seen from {socket.gethostname()}, or was replaced while a run was writing it: "
                "the workers need a path that they share with the client"
            )


@dataclass(frozen=True)
class Samples:
    """An array of a level that is read by slices, chunk by chunk; the fill value where a tile is not done.

    Raises DamagedError where a shard cannot be decoded.
    """

    store: Store
    level: int
    name: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.store.description.levels[self.level].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.store.shards(self.level, self.name).dtype

    @property
    def chunks(self) -> tuple[int, int]:
        """Rows and columns of the chunks that are decoded at once."""
        return self.store.shards(self.level, self.name).chunk

    def __getitem__(self, key: slice | tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = (*key, slice(None))[:2] if isinstance(key, tuple) else (key, slice(None))
        whole = self.store.window(
            slice(rows.start, rows.stop), slice(columns.start, columns.stop), self.level, self.name
        )
        return whole[:: rows.step, :: columns.step]


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


def shard_key(level: int, name: str, tile: Tile) -> str:
    """The key of a tile's shard."""
    return f"{level}/{name}/c/{tile[0]}/{tile[1]}"


@lru_cache(maxsize=64)
def _shards(description: Description, level: int, name: str) -> Shards:
    return layout.shards_of(description, level, name)


def _edited(place: Place) -> StoreError:
    return StoreError(
        f"the field description of {place.url} was changed since the store was made; "
        f"`mandeldask verify {place.url} --repair` puts the right one back"
    )
