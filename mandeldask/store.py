"""The field on disk: a Zarr v3 hierarchy in which one tile is one shard, and a tile is done when its shards exist.

    STORE/                root attributes: the field description, under "mandeldask"
      0/escape_time       int32 (y, x); fill value 0 says *not computed*, for no finished sample is 0
      0/smooth, ...       float32 (y, x), other fields where asked for; written before the tile's escape_time
      0/y, 0/x            float64 coordinates
      tiles/seconds, ...  one value a tile, what its driver learned; losing the last seconds of it costs nothing

Storage in three verbs: `open_for_writing` (metadata, once), `Store.done` (what is there), `Store.write`
(one whole shard). This room knows no cluster: a `Store` is a small value that travels to the workers.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import socket
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

from mandeldask.errors import StoreError
from mandeldask.kernels import FIELDS
from mandeldask.view import Range, View

FORMAT_VERSION = 1
KEY = "mandeldask"
Tile = tuple[int, int]  # row and column in the grid of tiles
TileColumns = {
    "seconds": "float64",  # of kernel
    "iterations": "int64",  # sum of the tile's escape times
    "minimum": "int32",
    "maximum": "int32",
    "not_escaped": "int64",  # samples at max_iter
    "attempts": "int32",
}
ATTRIBUTES = {
    "escape_time": {"long_name": "escape time", "units": "1"},
    "smooth": {"long_name": "continuous escape time", "units": "1"},
    "distance": {"long_name": "exterior distance estimate"},  # in the units of c
}
# A viewer reads chunks. 512 a side rather than 256 writes a 2048 shard in 17 ms instead of 34 (zstd 1, zarr 3.1.6).
CHUNK_SIDE = (256, 512)
OURS = {"zarr.json", "0", "tiles"}
_LEFTOVER = re.compile(r"zarr\.[0-9a-f]{32}\.partial")
_SHARD = re.compile(r"([0-9]+)/([0-9]+)")


@dataclass(frozen=True)
class Description:
    """What a field is, and all that two runs must agree on to work on the same store."""

    x: tuple[float, float]
    y: tuple[float, float]
    shape: tuple[int, int]
    registration: str
    max_iter: int
    fields: tuple[str, ...]
    tile: tuple[int, int]
    format_version: int = FORMAT_VERSION

    @classmethod
    def of(cls, view: View, max_iter: int, fields: tuple[str, ...], tile: tuple[int, int]) -> Description:
        """The description of a field of `view`; a tile larger than the field is cut to it."""
        rows, columns = (min(side, n) for side, n in zip(tile, view.shape, strict=True))
        return cls(view.x, view.y, view.shape, view.registration, max_iter, tuple(fields), (rows, columns))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Description:
        """The description that `to_json` gave; ValueError, TypeError or KeyError for anything else."""
        view = View(value["x"], value["y"], value["shape"], value["registration"])
        max_iter, fields, tile = value["max_iter"], value["fields"], value["tile"]
        whole = all(type(n) is int and 1 <= n < 2**31 for n in (max_iter, *tile))
        if not whole or not set(fields) <= set(FIELDS):
            raise ValueError(f"max_iter {max_iter!r}, tile {tile!r}, fields {fields!r}")
        description = cls.of(view, max_iter, tuple(fields), tile)
        if not fields or description.to_json() != dict(value):
            raise ValueError(f"{dict(value)!r}")
        return description

    def to_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @property
    def view(self) -> View:
        return View(self.x, self.y, self.shape, self.registration)  # type: ignore[arg-type]

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of the grid of tiles."""
        return (-(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1]))

    def window(self, first: Tile, end: Tile) -> tuple[Range, Range]:
        """The ranges of global indices that the tiles from `first` up to, not including, `end` cover."""
        rows, columns = (
            (a * side, min(b * side, n)) for a, b, side, n in zip(first, end, self.tile, self.shape, strict=True)
        )
        return rows, columns

    def differences(self, other: Description) -> list[str]:
        """`name: mine, other` for each entry in which two descriptions differ."""
        mine, theirs = self.to_json(), other.to_json()
        return [f"{k} is {mine[k]} there, {theirs[k]} here" for k in mine if mine[k] != theirs[k]]


