"""An opened store: what is done, tiles written whole and read, the table of tiles and its notes."""

from __future__ import annotations

import hashlib
import re
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import DamagedError, StoreError
from mandeldask.kernels import FIELDS
from mandeldask.store import layout
from mandeldask.store.description import Description, Tile
from mandeldask.store.layout import TileColumns
from mandeldask.store.place import Place
from mandeldask.store.shard import DamagedShardError, Shards

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

    @property
    def given(self) -> dict[str, list[str]]:
        """The view's decimal digits as the user wrote them; {} where they are not known."""
        given = (layout.manifest(self.place) or {}).get("given")
        return given if isinstance(given, dict) else {}

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
        return Samples(self, 0, "escape_time")

    def read_tiles(self) -> dict[str, NDArray[Any]]:
        """The `tiles` group: for each of `TileColumns` an array of shape `description.tiles`.

        Where a part is damaged or lost, all are 0 there, not known: but for seconds and attempts they can be read
        from the shards again.
        """
        columns = {name: np.zeros(self.description.tiles, dtype) for name, dtype in TileColumns.items()}
        read: Counter[tuple[int, int]] = Counter()
        windows = {}
        for _, name, (rows, columns_) in self._tiles_chunks():
            windows[rows.start, columns_.start] = rows, columns_
            with suppress(DamagedShardError):
                self._read_tiles_chunk(name, (rows, columns_), columns[name][rows, columns_])
                read[rows.start, columns_.start] += 1
        for at, window in windows.items():
            if read[at] < len(columns):
                for column in columns.values():
                    column[window] = 0
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


def shard_key(level: int, name: str, tile: Tile) -> str:
    """The key of a tile's shard."""
    return f"{level}/{name}/c/{tile[0]}/{tile[1]}"


@lru_cache(maxsize=64)
def _shards(description: Description, level: int, name: str) -> Shards:
    return layout.shards_of(description, level, name)
