"""The groups and arrays of a store, made by zarr of the field description alone, and opened once a process.

What a store's own metadata claims of shapes and codecs is not read: a store that was made to harm leads nobody astray.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from textwrap import shorten
from traceback import clear_frames
from typing import Any, Literal, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.array_spec import ArrayConfigParams
from zarr.core.buffer import Buffer
from zarr.core.metadata import ArrayMetadata, ArrayV3Metadata
from zarr.storage import MemoryStore, StorePath

from mandeldask.errors import DamagedError, StoreError
from mandeldask.store.description import Description, Tile, chunk_side
from mandeldask.store.place import Place
from mandeldask.view import Deep

TileColumns = {
    "seconds": "float64",  # of kernel
    "iterations": "int64",  # sum of the tile's escape times
    "minimum": "int32",
    "maximum": "int32",
    "not_escaped": "int64",  # samples at max_iter
    "attempts": "int32",
}
PassColumns = {  # beside these in exact arithmetic, -1 where it is not known: samples that
    "second": "int64",  # the first pass could not decide
    "third": "int64",  # nor the second
    "unproven": "int64",  # are not proven
}
NOT_KNOWN = -1
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "escape_time": {"long_name": "escape time", "units": "1"},
    "smooth": {"long_name": "continuous escape time", "units": "1"},
    "distance": {"long_name": "exterior distance estimate"},  # in the units of c
    "interior": {
        "long_name": "whether the sample is known to be of the set",
        "flag_values": [0, 1, 2],
        "flag_meanings": "escaped not_escaped_within_max_iter never_escapes_in_this_arithmetic",
    },
}
FILL = {"escape_time": 0, "interior": 255}  # where a tile is not computed; NaN in other fields
Window = tuple[slice, slice]
AXES: tuple[Literal["y", "x"], ...] = ("y", "x")
AXIS_CHUNK = 2**20  # coordinates
TILES_CHUNK = 64  # a side
PIECE_SIDE = 2048  # samples that are read at a time where every k-th is wanted
# A chunk that holds nothing but the fill value is written too: a tile is done when its shards exist.
WRITE_ALL: ArrayConfigParams = {"write_empty_chunks": True}
# zarr 3.4 on: writes a shard in half the CPU time of the default (scripts/bench_store shards).
FUSED = "zarr.core.codec_pipeline.FusedCodecPipeline"
HAS_FUSED = hasattr(importlib.import_module("zarr.core.codec_pipeline"), "FusedCodecPipeline")
# Before zarr 3.4 a shard of 16 chunks is written in 15 instead of 17 ms where they are encoded by fours.
WRITING = {"async.concurrency": 1} | ({} if HAS_FUSED else {"codec_pipeline.batch_size": 4})
CODECS = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()
_settings = threading.Lock()  # zarr's settings are the process's
_one_by_one = ExitStack()
_writers = 0


@lru_cache(maxsize=512)
def array(place: Place, description: Description, path: str) -> zarr.Array[Any]:
    """An array of the store, as the description has it, to be read; nothing is read yet."""
    return opened(place.zarr(), path, _metadata(description, path))


def encoded(description: Description, path: str, window: Any, values: NDArray[Any]) -> Iterator[tuple[str, memoryview]]:
    """The chunks, or the shard, that `window` of an array covers, by their keys, as zarr encodes them."""
    made: dict[str, Buffer] = {}
    kept = opened(MemoryStore(made), path, _metadata(description, path))
    with one_by_one():
        kept[window] = values
    return ((key, memoryview(value.as_buffer_like())) for key, value in made.items())


def opened(store: Any, path: str, metadata: ArrayMetadata) -> zarr.Array[Any]:
    """An array with the metadata that is given, whatever the store's own says."""
    metadata, at = cast(ArrayV3Metadata, metadata), StorePath(store, path)
    with _settings, zarr.config.set({"codec_pipeline.path": FUSED} if HAS_FUSED else {}):
        return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=at, config=WRITE_ALL))


@contextmanager
def one_by_one() -> Iterator[None]:
    """The chunks of a shard are encoded one after another while any thread of this process is in this context.

    Two workers on two cores that encode them in threads take half as long again (zarr 3.1, 34 instead of 22 ms for a
    tile of 2048 x 2048).
    """
    global _writers  # noqa: PLW0603
    with _settings:
        if not _writers:
            _one_by_one.enter_context(zarr.config.set(WRITING))
        _writers += 1
    try:
        yield
    finally:
        with _settings:
            _writers -= 1
            if not _writers:  # the last sets back what the first found
                _one_by_one.close()


