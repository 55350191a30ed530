"""The reference orbit of a deep field, in the group `reference`: made once by a driver, read once a worker process.

It is a help, not a result: where it is lost or damaged it is made again, and the counts do not change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from mandeldask.errors import DamagedError, StoreError
from mandeldask.store import metadata
from mandeldask.store.arrays import CODECS, consolidated, dumps, one_by_one, opened, read
from mandeldask.store.description import Description
from mandeldask.store.store import Store
from mandeldask.text import command
from mandeldask.view import Deep

if TYPE_CHECKING:  # takes Numba, which only who computes a deep field needs
    from mandeldask.kernels.deep import Reference

GROUP = "reference"
ROOT = f"{GROUP}/zarr.json"
TYPES = {"z": "complex128", "low": "complex128", "tiny": "float64"}
CHUNK = 2**18  # steps
TINY = 6  # columns
Parts = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class StoredReference:
    """Gives the reference orbit that a store holds, in any process that sees it; `key` is its digest."""

    store: Store
    key: str

    def __call__(self) -> Reference:
        """StoreError where it is damaged, or another by now."""
        try:
            found = read_reference(self.store)
            if found and found[0].key == self.key:
                return found[1]
            problem = "is gone, or another"
        except DamagedError as error:
            problem = error.problem
        again = f"`{command('resume', self.store.path)}` makes it again"
        raise StoreError(f"the reference orbit of {self.store.path} {problem}: {again}")


def stored_reference(store: Store) -> StoredReference | None:
    """What gives the workers the orbit that the store says it has; nothing of the orbit is read."""
    digest = _facts(store).get("digest")
    return StoredReference(store, digest) if isinstance(digest, str) else None


def read_reference(store: Store) -> tuple[StoredReference, Reference] | None:
    """The orbit of the store, and what gives it to the workers; None where there is none.

    DamagedError where it is damaged, or that of another field.
    """
    facts, d = _facts(store), store.description
    if not facts:
        return None
    wanted = _identity(d)
    if {name: facts.get(name) for name in wanted} != wanted:
        raise _damaged("is that of another field")
    match facts:
        case {
            "length": int(length),
            "tiny": int(tiny),
            "bits": int(bits),
            "digest": str(digest),
        }:
            if not 0 <= tiny <= length <= d.max_iter:
                raise _damaged("has an impossible length")
        case _:
            raise _damaged("does not say how long it is")
    shapes = {"z": (length + 1,), "low": (length + 1,), "tiny": (tiny, TINY)}
    parts = {name: _read(store, name, shape) for name, shape in shapes.items()}
    if digest != _digest(facts, parts):
        raise _damaged("does not have its digest")
    from mandeldask.kernels.deep import Reference

    assert isinstance(d.frame, Deep)
    z, low, tiny_ones = parts.values()
    return StoredReference(store, digest), Reference(d.frame.exact_origin, d.frame.finest, bits, z, low, tiny_ones)


def write_reference(store: Store, reference: Reference) -> StoredReference:
    """Put an orbit into the store in place of any other: whole, or not at all."""
    parts = {name: getattr(reference, name) for name in TYPES}
    facts = _identity(store.description) | {
        "length": reference.length,
        "tiny": len(reference.tiny),
        "bits": reference.bits,
    }
    facts["digest"] = _digest(facts, parts)
    made: dict[str, Buffer] = {}
    kept = {name: _make(MemoryStore(made), name, values.shape) for name, values in parts.items()}
    with one_by_one():
        for name, array in kept.items():
            array[...] = parts[name]
    inline = consolidated({name: dict(array.metadata.to_dict()) for name, array in kept.items()})
    group = {"zarr_format": 3, "node_type": "group", "attributes": facts, "consolidated_metadata": inline}
    remove_reference(store)
    values = ((key, memoryview(value.as_buffer_like())) for key, value in made.items() if key.startswith(GROUP))
    store.put([*values, (ROOT, dumps(group))])
    return StoredReference(store, str(facts["digest"]))


def remove_reference(store: Store) -> None:
    """Take the orbit out, what says that it is there first."""
    store.place.delete(ROOT)
    for key, _ in list(store.place.sizes(GROUP)):
        store.place.delete(f"{GROUP}/{key}")


def _facts(store: Store) -> dict[str, Any]:
    return metadata.attributes(metadata.read_json(store.place, ROOT))


def _identity(d: Description) -> dict[str, Any]:
    """What the orbit depends on."""
    assert isinstance(d.frame, Deep)
    return {"origin": list(d.frame.origin), "unit": d.frame.finest, "max_iter": d.max_iter}


def _digest(facts: Mapping[str, Any], parts: Parts) -> str:
    """SHA-256 of all but this."""
    digest = hashlib.sha256(json.dumps({**facts, "digest": ""}, sort_keys=True).encode())
    for name, dtype in TYPES.items():
        digest.update(np.ascontiguousarray(parts[name], dtype).data)
    return digest.hexdigest()


def _make(store: MemoryStore, name: str, shape: tuple[int, ...]) -> zarr.Array[Any]:
    chunks = (min(CHUNK, max(1, shape[0])), *shape[1:])
    return zarr.create_array(
        store,
        name=f"{GROUP}/{name}",
        shape=shape,
        dtype=TYPES[name],
        chunks=chunks,
        compressors=[*CODECS],
        dimension_names=("step", "part")[: len(shape)],
        config={"write_empty_chunks": True},
    )


def _read(store: Store, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """A part of the orbit; DamagedError where a chunk is missing or cannot be decoded."""
    chunks = sum(1 for _ in store.place.sizes(f"{GROUP}/{name}/c"))
    if chunks < -(-shape[0] // CHUNK):
        raise _damaged("lacks a part")
    return read(opened(store.place.zarr(), f"{GROUP}/{name}", _make(MemoryStore(), name, shape).metadata), ...)


def _damaged(problem: str) -> DamagedError:
    return DamagedError(f"{GROUP} {problem}", problem)
