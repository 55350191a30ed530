"""What a store says of itself: the field description at its root, OME's levels, and the metadata of its arrays."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

from mandeldask.errors import DamagedError, StoreError
from mandeldask.kernels import FIELDS
from mandeldask.store.arrays import (
    AXES,
    AXIS_CHUNK,
    PassColumns,
    TileColumns,
    array,
    consolidated,
    documents,
    dumps,
    encoded,
    read,
)
from mandeldask.store.description import Description
from mandeldask.store.place import ENDING, MAX_METADATA, Place
from mandeldask.text import command

KEY = "mandeldask"
COPY = "0/zarr.json"  # has a copy of the manifest in its attributes
MISSING = "is missing"
NO_COPY = COPY, "has no copy of the field description"

_NAMES = "|".join(FIELDS)
_COLUMNS = "|".join((*TileColumns, *PassColumns))
_OURS = re.compile(
    rf"(zarr\.json|([0-9]{{1,2}}|tiles)/zarr\.json|[0-9]{{1,2}}/({_NAMES}|x|y)/zarr\.json|[0-9]{{1,2}}/[xy]/c/[0-9]{{1,9}}"
    rf"|[0-9]{{1,2}}/({_NAMES})/c/[0-9]{{1,9}}/[0-9]{{1,9}}"
    rf"|tiles/({_COLUMNS})/(zarr\.json|c/[0-9]{{1,9}}/[0-9]{{1,9}})"
    rf"|reference/((z|low|tiny)/)?zarr\.json|reference/(z|low|tiny)/c/[0-9]{{1,9}}(/0)?)({ENDING})?"
    # zarr names the temporary file of an array's or a group's metadata without its ending
    rf"|(([0-9]{{1,2}}|tiles)/(({_NAMES}|x|y|{_COLUMNS})/)?)?zarr{ENDING}"
)


def new_manifest(description: Description, identity: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the root's attributes say of the field: its description, with a digest that tells a careless edit."""
    manifest = {"field": description.to_json(), "identity": identity, "given": dict(given)}
    return manifest | {"digest": digest(manifest)}


def read_manifest(place: Place) -> dict[str, Any] | None:
    """What the root's attributes say of a field of ours; None where they say nothing."""
    root = read_json(place, "zarr.json")
    return _manifest(attributes(root).get(KEY) if root.get("node_type") == "group" else None)


def read_copy(place: Place) -> dict[str, Any] | None:
    """What the field's group says, should the root's metadata be damaged; None where it says nothing that is whole."""
    try:
        found = _manifest(json.loads(read_json(place, COPY)["attributes"][KEY]))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return found if found and found.get("digest") == digest(found) else None


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of all in a manifest but this."""
    rest = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _manifest(found: object) -> dict[str, Any] | None:
    return found if isinstance(found, dict) and isinstance(found.get("field"), dict) else None


def root(manifest: Mapping[str, Any], description: Description) -> dict[str, Any]:
    """The metadata of the root, before it is consolidated."""
    return {"zarr_format": 3, "node_type": "group", "attributes": {KEY: manifest, "ome": _ome(description)}}


def _ome(description: Description) -> dict[str, Any]:
    """The levels as OME-Zarr 0.5 has them, one image a field.

    Source: https://ngff.openmicroscopy.org/0.5/
    """
    starts, steps = [], []
    for name, n in zip(AXES, description.shape, strict=True):
        first, last = (float(description.view.axis(name, (at, at + 1))[0]) for at in (0, n - 1))
        starts.append(first)
        steps.append((last - first) / (n - 1) if n > 1 else 1.0)  # of a deep view two neighbours differ by a few bits
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "axes": [{"name": axis, "type": "space"} for axis in AXES],
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


def complete(place: Place, description: Description, repair: bool = False) -> None:
    """Make what is missing of groups, arrays and coordinates, or cannot be read, whatever an interruption left.

    Raises StoreError where a part is another than the description has it, for what is written by it would be misread;
    with `repair` it is made again.
    """
    found = list(problems(place, description))
    for key, problem in found:
        if problem.startswith("has ") and (key, problem) != NO_COPY and not repair:
            raise damaged(place, key, problem)
    place.put_all((key, _metadata_of(place, description, key)) for key in dict.fromkeys(key for key, _ in found))
    coordinates(place, description, repair=True)


def damaged(place: Place, key: str, problem: str) -> StoreError:
    """What to say of metadata that is not as the description has it."""
    repair = f"`{command('verify', place.url, '--repair')}` repairs it"
    resume = f"`{command('resume', place.url)}` makes it"
    return StoreError(f"{place.url} is damaged: {key} {problem}; {resume if problem == MISSING else repair}")


def _metadata_of(place: Place, description: Description, key: str) -> bytes:
    """The metadata of a group or an array as the description has it, with what a driver noted there."""
    if key == "zarr.json":
        found = read_json(place, key)
        found["attributes"] = {**attributes(found), "ome": _ome(description)}
        if "consolidated_metadata" in found:
            found["consolidated_metadata"] = _whole(description)
        return dumps(found)
    if key in (COPY, "tiles/zarr.json"):
        noted = attributes(read_json(place, key))
        notes = {KEY: json.dumps(read_manifest(place))} if key == COPY else noted
        return dumps(json.loads(documents(description)[key]) | {"attributes": notes})
    return documents(description)[key]


def consolidate(place: Place, description: Description) -> None:
    """Consolidate the metadata of the whole, which xarray asks for; done once, at the end of a run."""
    place.put("zarr.json", dumps(read_json(place, "zarr.json") | {"consolidated_metadata": _whole(description)}))


def problems(place: Place, description: Description) -> Iterator[tuple[str, str]]:
    """Key and reason of each piece of metadata that is not as the description has it: other readers believe it."""
    for key, document in documents(description).items():
        if (found := place.get(key)) is None:
            yield key, MISSING
        elif reason := _difference(found, json.loads(document)):
            yield key, reason
    if read_copy(place) is None:
        yield NO_COPY
    top = read_json(place, "zarr.json")
    if not _same(attributes(top).get("ome"), _ome(description)):
        yield "zarr.json", "has other levels under `ome` than the field"
    inline = top.get("consolidated_metadata")
    if inline is not None and not _same(_without_notes(inline), _whole(description)):
        yield "zarr.json", "has consolidated metadata of something else"


def coordinates(place: Place, description: Description, repair: bool = False) -> list[str]:
    """Keys of the coordinates' chunks that are not those of the view, to the bit; with `repair` they are written."""
    wrong, view = {}, description.view
    for level in description.levels:
        for name, n, length in zip(AXES, level.shape, description.shape, strict=True):
            path, k = f"{level.number}/{name}", level.stride
            kept = array(place, description, path)
            for first in range(0, n, AXIS_CHUNK):  # a field may be a line of 2^31 samples
                key, part = f"{path}/c/{first // AXIS_CHUNK}", slice(first, min(first + AXIS_CHUNK, n))
                values = partial(view.axis, name, (part.start * k, min(part.stop * k, length)), k)
                if not place.size(key) or not _holds(kept, part, values()):
                    wrong[key] = path, part, values
    if repair:
        chunks = (encoded(description, path, part, values()) for path, part, values in wrong.values())
        place.put_all(chain.from_iterable(chunks))
    return list(wrong)


