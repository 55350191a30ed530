"""The groups and arrays of a store: made through zarr, and checked against the description before one is read."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from mandeldask.errors import StoreError
from mandeldask.kernels import FIELDS
from mandeldask.store.description import Description, Level, chunk_side
from mandeldask.store.place import Place
from mandeldask.store.shard import LEVEL, DamagedShardError, Shards
from mandeldask.view import LogPolar, Range, View

KEY = "mandeldask"
COPY = "0/zarr.json"  # has a copy of the manifest in its attributes
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
AXIS_CHUNK = 2**20  # coordinates
TILES_CHUNK = 64  # a side
MAX_METADATA = 2**22  # bytes of a zarr.json: consolidated, that of the deepest pyramid is a tenth of it


_NAMES = "|".join(FIELDS)
_PARTIAL = r"\.[0-9a-f]{32}\.partial"  # what a writer that was killed leaves
_OURS = re.compile(
    rf"(zarr\.json|([0-9]{{1,2}}|tiles)/zarr\.json|[0-9]{{1,2}}/({_NAMES}|x|y)/zarr\.json|[0-9]{{1,2}}/[xy]/c/[0-9]{{1,9}}"
    rf"|[0-9]{{1,2}}/({_NAMES})/c/[0-9]{{1,9}}/[0-9]{{1,9}}"
    rf"|tiles/({'|'.join(TileColumns)})/(zarr\.json|c/[0-9]{{1,9}}/[0-9]{{1,9}}))({_PARTIAL})?"
    rf"|zarr{_PARTIAL}"  # of a worker that tried whether it can write there
)


@dataclass(frozen=True)
class Problem:
    """A part of the metadata that is not as the description has it."""

    key: str
    reason: str
    missing: bool = False

    def __str__(self) -> str:
        return f"{self.key} {self.reason}"


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


def root(manifest: Mapping[str, Any], description: Description) -> dict[str, Any]:
    """The metadata of the root, before it is consolidated."""
    return {"zarr_format": 3, "node_type": "group", "attributes": {KEY: manifest, "ome": ome(description)}}


def axis_attributes(description: Description, name: str) -> dict[str, Any]:
    """What the coordinates along an axis are."""
    frame = description.frame
    if isinstance(frame, LogPolar):
        angle = {"long_name": "angle about the centre, anticlockwise from the real axis", "units": "rad"}
        return angle if name == "x" else {"long_name": "natural logarithm of |c - centre|", "units": "1"}
    part = "Re" if name == "x" else "Im"
    return {"long_name": f"{part}((c - centre) exp(-i rotation))" if frame else f"{part}(c)"}


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


def strays(place: Place) -> Iterator[str]:
    """Keys, files and links that no store of ours has, partial files apart."""
    for name in place.names():
        keys = [name]
        with suppress(StoreError):  # a symbolic link is a stray itself
            keys = [f"{name}/{key}" for key, _ in place.sizes(name)] if "." not in name else [name]
        for key in keys or [name]:
            if not _OURS.fullmatch(key) and not (keys == [] and re.fullmatch("[0-9]{1,2}|tiles", name)):
                yield key


def make(place: Place, description: Description, found: Sequence[Problem] | None = None) -> None:
    """Make what is missing of groups, arrays and coordinates, whatever an interruption left: the problems `found`."""
    for problem in problems(place, description) if found is None else found:
        if problem.missing:
            mend(place, description, problem)
    if copy_of_manifest(place) is None:
        mend(place, description, Problem(COPY, "lacks the copy"))
    for chunk in coordinates(description):
        if not chunk.is_in(place):
            chunk.put_in(place)


@dataclass(frozen=True)
class AxisChunk:
    """A part of a level's coordinates, and the key it has in the store."""

    key: str
    view: View
    name: Literal["y", "x"]
    window: Range  # of the field's samples
    stride: int
    size: int  # values of a whole chunk of this array

    @property
    def values(self) -> NDArray[np.float64]:
        return self.view.axis(self.name, self.window, self.stride)

    @property
    def _chunk(self) -> Shards:
        return Shards((1, self.size), (1, self.size), np.dtype("<f8"), 0.0)

    def is_in(self, place: Place) -> bool:
        """Whether the store has it, to the bit."""
        length = -(-(self.window[1] - self.window[0]) // self.stride)
        data = place.get(self.key, size=self._chunk.chunk_limit)
        if not data:
            return False
        found = np.empty((1, length))
        try:
            self._chunk.chunk_of(data, found)
        except DamagedShardError:
            return False
        return found.tobytes() == self.values.tobytes()

    def put_in(self, place: Place) -> None:
        place.put(self.key, self._chunk.encode_chunk(self.values[np.newaxis]))


def coordinates(description: Description, *levels: Level) -> Iterator[AxisChunk]:
    """The coordinates of some levels, or of all, part by part: a field may be a line of 2^31 samples."""
    view, names = description.view, get_args(Literal["y", "x"])
    for level in levels or description.levels:
        for name, n, length in zip(names, level.shape, description.shape, strict=True):
            k, size = level.stride, min(n, AXIS_CHUNK)
            for first in range(0, n, size):
                window = first * k, min((first + size) * k, length)
                yield AxisChunk(f"{level.number}/{name}/c/{first // size}", view, name, window, k, size)


def _make_level(group: zarr.Group, description: Description, level: Level) -> None:
    for axis, name in enumerate(("y", "x")):
        group.create_array(
            name,
            shape=level.shape[axis : axis + 1],
            dtype="float64",
            chunks=(min(level.shape[axis], AXIS_CHUNK),),
            compressors=[ZstdCodec(level=LEVEL), Crc32cCodec()],
            dimension_names=(name,),
            attributes=axis_attributes(description, name),
        )
    for name in description.fields:
        _make_field(group, description, level, name)


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
        group.create_array(
            name,
            shape=description.tiles,
            dtype=dtype,
            chunks=tiles_chunk(description, name).chunk,
            compressors=[ZstdCodec(level=LEVEL), Crc32cCodec()],
            fill_value=0,
            dimension_names=("tile_y", "tile_x"),
        )


@lru_cache(maxsize=4)
def documents(description: Description) -> Mapping[str, bytes]:
    """The metadata of each group and array but the root's, by its key, as zarr makes it of the description.

    A level's group carries that of its arrays too, which xarray asks for; none of it ever changes.
    """
    store = MemoryStore()
    root = zarr.open_group(store, mode="w")
    for level in description.levels:
        _make_level(root.create_group(str(level.number)), description, level)
        with warnings.catch_warnings():  # zarr says that other readers may not know of it, which harms none
            warnings.filterwarnings("ignore", message=".*[Cc]onsolidated metadata.*")
            zarr.consolidate_metadata(store, path=str(level.number))
    _make_tiles(root.create_group("tiles"), description)
    found = {key: buffer.to_bytes() for key, buffer in store._store_dict.items() if key != "zarr.json"}
    # an array before its group, a level before the next: what is there when a run was killed is of use
    return dict(sorted(found.items(), key=lambda item: (-item[0].count("/"), item[0])))


def problems(place: Place, description: Description) -> list[Problem]:
    """What of the metadata is missing or not as the description has it; nothing is decoded, or allocated by it."""
    found = []
    for key, document in documents(description).items():
        text = place.get(key, size=MAX_METADATA + 1)
        if text is None:
            found.append(Problem(key, "is missing", missing=True))
        elif (reason := _differs(text, document)) is not None:
            found.append(Problem(key, reason))
    root = read_json(place, "zarr.json")
    if not _same(attributes(root).get("ome"), ome(description)):
        found.append(Problem("zarr.json", "has other levels under `ome` than the field"))
    consolidated = root.get("consolidated_metadata")
    if consolidated is not None and not _same(_without_notes(consolidated), _whole(description)):
        found.append(Problem("zarr.json", "has consolidated metadata of something else"))
    return found


def mend(place: Place, description: Description, problem: Problem) -> None:
    """Write again, as the description has it, a part of the metadata that is missing or wrong."""
    if problem.key == "zarr.json":
        root = read_json(place, "zarr.json")
        root["attributes"] = {**root["attributes"], "ome": ome(description)}
        if "consolidated_metadata" in root:
            root["consolidated_metadata"] = _whole(description)
        place.put("zarr.json", dumps(root))
    elif problem.key in (COPY, "tiles/zarr.json"):
        noted = attributes(read_json(place, problem.key))  # by a driver, whose own it is
        notes = {KEY: json.dumps(manifest(place))} if problem.key == COPY else noted
        place.put(problem.key, dumps(json.loads(documents(description)[problem.key]) | {"attributes": notes}))
    else:
        place.put(problem.key, documents(description)[problem.key])


def consolidate(place: Place, description: Description) -> None:
    """Consolidate the metadata of the whole, which xarray asks for; done once, at the end of a run."""
    root = read_json(place, "zarr.json")
    place.put("zarr.json", dumps(root | {"consolidated_metadata": _whole(description)}))


def _without_notes(consolidated: Any) -> Any:
    """Consolidated metadata as any version of ours and of zarr makes it, but for what a driver had noted by then."""
    with suppress(TypeError, KeyError):
        tiles = consolidated["metadata"]["tiles"] | {"attributes": {}}
        return consolidated | {"metadata": consolidated["metadata"] | {"tiles": tiles}}
    return consolidated


def _whole(description: Description) -> dict[str, Any]:
    """The metadata of all groups and arrays, as the root's consolidated metadata has it."""
    parts = {key.removesuffix("/zarr.json"): json.loads(text) for key, text in documents(description).items()}
    for part in parts.values():
        part.pop("consolidated_metadata", None)
    return {"kind": "inline", "must_understand": False, "metadata": dict(sorted(parts.items()))}


def open_group(place: Place, path: str) -> zarr.Group:
    """A group to be read, by its own metadata: what was consolidated when a store was finished may be old."""
    return zarr.open_group(place.zarr(), path=path, mode="r", use_consolidated=False)


def manifest(place: Place) -> dict[str, Any] | None:
    """What the root attributes say of a field of ours; None where they say nothing."""
    metadata = read_json(place, "zarr.json")
    return _a_manifest(attributes(metadata).get(KEY) if metadata.get("node_type") == "group" else None)


def copy_of_manifest(place: Place) -> dict[str, Any] | None:
    """What the field's group says, should the root's metadata be damaged; None where it says nothing that is whole."""
    try:
        found = _a_manifest(json.loads(read_json(place, COPY)["attributes"][KEY]))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return found if found and found.get("digest") == digest(found) else None


def digest(manifest: Mapping[str, Any]) -> str:
    """What tells a manifest that somebody edited: SHA-256 of all in it but this."""
    rest = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _a_manifest(found: object) -> dict[str, Any] | None:
    return found if isinstance(found, dict) and isinstance(found.get("field"), dict) else None


def read_json(place: Place, key: str) -> dict[str, Any]:
    """A JSON object; {} where none is, or none that can be read."""
    try:
        found = json.loads(place.get(key, size=MAX_METADATA) or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def attributes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a group's metadata; {} where they are none: another program may have written them."""
    found = metadata.get("attributes")
    return found if isinstance(found, dict) else {}


def dumps(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode()


def _differs(text: bytes, expected: bytes) -> str | None:
    """In what a group's or an array's metadata differs from what it must be; None where in nothing that matters."""
    if len(text) > MAX_METADATA:
        return f"is larger than the {MAX_METADATA} bytes that it can have"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"cannot be read ({type(error).__name__})"
    wanted = json.loads(expected)
    if not isinstance(found, dict):
        return "is no metadata of zarr"
    if wanted["node_type"] == "group":  # its attributes are notes
        wanted["attributes"] = found["attributes"] = {}
    for name in sorted({*wanted, *found}, key=lambda name: name == "attributes"):
        if not _same(wanted.get(name), found.get(name)):
            return f"has another {name.replace('_', ' ')} than the field"
    return None


def _same(a: Any, b: Any) -> bool:
    """Whether two parts of metadata say the same; zarr leaves out now this, now that, when it is empty."""
    match a, b:
        case (dict(), dict()):
            return all(_same(a.get(key), b.get(key)) for key in {*a, *b})
        case (list(), list()):
            return len(a) == len(b) and all(map(_same, a, b))
    return (a or None) == (b or None) if isinstance(a or b or {}, dict | list) else type(a) is type(b) and a == b
