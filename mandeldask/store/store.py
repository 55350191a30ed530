"""An opened store: what is done, tiles written whole and read, the table of tiles and its notes."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from mandeldask.errors import DamagedError, ReplacedError, StoreError
from mandeldask.store import arrays, metadata
from mandeldask.store.arrays import StoredSamples, array, encoded, pieces, read, shard_key, tile_columns
from mandeldask.store.description import Description, Tile, chunk_side
from mandeldask.store.place import Place
from mandeldask.text import command, plural, si

_SHARD = re.compile(r"(0|[1-9][0-9]{0,8})/(0|[1-9][0-9]{0,8})")
BAND = 2**28  # samples that are hashed at a time: 1 GiB
UNFINISHED = 2**36  # samples: of a larger field no checksum with tiles missing; zeros alone would take minutes
_noting = threading.Lock()  # the lease and the table of tiles note from threads of their own
_seen: dict[tuple[str, str], tuple[int, ...]] = {}  # of stores whose identity was read: the stamp of the root then


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

    @property
    def given(self) -> dict[str, list[str]]:
        """The view's decimal digits as the user wrote them; {} where they are not known."""
        given = (metadata.read_manifest(self.place) or {}).get("given")
        return given if isinstance(given, dict) else {}

    def write(self, tile: Tile, block: NDArray[Any]) -> None:
        """Write one whole tile and its part of the fine levels: each shard at once and complete, the field's last.

        `block` holds escape times, or is structured with an item for each of the description's fields. Writing a tile
        twice gives the same bytes. An OSError is the disk's: no part of the shard is left where a reader looks.
        """
        levels = range(self.description.fine, -1, -1)
        blocks = ((level, np.ascontiguousarray(block[:: 1 << level, :: 1 << level])) for level in levels)
        self.put(shard for level, part in blocks for shard in self._shards(level, tile, part))

    def write_level(self, level: int, tile: Tile) -> None:
        """Make one tile of a level above 0 from the shards of the level below.

        DamagedError where one of them is missing or damaged; OSError as for `write`.
        """
        self.check_identity()
        d, here = self.description, self.description.levels[level]
        (top, bottom), (left, right) = here.window(tile)
        block = np.zeros((bottom - top, right - left), [(name, d.type_of(name)) for name in d.fields])
        for child in d.children(level, tile):
            (y, y_end), (x, x_end) = d.levels[level - 1].window(child)
            # the first sample with an even index, and where it goes
            y, x = y + y % 2, x + x % 2
            window = slice(y // 2 - top, (y_end + 1) // 2 - top), slice(x // 2 - left, (x_end + 1) // 2 - left)
            for name in d.fields:
                samples = self.read_shard(child, level - 1, name)
                if samples is None:
                    raise self._damaged(child, level - 1, name, "is missing")
                block[name][window] = samples[samples.shape[0] - (y_end - y) :: 2, samples.shape[1] - (x_end - x) :: 2]
        self.put(self._shards(level, tile, block))

    def put(self, values: Iterable[tuple[str, Any]]) -> None:
        """Write to this store alone. In a bucket what came too late is taken back: a tile is missing, none is wrong."""
        keys: list[str] = []

        def noted() -> Iterator[tuple[str, Any]]:
            for key, value in values:
                keys.append(key)
                yield key, value

        with self._mine() as here:
            here.put_all(noted())
        if not here.is_folder:
            try:
                self.check_identity()
            except ReplacedError:
                for key in keys:
                    here.delete(key)
                raise

    @contextmanager
    def _mine(self) -> Iterator[Place]:
        """The place of this store, and of no other that takes its name meanwhile.

        A worker may outlive its run, and sleep while the store is replaced: it writes to the folder that was removed.
        """
        self.check_identity()
        with self.place.pinned() as here:
            if here != self.place:
                self.check_identity(here)
            yield here

    def _shards(self, level: int, tile: Tile, block: NDArray[Any]) -> Iterator[tuple[str, memoryview]]:
        """The shards of a tile of a level, the field's last; encoded one after another, as they are written."""
        rows, columns = self.description.levels[level].window(tile)
        for name in sorted(self.description.fields, key="escape_time".__eq__):
            samples = block[name] if block.dtype.names else block
            yield from encoded(self.description, f"{level}/{name}", (slice(*rows), slice(*columns)), samples)

    def done(self, level: int = 0) -> NDArray[np.bool_]:
        """Which tiles of a level are done, shape `Level.tiles`: those whose shards hold anything, in every field."""
        done = np.ones(self.description.levels[level].tiles, np.bool_)
        for name in self.description.fields:
            full = np.zeros_like(done)
            for tile, size in self.listing(level, name):
                full[tile] = size > 0  # a machine that lost its power may leave an empty file
            done &= full
        return done

    def listing(self, level: int, name: str) -> Iterator[tuple[Tile, int]]:
        """The tiles of an array whose shards are there, with their bytes."""
        rows, columns = self.description.levels[level].tiles
        for key, size in self.place.sizes(f"{level}/{name}/c"):
            if match := _SHARD.fullmatch(key):
                tile = int(match[1]), int(match[2])
                if tile[0] < rows and tile[1] < columns:
                    yield tile, size

    def discard(self, level: int, tile: Tile) -> None:
        """Take out a tile of a level, the field first: then it is not done, before anything else is gone."""
        with self._mine() as here:
            for name in sorted(self.description.fields, key="escape_time".__ne__):
                here.delete(shard_key(level, name, tile))

    def array(self, level: int, name: str) -> zarr.Array[Any]:
        """An array of a level, to be read; it raises what zarr raises."""
        return array(self.place, self.description, f"{level}/{name}")

    def read_shard(self, tile: Tile, level: int = 0, name: str = "escape_time") -> NDArray[Any] | None:
        """The samples of one tile; None where it is not done. DamagedError where it cannot be decoded."""
        return self.read(tile, level, name) if self.place.size(shard_key(level, name, tile)) else None

    def read(self, tile: Tile, level: int = 0, name: str = "escape_time") -> NDArray[Any]:
        """The samples of one tile; the fill value where it is not done."""
        rows, columns = self.description.levels[level].window(tile)
        return self.window(slice(*rows), slice(*columns), level, name)

    def window(self, rows: slice, columns: slice, level: int = 0, name: str = "escape_time") -> NDArray[Any]:
        """The samples of any window of a level, by its indices; the fill value where a tile is not done.

        Of each shard the chunks that lie in the window are read, and no others. DamagedError where one cannot be
        decoded.
        """
        kept = self.array(level, name)
        y, x = (range(*s.indices(n)[:2]) for s, n in zip((rows, columns), kept.shape, strict=True))
        if not (y and x):
            return np.empty((len(y), len(x)), kept.dtype)
        try:
            return read(kept, (slice(y.start, y.stop), slice(x.start, x.stop)))
        except DamagedError:  # one of the shards: name it, or go round an empty one
            return self._by_tiles(y, x, level, name)

    def _by_tiles(self, rows: range, columns: range, level: int, name: str) -> NDArray[Any]:
        tile, kept = self.description.levels[level].tile, self.array(level, name)
        out = np.full((len(rows), len(columns)), kept.fill_value, kept.dtype)
        for (down, y), (across, x) in product(pieces(rows, tile[0]), pieces(columns, tile[1])):
            i, j = y.start // tile[0], x.start // tile[1]
            if self.place.size(shard_key(level, name, (i, j))):
                try:
                    out[down, across] = read(kept, (slice(y.start, y.stop), slice(x.start, x.stop)))
                except DamagedError as error:
                    raise self._damaged((i, j), level, name, error.problem) from None
        return out

    def _damaged(self, tile: Tile, level: int, name: str, problem: str) -> DamagedError:
        """What to say of a shard that cannot be read."""
        remedy = f"`{command('verify', self.path, '--repair')}` computes it again"
        what = f"shard {shard_key(level, name, tile)} {problem}"
        return DamagedError(f"{self.path} is damaged: {what}. {remedy}", problem)

    @property
    def escape_time(self) -> StoredSamples:
        """The field, to be read by slices."""
        return StoredSamples(self, 0, "escape_time")

    def read_tiles(self) -> dict[str, NDArray[Any]]:
        """The `tiles` group: for each of its columns an array of shape `description.tiles`.

        Where a part of a column is damaged or lost, it is 0 there; of a deep field's `second`, `third` and `unproven`
        -1, as for a tile of which they were never noted: not known. Where one of those is lost that can be read from
        the shards again, all of them are 0.
        """
        columns: dict[str, NDArray[Any]] = {}
        damaged: set[str] = set()
        for name in tile_columns(self.description):
            columns[name], wrong = self._column(name)
            damaged |= dict(wrong).keys()
        known = (columns["minimum"] > 0) & (columns["maximum"] > 0) & (columns["iterations"] > 0)
        # that no sample is at max_iter is known only where a chunk says so
        there = {f"tiles/not_escaped/c/{key}" for key, _ in self.place.sizes("tiles/not_escaped/c")} - damaged
        for i, j in self._chunks_of_tiles():
            if f"tiles/not_escaped/c/{i}/{j}" not in there:
                known[arrays.tiles_window((i, j))] = False
        for name in ("iterations", "minimum", "maximum", "not_escaped"):
            columns[name][~known] = 0
        return columns

    def proven(self, tile: Tile) -> bool:
        """Whether every count of a tile of a deep field is proven; DamagedError where that cannot be read."""
        i, j = tile
        kept = array(self.place, self.description, "tiles/unproven")
        return int(read(kept, (slice(i, i + 1), slice(j, j + 1))).item()) == 0

    def damaged_tiles(self) -> list[tuple[str, str]]:
        """Keys of the `tiles` group's chunks that cannot be read, and what is wrong with each."""
        return [damaged for name in tile_columns(self.description) for damaged in self._column(name)[1]]

    def _column(self, name: str) -> tuple[NDArray[Any], list[tuple[str, str]]]:
        """A column of the `tiles` group, the fill value where it is damaged; and what is, as `damaged_tiles` has it."""
        kept = array(self.place, self.description, f"tiles/{name}")
        with suppress(DamagedError):  # of one of the chunks
            return read(kept, slice(None)), []
        column, damaged = np.full(kept.shape, kept.fill_value, kept.dtype), []
        for i, j in self._chunks_of_tiles():
            window = arrays.tiles_window((i, j))
            try:
                column[window] = read(kept, window)
            except DamagedError as error:
                damaged.append((f"tiles/{name}/c/{i}/{j}", error.problem))
        return column, damaged

    def _chunks_of_tiles(self) -> Iterator[tuple[int, ...]]:
        return np.ndindex(*(-(-n // arrays.TILES_CHUNK) for n in self.description.tiles))

    def write_tiles(self, columns: Mapping[str, NDArray[Any]], changed: set[Tile]) -> None:
        """Write the chunks of the `tiles` group in which the `changed` tiles lie."""
        names = sorted(tile_columns(self.description), key="minimum".__eq__)  # it is last: the others are there then
        for chunk in {(i // arrays.TILES_CHUNK, j // arrays.TILES_CHUNK) for i, j in changed}:
            window = arrays.tiles_window(chunk)
            parts = (encoded(self.description, f"tiles/{name}", window, columns[name][window]) for name in names)
            self.put(chain.from_iterable(parts))

    def read_notes(self) -> dict[str, Any]:
        """Attributes of the `tiles` group: errors of failed tiles, the lease of a driver; {} where it is missing."""
        return metadata.attributes(metadata.read_json(self.place, "tiles/zarr.json"))

    def write_notes(self, **notes: Any) -> None:
        """Set attributes of the `tiles` group; None removes one."""
        with _noting, self._mine() as here:
            group = metadata.read_json(here, "tiles/zarr.json") or {"zarr_format": 3, "node_type": "group"}
            attributes = {**metadata.attributes(group), **notes}
            group["attributes"] = {k: v for k, v in attributes.items() if v is not None}
            here.put("tiles/zarr.json", arrays.dumps(group))

    def finish(self) -> None:
        """Consolidate the metadata of the whole, which xarray asks for; done once, at the end of a run."""
        with self._mine() as here:
            metadata.consolidate(here, self.description)

    def restore(self) -> None:
        """Put the field description back into the root's metadata, from the copy beside the field."""
        manifest = metadata.read_copy(self.place) or {}
        self.place.put("zarr.json", arrays.dumps(metadata.root(manifest, self.description)))
        metadata.consolidate(self.place, self.description)

    def checksum(self) -> str:
        """SHA-256 of the field's little-endian int32 samples in row order: the same for any tiling.

        What is missing counts as zeros; StoreError where that would be most of a very large field.
        """
        missing, size = int((~self.done()).sum()), self.description.view.size
        if missing and size > UNFINISHED:
            raise StoreError(
                f"{self.path} lacks {plural(missing, 'tile')} of {si(size)} samples: a checksum of a field this large "
                f"needs every tile. First `{command('resume', self.path)}`"
            )
        digest, (rows, columns) = hashlib.sha256(), self.description.shape
        height = max(1, min(chunk_side(self.description.tile[0]), BAND // columns))  # rows of chunks
        for first, left in product(range(0, rows, height), range(0, columns, BAND)):
            band = self.window(slice(first, first + height), slice(left, left + BAND))
            digest.update(np.ascontiguousarray(band, dtype="<i4").data)
        return digest.hexdigest()

    def check_identity(self, here: Place | None = None) -> None:
        """Raise StoreError where the store cannot be seen from here, or is another by now."""
        place = here or self.place
        me, stamp = (self.path, self.identity), place.stamp("zarr.json")
        if stamp is not None and _seen.get(me) == stamp:
            return  # unchanged: the root's metadata, once consolidated, takes longer to read than a tile to encode
        found = metadata.read_manifest(place)
        if stamp is None or found is None or found.get("identity") != self.identity:
            raise ReplacedError(
                f"{self.path} cannot be seen from {socket.gethostname()}, or was replaced while a run was writing it: "
                "the workers need a path that they share with the client"
            )
        _seen[me] = stamp