def _holds(kept: Any, part: slice, values: Any) -> bool:
    try:
        return bool(read(kept, part).tobytes() == values.tobytes())
    except DamagedError:
        return False


def strays(place: Place) -> Iterator[str]:
    """Keys, files and links that no store of ours has, partial files apart."""
    for name in place.names():
        keys = [name]
        with suppress(StoreError):  # a symbolic link is a stray itself
            keys = [f"{name}/{key}" for key, _ in place.sizes(name)] if "." not in name else [name]
        for key in keys or [name]:
            if not _OURS.fullmatch(key) and not (keys == [] and re.fullmatch("[0-9]{1,2}|tiles|reference", name)):
                yield key


def is_unmade(place: Place) -> bool:
    """Whether a run was interrupted while it created this store: no root can be read, and nothing of worth is there.

    Beside an unreadable root there may be metadata and coordinates of ours; beside none at all, empty files of ours.
    """
    root = place.get("zarr.json")
    with suppress(ValueError, RecursionError):
        json.loads(root or b"")
        return False  # somebody's
    if (place.size("zarr.json") or 0) > MAX_METADATA or read_copy(place) or any(strays(place)):
        return False
    idle = re.compile("zarr.json" if root is None else r"zarr.json|.*/zarr.json|[0-9]+/[xy]/c/[0-9]+")
    return all(_OURS.fullmatch(key) and (not size or idle.fullmatch(key)) for key, size in place.sizes(""))


def read_json(place: Place, key: str) -> dict[str, Any]:
    """A JSON object; {} where none is, or none that can be read."""
    try:
        found = json.loads(place.get(key) or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def attributes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a group's metadata; {} where they are none: another program may have written them."""
    found = metadata.get("attributes")
    return found if isinstance(found, dict) else {}


def _whole(description: Description) -> dict[str, Any]:
    """The metadata of all groups and arrays, as the root's consolidated metadata has it."""
    parts = {key.removesuffix("/zarr.json"): json.loads(text) for key, text in documents(description).items()}
    for part in parts.values():
        part.pop("consolidated_metadata", None)
    return consolidated(parts)


def _without_notes(inline: Any) -> Any:
    """Consolidated metadata, but for what a driver had noted by then."""
    with suppress(TypeError, KeyError):
        tiles = inline["metadata"]["tiles"] | {"attributes": {}}
        return inline | {"metadata": inline["metadata"] | {"tiles": tiles}}
    return inline


def _difference(text: bytes, wanted: dict[str, Any]) -> str:
    """In what metadata differs from what it must be; "" where in nothing that matters."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"cannot be read ({type(error).__name__})"
    if not isinstance(found, dict):
        return "is no metadata of zarr"
    if wanted["node_type"] == "group":  # its attributes are notes
        wanted["attributes"] = found["attributes"] = {}
    for name in sorted({*wanted, *found}, key=lambda name: name == "attributes"):
        if not _same(wanted.get(name), found.get(name)):
            return f"has another {name.replace('_', ' ')} than the field"
    return ""


def _same(a: Any, b: Any) -> bool:
    """Whether two parts of metadata say the same; versions of zarr leave out now this, now that, when it is empty."""
    match a, b:
        case (dict(), dict()):
            return all(_same(a.get(key), b.get(key)) for key in {*a, *b})
        case (list(), list()):
            return len(a) == len(b) and all(map(_same, a, b))
    return (a or None) == (b or None) if isinstance(a or b or {}, dict | list) else type(a) is type(b) and a == b