@dataclass(frozen=True)
class Store:
    """An opened store, for any process that sees its absolute path.

    `identity` changes when a store is replaced, so that no worker writes by old metadata.
    """

    path: str
    identity: str
    description: Description

    def write(self, tile: Tile, block: NDArray[Any]) -> None:
        """Write one whole tile: each shard appears at once and complete, that of escape_time last.

        `block` holds escape times, or is structured with an item for each of the description's fields. Writing a tile
        twice gives the same bytes.

        Raises
        ------
        OSError
            The disk's error. No part of the shard is left where a reader looks.
        """
        rows, columns = self.description.window(tile, (tile[0] + 1, tile[1] + 1))
        _check_identity(self.path, self.identity)  # at every write: a worker may outlive its run
        names = sorted(self.description.fields, key="escape_time".__eq__)
        for name in names:
            samples = block[name] if block.dtype.names else block
            _array(self.path, self.identity, name)[slice(*rows), slice(*columns)] = samples

    def done(self) -> NDArray[np.bool_]:
        """Which tiles are done, shape `description.tiles`: those whose shards hold anything, in every field."""
        done = np.ones(self.description.tiles, np.bool_)
        for name in self.description.fields:
            done &= self._shards(name)
        return done

    def _shards(self, name: str) -> NDArray[np.bool_]:
        done = np.zeros(self.description.tiles, np.bool_)
        shards = Path(self.path, "0", name, "c")
        for row in os.scandir(shards) if shards.is_dir() else ():
            for shard in os.scandir(row) if row.is_dir() else ():
                match = _SHARD.fullmatch(f"{row.name}/{shard.name}")
                tile = (int(match[1]), int(match[2])) if match and shard.is_file() else done.shape
                # a machine that lost its power may leave an empty file
                if tile[0] < done.shape[0] and tile[1] < done.shape[1] and shard.stat().st_size:
                    done[tile] = True
        return done

    @property
    def escape_time(self) -> zarr.Array[Any]:
        """The field as a Zarr array, read only. Raises StoreError where an interruption left no array yet."""
        try:
            return zarr.open_array(Path(self.path), path="0/escape_time", mode="r")
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise _unfinished(self.path, error) from None

    def read(self, tile: Tile) -> NDArray[np.int32]:
        """The escape times of one tile; zeros where it is not done."""
        rows, columns = self.description.window(tile, (tile[0] + 1, tile[1] + 1))
        return self._samples(slice(*rows), slice(*columns))

    def read_tiles(self) -> dict[str, NDArray[Any]]:
        """The `tiles` group: for each of `TileColumns` an array of shape `description.tiles`."""
        group = self._group("tiles")
        return {name: np.asarray(group[name][...]) for name in TileColumns}  # type: ignore[index]

    def write_tiles(self, columns: Mapping[str, NDArray[Any]], changed: set[Tile]) -> None:
        """Write the chunks of the `tiles` group in which the `changed` tiles lie."""
        _check_identity(self.path, self.identity)
        group = self._group("tiles", "r+")
        for name in TileColumns:
            array = group[name]
            side = array.chunks[0]  # type: ignore[union-attr]
            for i, j in {(i // side * side, j // side * side) for i, j in changed}:
                window = (slice(i, i + side), slice(j, j + side))
                array[window] = columns[name][window]  # type: ignore[index]

    def read_notes(self) -> dict[str, Any]:
        """Attributes of the `tiles` group: errors of failed tiles, the lease of a driver; {} where it is missing."""
        try:
            return dict(self._group("tiles").attrs)
        except (FileNotFoundError, KeyError, ValueError):
            return {}

    def write_notes(self, **notes: Any) -> None:
        """Set attributes of the `tiles` group; None removes one."""
        _check_identity(self.path, self.identity)
        attrs = self._group("tiles", "r+").attrs
        attrs.put({k: v for k, v in {**attrs.asdict(), **notes}.items() if v is not None})

    def finish(self) -> None:
        """Consolidate the metadata of the whole, which xarray asks for; done once, at the end of a run."""
        _consolidate(self.path)

    def bands(self) -> Iterator[NDArray[np.int32]]:
        """The field from the first row to the last, a row of chunks at a time."""
        rows = self.escape_time.chunks[0]
        for first in range(0, self.description.shape[0], rows):
            yield self._samples(slice(first, first + rows), slice(None))

    def checksum(self) -> str:
        """SHA-256 of the field's little-endian int32 samples in row order: the same for any tiling."""
        digest = hashlib.sha256()
        for band in self.bands():
            digest.update(np.ascontiguousarray(band, dtype="<i4").data)
        return digest.hexdigest()

    def _samples(self, rows: slice, columns: slice) -> NDArray[np.int32]:
        try:
            return np.asarray(self.escape_time[rows, columns])
        except (KeyError, RuntimeError, ValueError) as error:  # a checksum or a decompressor that objects
            raise StoreError(
                f"{self.path} is damaged in rows {rows.start} to {rows.stop} ({error}); "
                "delete the shard there, and `mandeldask resume` computes it again"
            ) from None

    def _group(self, path: str, mode: Any = "r") -> zarr.Group:
        return zarr.open_group(Path(self.path), path=path, mode=mode, use_consolidated=False)


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open an existing store.

    Raises
    ------
    StoreError
        Nothing there, no store, a store of another program, or of another format version.
    """
    path = local_path(path)
    if not Path(path).exists():
        raise StoreError(f"no store at {path}; compute one with `mandeldask run CONFIG --out {path}`")
    manifest = _manifest(path)
    if manifest is None:
        raise StoreError(f"{path} is not a store of mandeldask: its root carries no field description")
    version = manifest["field"].get("format_version")
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}, and this mandeldask reads {FORMAT_VERSION}: "
            "open it with the mandeldask that wrote it"
        )
    try:
        return Store(os.path.abspath(path), str(manifest["identity"]), Description.from_json(manifest["field"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} has a damaged field description: {error!r}") from None


def open_field(path: str | os.PathLike[str]) -> Any:
    """Open a store to read its field: an xarray Dataset of lazy Dask arrays, or a Zarr group where xarray is missing.

    Either way `opened["escape_time"]` is int32 of shape (y, x), 0 where not computed yet, and `opened["x"]`,
    `opened["y"]` are the coordinates. Raises StoreError as `open_store` does.
    """
    store = open_store(path)
    try:
        xarray: Any = importlib.import_module("xarray")
    except ImportError:
        xarray = None
    try:
        if xarray is None:
            return zarr.open_group(Path(store.path), path="0", mode="r", use_consolidated=False)
        return xarray.open_zarr(LocalStore(store.path, read_only=True), group="0", consolidated=False)
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise _unfinished(store.path, error) from None


def open_for_writing(
    path: str | os.PathLike[str],
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
    path = local_path(path)
    try:
        if Path(path).is_file():
            raise StoreError(f"{path} is a file; a store is a directory: choose another --out")
        # a writer killed at the very start leaves nothing but the temporary file of the root's metadata
        if Path(path).is_dir() and not all(_LEFTOVER.fullmatch(entry.name) for entry in Path(path).iterdir()):
            manifest = _manifest(path)
            if manifest is None:
                raise StoreError(
                    f"{path} holds something else than a store of mandeldask, and is left alone: choose another --out"
                )
            if not overwrite:
                store = open_store(path)
                different = store.description.differences(description)
                if different:
                    raise StoreError(
                        f"{path} holds another field: {'; '.join(different)}. "
                        "Choose another --out, or replace it with --overwrite"
                    )
                if not os.access(path, os.W_OK):
                    raise PermissionError(13, "Permission denied")
                try:
                    _create_arrays(store)
                except (KeyError, TypeError, ValueError) as error:
                    raise StoreError(f"{path} is damaged: {error}; choose another --out, or --overwrite") from None
                return store
            foreign = sorted(e.name for e in Path(path).iterdir() if e.name not in OURS and ".partial" not in e.name)
            if foreign:
                raise StoreError(
                    f"{path} also holds {', '.join(foreign[:3])}: move that away before you --overwrite it"
                )
            _remove(os.path.realpath(path))  # a symbolic link stays, and leads to the new store
        inside = next((p for p in Path(path).absolute().parents if _manifest(str(p))), None)
        if inside:
            raise StoreError(f"{path} lies inside {inside}, a store itself: choose another --out")
        return _create(path, description, given or {})
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; choose another --out") from None


def local_path(path: str | os.PathLike[str]) -> str:
    """The path as text; a URL is refused.

    Raises
    ------
    StoreError
        A URL: this version writes to file systems.
    """
    text = os.path.expanduser(os.fspath(path))
    if re.match("[a-zA-Z][a-zA-Z0-9+.-]+:/", text):  # Path("s3://bucket") has lost a slash
        raise StoreError(f"a store is a path on a file system; got {text}")
    if not text or "\0" in text or any(len(os.fsencode(part)) > 255 for part in Path(text).parts):
        raise StoreError(f"a store needs a path; got {text!r}")
    return text


def _create(path: str, description: Description, given: Mapping[str, Any]) -> Store:
    store = Store(os.path.abspath(path), uuid.uuid4().hex, description)
    manifest = {"field": description.to_json(), "identity": store.identity, "given": dict(given)}
    zarr.create_group(store=Path(path).resolve(), attributes={KEY: manifest})
    _create_arrays(store)
    return store


def _create_arrays(store: Store) -> None:
    """Make what is missing: an interruption between two arrays is mended by the next run."""
    root = zarr.open_group(Path(store.path), mode="r+", use_consolidated=False)
    d, view = store.description, store.description.view
    for name in ("0", "tiles"):
        root.require_group(name)
    # what was consolidated when the store was finished says nothing of what is there now
    level, tiles = store._group("0", "r+"), store._group("tiles", "r+")
    for name, part in (("y", "Im"), ("x", "Re")):
        values = view.axis(name)  # type: ignore[arg-type]
        if name not in level:
            level.create_array(
                name,
                shape=values.shape,
                dtype="float64",
                chunks=(min(values.size, 2**20),),
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
                dimension_names=(name,),
                attributes={"long_name": f"{part}(c)"},
            )
        array: Any = level[name]
        if not np.array_equal(array[:], values):  # an interruption left the metadata alone
            array[:] = values
    for name in d.fields:
        if name not in level:
            level.create_array(
                name,
                shape=d.shape,
                dtype=FIELDS[name],
                chunks=tuple(chunk_side(side) for side in d.tile),
                shards=d.tile,
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
                fill_value=0 if name == "escape_time" else np.nan,
                dimension_names=("y", "x"),
                attributes={**ATTRIBUTES[name], "max_iter": d.max_iter},
            )
    for name, dtype in TileColumns.items():
        if name not in tiles:
            chunks = tuple(min(n, 64) for n in d.tiles)
            tiles.create_array(
                name,
                shape=d.tiles,
                dtype=dtype,
                chunks=chunks,
                fill_value=0,
                dimension_names=("tile_y", "tile_x"),
            )

    _consolidate(store.path, "0")  # nothing in it changes from here on


def _consolidate(path: str, group: str | None = None) -> None:
    with warnings.catch_warnings():  # zarr says that other readers may not know of it, which harms none
        warnings.filterwarnings("ignore", message=".*[Cc]onsolidated metadata.*")
        zarr.consolidate_metadata(LocalStore(path), path=group)


def chunk_side(side: int) -> int:
    """The side of the chunks in a shard of this side: a divisor that suits a viewer, or the whole side."""
    low, high = CHUNK_SIDE
    return next((n for n in range(high, low - 1, -1) if side % n == 0), side)


def _manifest(path: str) -> dict[str, Any] | None:
    """What the root attributes say of a field of ours; None where they say nothing."""
    try:
        metadata = json.loads((Path(path) / "zarr.json").read_bytes())
        manifest = metadata["attributes"][KEY] if metadata["node_type"] == "group" else None
    except (OSError, LookupError, TypeError, ValueError):  # no Zarr group, or none that can be read
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("field"), dict) else None


def _unfinished(path: str, error: Exception) -> StoreError:
    return StoreError(f"{path} lacks a part that a run would have made ({error}); `mandeldask resume {path}` mends it")


def _remove(path: str) -> None:
    """Rename first: an interrupted removal leaves no half store behind."""
    doomed = f"{path}.removed-{uuid.uuid4().hex[:8]}"
    os.rename(path, doomed)
    shutil.rmtree(doomed)


@lru_cache(maxsize=16)
def _array(path: str, identity: str, name: str) -> zarr.Array[Any]:  # noqa: ARG001 (a replaced store is another array)
    """The array of one field, opened once a process."""
    array = zarr.open_array(Path(path), path=f"0/{name}", mode="r+")
    return array.with_config({"write_empty_chunks": True})


def _check_identity(path: str, identity: str) -> None:
    manifest = _manifest(path)
    if manifest is None or manifest.get("identity") != identity:
        raise StoreError(
            f"{path} cannot be seen from {socket.gethostname()}, or was replaced while a run was writing it: "
            "the workers need a path that they share with the client"
        )
