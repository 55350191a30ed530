"""The groups and arrays of a store: made through zarr, and checked against the description before one is read."""

from __future__ import annotations

import json
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from mandeldask.kernels import FIELDS
from mandeldask.store.description import Description, Level, chunk_side
from mandeldask.store.place import Place
from mandeldask.store.shard import LEVEL, Shards

KEY = "mandeldask"
GENERATOR = "mandeldask"
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
TILES_CHUNK = 64  # a side
MAX_METADATA = 2**22  # bytes of a zarr.json: consolidated, that of the deepest pyramid is a tenth of it


def shards_of(description: Description, level: int, name: str) -> Shards:
    """How the shards of a level's array are made."""
    rows, columns = description.levels[level].tile
    dtype = np.dtype(FIELDS[name])
    return Shards((rows, columns), (chunk_side(rows), chunk_side(columns)), dtype, fill_value(name))


def tiles_chunk(description: Description, name: str) -> Shards:
    """How the chunks of the `tiles` arrays are made: each a value of its own, no shard."""
    rows, columns = (min(n, TILES_CHUNK) for n in description.tiles)
    return Shards((rows, columns), (rows, columns), np.dtype(TileColumns[name]), 0)


def fill_value(name: str) -> Any:
    """What stands for *not computed*."""
    return 0 if name == "escape_time" else np.nan


def axes(description: Description, level: Level) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """The coordinates of a level's samples: those of every `stride`-th sample of the field, to the bit."""
    return {name: description.view.axis(name, stride=level.stride) for name in ("y", "x")}


def ome(description: Description) -> dict[str, Any]:
    """The levels as OME-Zarr 0.5 has them, one image a field.

    Source: https://ngff.openmicroscopy.org/0.5/
    """
    starts, steps = [], []
    for name in ("y", "x"):
        n = description.shape[name == "x"]
        first, last = (float(description.view.axis(name, (at, at + 1))[0]) for at in (0, n - 1))
        starts.append(first)
        steps.append((last - first) / (n - 1) if n > 1 else 1.0)  # of a deep view two neighbours differ by a few bits
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "axes": [{"name": axis, "type": "space"} for axis in ("y", "x")],
                "datasets": [
                    {
                        "path": f"{level.number}/{name}",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [step * level.stride for step in steps]},
                            {"type": "translation", "translation": starts},
                        ],
                    }
                    for level in description.levels
                ],
            }
            for name in description.fields
        ],
    }


def make(place: Place, description: Description) -> None:
    """Make what is missing of groups and arrays: an interruption between two of them is mended by the next run."""
    root = open_group(place, "", "r+")
    for level in description.levels:
        root.require_group(str(level.number))
        _make_level(open_group(place, str(level.number), "r+"), description, level)
    root.require_group("tiles")
    _make_tiles(open_group(place, "tiles", "r+"), description)


def _make_level(group: zarr.Group, description: Description, level: Level) -> None:
    for name, values in axes(description, level).items():
        if name not in group:
            group.create_array(
                name,
                shape=values.shape,
                dtype="float64",
                chunks=(min(values.size, 2**20),),
                compressors=[ZstdCodec(level=LEVEL), Crc32cCodec()],
                dimension_names=(name,),
                attributes={"long_name": f"{'Re' if name == 'x' else 'Im'}(c)"},
            )
        array: Any = group[name]
        if not np.array_equal(array[:], values):  # an interruption left the metadata alone
            array[:] = values
    for name in description.fields:
        if name not in group:
            _make_field(group, description, level, name)
    _consolidate(group.store_path.store, str(level.number))  # nothing in it changes from here on


def _make_field(group: zarr.Group, description: Description, level: Level, name: str) -> None:
    shards = shards_of(description, level.number, name)
    group.create_array(
        name,
        shape=level.shape,
        dtype=shards.dtype,
        chunks=shards.chunk,
        shards=shards.shape,
        compressors=[ZstdCodec(level=LEVEL), Crc32cCodec()],
        fill_value=shards.fill,
        dimension_names=("y", "x"),
        attributes={**ATTRIBUTES[name], "max_iter": description.max_iter},
    )


def _make_tiles(group: zarr.Group, description: Description) -> None:
    for name, dtype in TileColumns.items():
        if name not in group:
            group.create_array(
                name,
                shape=description.tiles,
                dtype=dtype,
                chunks=tiles_chunk(description, name).chunk,
                compressors=[ZstdCodec(level=LEVEL), Crc32cCodec()],
                fill_value=0,
                dimension_names=("tile_y", "tile_x"),
            )


def problems(place: Place, description: Description) -> list[str]:
    """What of groups and arrays is missing or not as the description has it; nothing is decoded, or allocated by it."""
    found = []
    expected = _expected(description)
    for path, metadata in expected.items():
        text = place.get(f"{path}/zarr.json", size=MAX_METADATA)
        if text is None:
            found.append(f"{path}/zarr.json is missing")
        elif (reason := _differs(text, metadata)) is not None:
            found.append(f"{path}/zarr.json {reason}")
    return found


def consolidate(place: Place) -> None:
    """Consolidate the metadata of the whole, which xarray asks for; done once, at the end of a run."""
    _consolidate(place.zarr(read_only=False), None)


def open_group(place: Place, path: str, mode: Any = "r") -> zarr.Group:
    """A group, by its own metadata: what was consolidated when a store was finished may be old."""
    return zarr.open_group(place.zarr(read_only=mode == "r"), path=path, mode=mode, use_consolidated=False)


def manifest(place: Place) -> dict[str, Any] | None:
    """What the root attributes say of a field of ours; None where they say nothing."""
    metadata = read_json(place, "zarr.json")
    attributes = metadata.get("attributes") if metadata.get("node_type") == "group" else None
    found = attributes.get(KEY) if isinstance(attributes, dict) else None
    return found if isinstance(found, dict) and isinstance(found.get("field"), dict) else None


def read_json(place: Place, key: str) -> dict[str, Any]:
    """A JSON object; {} where none is, or none that can be read."""
    try:
        found = json.loads(place.get(key, size=MAX_METADATA) or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _consolidate(store: Any, group: str | None) -> None:
    with warnings.catch_warnings():  # zarr says that other readers may not know of it, which harms none
        warnings.filterwarnings("ignore", message=".*[Cc]onsolidated metadata.*")
        zarr.consolidate_metadata(store, path=group)


@lru_cache(maxsize=4)
def _expected(description: Description) -> dict[str, Any]:
    """The metadata of each array, as zarr makes it of the description."""
    store = MemoryStore()
    root = zarr.open_group(store, mode="w")
    paths: dict[str, Any] = {}
    for level in description.levels:
        group = root.require_group(str(level.number))
        for name in description.fields:
            _make_field(group, description, level, name)
            paths[f"{level.number}/{name}"] = group[name].metadata
    _make_tiles(root.require_group("tiles"), description)
    return paths | {f"tiles/{name}": root[f"tiles/{name}"].metadata for name in TileColumns}


def _differs(text: bytes, expected: Any) -> str | None:
    """In what an array's metadata differs from what it must be; None where in nothing that matters."""
    try:
        found = type(expected).from_dict(json.loads(text))
        names = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs", "dimension_names")
        for name in names:
            mine, theirs = getattr(expected, name), getattr(found, name)
            same = mine == theirs or (name == "fill_value" and np.isnan(mine) and np.isnan(theirs))
            if not same:
                return f"has another {name.replace('_', ' ')} than the field"
    except Exception as error:  # of whatever kind zarr has for what it cannot read
        return f"cannot be read ({type(error).__name__})"
    return None
