"""A shard: samples <-> the bytes of one value, by the `sharding_indexed` codec of Zarr v3.

    chunk, chunk, ...      each: little-endian samples, zstd, 4 bytes of crc32c
    index                  for each chunk in C order its offset and size, uint64; 2^64 - 1 twice where there is none
    4 bytes of crc32c      of the index

The inner chunks lie on a regular grid from the shard's first sample; those on the array's edge are filled up, those
beyond it are not there. Source: Zarr v3 codec specification, https://zarr-specs.readthedocs.io/en/latest/v3/codecs/

Zarr's own pipeline does the same; here it takes less than half the time, and checks sizes before it decodes: what a
frame claims to hold is never believed. `scripts/bench_store shards` measures both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

LEVEL = 1  # of zstd: 3 takes twice the time for a twentieth of the bytes
MISSING = 2**64 - 1
CRC = 4  # bytes
Get = Callable[[int, int], bytes | memoryview | None]
_MAGIC = b"\x28\xb5\x2f\xfd"
_zstd = Zstd(level=LEVEL)
_kept = threading.local()


class DamagedShardError(ValueError):
    """Bytes that are no shard of this shape; the message says what is wrong with them."""


@dataclass(frozen=True)
class Shards:
    """How the shards of one array are made."""

    shape: tuple[int, int]  # of a shard, samples
    chunk: tuple[int, int]
    dtype: np.dtype[Any]
    fill: Any

    @cached_property
    def chunks(self) -> tuple[int, int]:
        """Rows and columns of the grid of chunks."""
        return self.shape[0] // self.chunk[0], self.shape[1] // self.chunk[1]

    @cached_property
    def index_size(self) -> int:
        """Bytes of the index with its checksum, at the end of a shard."""
        return 16 * self.chunks[0] * self.chunks[1] + CRC

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return self.chunk[0] * self.chunk[1] * self.dtype.itemsize

    @cached_property
    def chunk_limit(self) -> int:
        """Bytes that an encoded chunk has at most: more than zstd makes of any samples (RFC 8878: 3 in 128 KiB)."""
        return self.chunk_bytes + self.chunk_bytes // 128 + 1024

    @cached_property
    def limit(self) -> int:
        """Bytes that a shard has at most."""
        return self.chunks[0] * self.chunks[1] * self.chunk_limit + self.index_size

    def encode(self, samples: NDArray[Any]) -> bytes:
        """The shard of these samples: its whole shape, or less at the array's edge."""
        index = np.full((*self.chunks, 2), MISSING, "<u8")
        parts: list[bytes] = []
        offset = 0
        rows, columns = self.chunk
        for i in range(-(-samples.shape[0] // rows)):
            for j in range(-(-samples.shape[1] // columns)):
                part = samples[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
                data = self.encode_chunk(part)
                parts.append(data)
                index[i, j] = offset, len(data)
                offset += len(data)
        table = index.tobytes()
        return b"".join((*parts, table, _crc(table)))

    def encode_chunk(self, samples: NDArray[Any]) -> bytes:
        """One chunk with its checksum; filled up where there are fewer samples than it holds."""
        data = _zstd.encode(self._whole(samples))
        return bytes(data + _crc(data))

    def index(self, tail: bytes | memoryview) -> NDArray[np.uint64]:
        """The index, from the last `index_size` bytes of a shard; uint64 of shape (rows, columns, 2)."""
        if len(tail) != self.index_size:
            raise DamagedShardError("is cut short")
        table = tail[:-CRC]
        if bytes(tail[-CRC:]) != _crc(table):
            raise DamagedShardError("has a wrong checksum of its index")
        return np.frombuffer(table, "<u8").reshape(*self.chunks, 2)

    def chunk_of(self, data: bytes | memoryview, out: NDArray[Any]) -> None:
        """Decode one chunk, with its checksum, into `out`: its first rows and columns, as many as `out` has."""
        out[...] = self.decoded(data)[: out.shape[0], : out.shape[1]]

    def decoded(self, data: bytes | memoryview) -> NDArray[Any]:
        """The samples of one chunk, in a buffer of this thread's that the next call fills again."""
        frame = self.check_chunk(data)
        if not hasattr(_kept, "buffer") or _kept.buffer.nbytes != self.chunk_bytes:
            _kept.buffer = np.empty(self.chunk_bytes, np.uint8)
        try:
            _zstd.decode(frame, _kept.buffer)
        except (RuntimeError, ValueError) as error:
            raise DamagedShardError(f"has a chunk that cannot be decoded ({error})") from None
        samples: NDArray[Any] = _kept.buffer.view(self.dtype.newbyteorder("<")).reshape(self.chunk)
        return samples

    def decode(self, data: bytes, shape: tuple[int, int] | None = None) -> NDArray[Any]:
        """The samples of a whole shard, or of its first rows and columns at the array's edge.

        Raises
        ------
        DamagedShardError
            A wrong checksum, a chunk that is missing, of another size or outside the shard; more bytes than `limit`.
        """
        if len(data) > self.limit:
            raise DamagedShardError(f"is longer than the {self.limit} bytes that it can have")
        shape = shape or self.shape
        (rows, columns), parts = self.chunk, self.parts(part_of(data), shape)
        first = next(parts)  # the index is right: only then is memory taken
        out = np.empty(shape, self.dtype)
        for (i, j), part in chain([first], parts):
            self.chunk_of(part, out[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns])
        return out

    def read(self, get: Get, window: tuple[slice, slice], out: NDArray[Any]) -> bool:
        """Read a window of a shard into `out`, by the chunks that lie in it; False where no shard is.

        Parameters
        ----------
        get : (start, size) -> bytes
            A part of the shard's bytes, counted from its end where `start` is negative; None where no shard is.
        window : (rows, columns)
            Slices with a start and a stop, within the shard's samples.
        """
        tail = get(-self.index_size, self.index_size)
        if not tail:
            return False
        index = self.index(tail)
        (top, bottom), (left, right) = ((part.start, part.stop) for part in window)
        (rows, columns) = self.chunk
        for i in range(top // rows, (bottom - 1) // rows + 1):
            for j in range(left // columns, (right - 1) // columns + 1):
                chunk = self.decoded(self._part(get, index, i, j))
                y, x = i * rows, j * columns
                first, start = max(top, y), max(left, x)
                last, end = min(bottom, y + rows), min(right, x + columns)
                out[first - top : last - top, start - left : end - left] = chunk[
                    first - y : last - y, start - x : end - x
                ]
        return True

    def check(self, data: bytes, shape: tuple[int, int] | None = None) -> None:
        """Check every checksum, and that each chunk is there and claims its size; nothing is decoded."""
        for _, part in self.parts(part_of(data), shape or self.shape):
            self.check_chunk(part)

    def parts(self, get: Get, shape: tuple[int, int]) -> Iterator[tuple[tuple[int, int], bytes | memoryview]]:
        """Row, column and bytes of each chunk that holds samples; for `get` see `read`, for `shape` `decode`.

        Raises
        ------
        DamagedShardError
            The index is damaged; a chunk is missing or outside the shard.
        """
        index = self.index(get(-self.index_size, self.index_size) or b"")
        for i in range(-(-shape[0] // self.chunk[0])):
            for j in range(-(-shape[1] // self.chunk[1])):
                yield (i, j), self._part(get, index, i, j)

    def _part(self, get: Get, index: NDArray[np.uint64], i: int, j: int) -> bytes | memoryview:
        offset, size = index[i, j].tolist()
        if offset == size == MISSING:
            raise DamagedShardError(f"lacks its chunk {i},{j}")
        if not CRC < size <= self.chunk_limit or offset > 2**62:
            raise DamagedShardError(f"has a chunk {i},{j} of {size} bytes at {offset}")
        data = get(offset, size)
        if data is None or len(data) != size:
            raise DamagedShardError(f"has a chunk {i},{j} outside of it")
        return data

    def check_chunk(self, data: bytes | memoryview) -> memoryview:
        """The zstd frame of a chunk whose checksum is right and which claims to hold what a chunk holds."""
        frame = memoryview(data)[:-CRC]
        if bytes(data[-CRC:]) != _crc(frame):
            raise DamagedShardError("has a wrong checksum of a chunk")
        claimed = _content_size(frame)
        if claimed != self.chunk_bytes:
            raise DamagedShardError(f"has a chunk of {claimed} bytes, and one of this array has {self.chunk_bytes}")
        return frame

    def _whole(self, part: NDArray[Any]) -> NDArray[Any]:
        """A chunk's samples, contiguous, filled up at the array's edge."""
        little = self.dtype.newbyteorder("<")
        if part.shape == self.chunk:
            return np.ascontiguousarray(part, little)
        whole = np.full(self.chunk, self.fill, little)
        whole[: part.shape[0], : part.shape[1]] = part
        return whole


def part_of(data: bytes) -> Get:
    """Parts of a shard that is in memory."""
    view = memoryview(data)

    def get(start: int, size: int) -> memoryview:
        return view[start:][:size]

    return get


def _crc(data: bytes | memoryview) -> bytes:
    return int(google_crc32c.value(bytes(data))).to_bytes(CRC, "little")


def _content_size(frame: memoryview) -> int | None:
    """The size that a zstd frame claims for its content (RFC 8878, 3.1.1.1); None where it claims none."""
    if len(frame) < 6 or frame[:4] != _MAGIC:
        return None
    descriptor = frame[4]
    flag, single, dictionary = descriptor >> 6, descriptor >> 5 & 1, (0, 1, 2, 4)[descriptor & 3]
    width = (single, 2, 4, 8)[flag]
    start = 5 + (not single) + dictionary
    if not width or len(frame) < start + width:
        return None
    return int.from_bytes(frame[start : start + width], "little") + (256 if flag == 1 else 0)