@lru_cache(maxsize=4)
def documents(description: Description) -> Mapping[str, bytes]:
    """The metadata of each group and array but the root's, by its key, as zarr makes it of the description.

    A level's group carries that of its arrays too, which xarray asks for; none of it ever changes.
    """
    levels = [str(level.number) for level in description.levels]
    names = dict.fromkeys(levels, (*AXES, *description.fields)) | {"tiles": tuple(tile_columns(description))}
    found: dict[str, dict[str, Any]] = {}
    for group in names:
        made = {name: _metadata(description, f"{group}/{name}").to_dict() for name in names[group]}
        found |= {f"{group}/{name}/zarr.json": dict(metadata) for name, metadata in made.items()}
        inline = {"consolidated_metadata": consolidated(made)} if group != "tiles" else {}
        found[f"{group}/zarr.json"] = {"zarr_format": 3, "node_type": "group", "attributes": {}, **inline}
    # an array before its group, a level before the next: what is there when a run was killed is of use
    keys = sorted(found, key=lambda key: (-key.count("/"), key))
    return {key: dumps(found[key]) for key in keys}


def consolidated(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Consolidated metadata of groups and arrays, by their paths."""
    return {"kind": "inline", "must_understand": False, "metadata": dict(sorted(metadata.items()))}


def dumps(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode()


def tile_columns(description: Description) -> dict[str, str]:
    """The arrays of the `tiles` group, with their types."""
    return TileColumns | (PassColumns if description.exact else {})


@lru_cache(maxsize=512)
def _metadata(description: Description, path: str) -> ArrayMetadata:
    """What zarr says of an array that it makes as the description has it."""
    group, name = path.split("/")
    codecs: list[Any] = [*CODECS]
    if description.format_version == 2:
        codecs[0] = ZstdCodec(level=1)
    make = partial(zarr.create_array, MemoryStore(), name=path, compressors=codecs)
    if group == "tiles":
        shape = description.tiles
        chunks = tuple(min(n, TILES_CHUNK) for n in shape)
        names, fill = ("tile_y", "tile_x"), NOT_KNOWN if name in PassColumns else 0
        dtype = tile_columns(description)[name]
        return make(shape=shape, dtype=dtype, chunks=chunks, fill_value=fill, dimension_names=names).metadata
    level = description.levels[int(group)]
    if name in AXES:
        n = level.shape[AXES.index(name)]
        attributes = _axis_attributes(description, name)
        chunks = (min(n, AXIS_CHUNK),)
        made = make(shape=(n,), dtype="float64", chunks=chunks, dimension_names=(name,), attributes=attributes)
        return made.metadata
    return make(
        shape=level.shape,
        dtype=description.type_of(name),
        chunks=(chunk_side(level.tile[0]), chunk_side(level.tile[1])),
        shards=level.tile,
        fill_value=FILL.get(name, np.nan),
        dimension_names=AXES,
        attributes={**_field_attributes(description, name), "max_iter": description.max_iter},
    ).metadata


def _field_attributes(description: Description, name: str) -> dict[str, Any]:
    frame = description.frame
    return ATTRIBUTES[name] | ({"units": f"2^{frame.unit}"} if isinstance(frame, Deep) and name == "distance" else {})


def _axis_attributes(description: Description, name: str) -> dict[str, Any]:
    """What the coordinates along an axis are."""
    frame = description.frame
    if frame and frame.strip:
        angle = {"long_name": "angle about the centre, anticlockwise from the real axis", "units": "rad"}
        distance = f"|c - centre| / 2^{frame.unit}" if isinstance(frame, Deep) else "|c - centre|"
        return angle if name == "x" else {"long_name": f"natural logarithm of {distance}", "units": "1"}
    part = "Re" if name == "x" else "Im"
    if isinstance(frame, Deep):
        offset = "(c - origin) exp(-i rotation)" if frame.rotation != "0" else "c - origin"
        origin = frame.origin[AXES[::-1].index(name)]
        return {"long_name": f"{part}({offset})", "units": f"2^{frame.unit}", "origin": origin}
    return {"long_name": f"{part}((c - centre) exp(-i rotation))" if frame else f"{part}(c)"}


def tiles_window(chunk: Tile) -> Window:
    """The tiles that a chunk of the `tiles` group holds, as slices."""
    rows, columns = (slice(n * TILES_CHUNK, (n + 1) * TILES_CHUNK) for n in chunk)
    return rows, columns


def read(kept: zarr.Array[Any], window: Any) -> NDArray[Any]:
    """The values in a window of an array; DamagedError where they cannot be decoded.

    What zarr and its codecs raise then is of many kinds.
    """
    try:
        return np.asarray(kept[window])
    except (OSError, StoreError, MemoryError):
        raise
    except Exception as error:
        problem = _undecoded(error)
        clear_frames(error.__traceback__)  # zarr's, in a cycle with the error, keep all that was read
    raise DamagedError(problem, problem)


def _undecoded(error: Exception) -> str:
    """What is wrong with values that zarr could not decode; what is not wrong with them is raised again."""
    while isinstance(error, ExceptionGroup):  # zarr 3.4 reads several ranges in a task group
        error = error.exceptions[0]
    if isinstance(error, OSError | StoreError | MemoryError):
        raise error from None
    if "checksum" in str(error):
        return "has a wrong checksum"
    return f"cannot be decoded ({type(error).__name__}: {shorten(str(error), 200, placeholder='...')})"


def shard_key(level: int, name: str, tile: Tile) -> str:
    return f"{level}/{name}/c/{tile[0]}/{tile[1]}"


@dataclass(frozen=True)
class StoredSamples:
    """An array of a level that is read by slices, chunk by chunk; the fill value where a tile is not done.

    Raises DamagedError where a shard cannot be decoded; with `spare_damaged` every k-th sample can be read all the
    same, and there too is the fill value.
    """

    store: Any  # a `Store`, which knows this class
    level: int
    name: str
    spare_damaged: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.store.description.levels[self.level].shape
        return rows, columns

    @property
    def ndim(self) -> int:
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        kind: str = self.store.description.type_of(self.name)
        return np.dtype(kind)

    @property
    def chunks(self) -> tuple[int, int]:
        """Rows and columns of the chunks that are decoded at once."""
        rows, columns = self.store.description.levels[self.level].tile
        return chunk_side(rows), chunk_side(columns)

    def __getitem__(self, key: slice | tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = (*key, slice(None))[:2] if isinstance(key, tuple) else (key, slice(None))
        y, x = (range(*s.indices(n)) for s, n in zip((rows, columns), self.shape, strict=True))
        if (y.step, x.step) == (1, 1) or y.step < 0 or x.step < 0:
            whole = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
            found: NDArray[Any] = self.store.window(*whole, self.level, self.name)
            return found[:: rows.step, :: columns.step]
        return self._thinned(y, x)

    def _thinned(self, rows: range, columns: range) -> NDArray[Any]:
        """Every k-th sample, a piece of the field in memory at a time; a tile that is missing takes no reading."""
        tile = self.store.description.levels[self.level].tile
        sides = [side if side <= PIECE_SIDE else chunk for side, chunk in zip(tile, self.chunks, strict=True)]
        out = np.full((len(rows), len(columns)), self.store.array(self.level, self.name).fill_value, self.dtype)

        @cache  # a tile may have many pieces
        def done(i: int, j: int) -> bool:
            return bool(self.store.place.size(shard_key(self.level, self.name, (i, j))))

        for down, y in pieces(rows, sides[0]):
            for across, x in pieces(columns, sides[1]):
                if done(y.start // tile[0], x.start // tile[1]):
                    window = slice(y.start, y[-1] + 1), slice(x.start, x[-1] + 1)
                    with suppress(DamagedError) if self.spare_damaged else nullcontext():
                        out[down, across] = self.store.window(*window, self.level, self.name)[:: y.step, :: x.step]
        return out


def pieces(indices: range, side: int) -> Iterator[tuple[slice, range]]:
    """Indices by the piece of `side` that they lie in: where they stand among all, and those of the piece."""
    first = 0
    while first < len(indices):
        end = (indices[first] // side + 1) * side  # of the piece
        last = min(len(indices), -(-(end - indices.start) // indices.step))
        yield slice(first, last), indices[first:last]
        first = last
