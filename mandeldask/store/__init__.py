"""The field on disk: a Zarr v3 hierarchy in which one tile is one shard, and a tile is done when its shards exist.

    STORE/                root attributes: the field description, under "mandeldask"; the levels, under "ome"
      0/escape_time       int32 (y, x); fill value 0 says *not computed*, for no finished sample is 0
      0/smooth, distance  float64 and float32 (y, x), where asked for; written before the tile's escape_time
      0/interior          uint8 (y, x): 0 escaped, 1 not escaped within max_iter, 2 proved never to escape
      0/y, 0/x            float64 coordinates: of c; in a turned view, a strip or a deep view what `View.frame` says
      1/, 2/, ...         the same of every 2nd, 4th, ... sample, until one tile holds it
      tiles/seconds, ...  one value a tile, what its driver learned; losing the last seconds of it costs nothing
      reference/z, ...    of a deep field the reference orbit, made once; where it is lost it is made again

Zarr writes and reads all of it. Storage in three verbs: `open_for_writing` (metadata, once), `Store.done` (what is
there), `Store.write` (one whole tile). This room knows no cluster: a `Store` is a small value that travels to workers.
"""

from __future__ import annotations

from mandeldask.store.arrays import FILL, NOT_KNOWN, PassColumns, StoredSamples, shard_key
from mandeldask.store.description import Description, Level, Tile, chunk_side
from mandeldask.store.open import open_damaged, open_field, open_for_writing, open_store
from mandeldask.store.place import AnyPath, Place, place_of
from mandeldask.store.reference import (
    StoredReference,
    read_reference,
    remove_reference,
    stored_reference,
    write_reference,
)
from mandeldask.store.store import Store

__all__ = [
    "FILL",
    "NOT_KNOWN",
    "AnyPath",
    "Description",
    "Level",
    "PassColumns",
    "Place",
    "Store",
    "StoredReference",
    "StoredSamples",
    "Tile",
    "chunk_side",
    "open_damaged",
    "open_field",
    "open_for_writing",
    "open_store",
    "place_of",
    "read_reference",
    "remove_reference",
    "shard_key",
    "stored_reference",
    "write_reference",
]
