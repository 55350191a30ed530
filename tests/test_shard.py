"""Shards made by this package and by zarr are the same samples to both; what is damaged is an error, and no number."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numcodecs.zstd import Zstd
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

import mandeldask as md
from mandeldask.store import DamagedShardError, Description, open_for_writing
from mandeldask.store.shard import CRC, LEVEL, MISSING, Shards, _crc

DTYPES = ("int32", "float32", "float64", "int64")


@st.composite
def shards(draw, dtypes=DTYPES):
    """Shards of at most 4 x 4 chunks of any small shape."""
    chunk = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    counts = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = tuple(side * n for side, n in zip(chunk, counts, strict=True))
    return Shards(shape, chunk, dtype, 0 if dtype.kind == "i" else np.nan)


@st.composite
def filled(draw):
    """Shards and the samples of one: all of it, or less at the array's edge; whole chunks may be the fill value."""
    made = draw(shards())
    shape = tuple(draw(st.integers(1, side)) for side in made.shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.integers(0, 2**8, (*shape, made.dtype.itemsize), np.uint8).view(made.dtype)[..., 0]  # NaNs of any kind
    for row, column in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=3)):
        y, x = row * made.chunk[0], column * made.chunk[1]
        values[y : y + made.chunk[0], x : x + made.chunk[1]] = made.fill
    return made, values


def zarrs(made, shape, **how):
    """An array of zarr's of one shard, and the mapping in which it lies."""
    kept = {}
    array = zarr.create_array(
        MemoryStore(kept),
        shape=shape,
        dtype=made.dtype,
        chunks=made.chunk,
        shards=made.shape,
        compressors=[ZstdCodec(level=LEVEL), Crc32cCodec()],
        fill_value=made.fill,
        **how,
    )
    return array, kept


def getter(data, asked=None):
    """Parts of a value, as a place gives them."""

    def get(start, size):
        if asked is not None:
            asked.append((start, size))
        return data[start:][:size]

    return get


@settings(deadline=None, max_examples=40)
@given(filled())
def test_zarr_reads_what_is_encoded_here(case):
    made, values = case
    array, kept = zarrs(made, values.shape)
    kept["c/0/0"] = default_buffer_prototype().buffer.from_bytes(made.encode(values))
    assert array[:].tobytes() == values.tobytes()


@settings(deadline=None, max_examples=40)
@given(filled())
def test_what_zarr_encodes_is_read_here(case):
    made, values = case
    array, kept = zarrs(made, values.shape, config={"write_empty_chunks": True})
    array[:] = values
    data = kept["c/0/0"].to_bytes()
    made.check(data, values.shape)
    assert made.decode(data, values.shape).tobytes() == values.tobytes()


@settings(deadline=None, max_examples=40)
@given(filled())
def test_what_is_encoded_is_decoded_and_the_same_samples_give_the_same_bytes(case):
    made, values = case
    data = made.encode(values)
    assert made.decode(data, values.shape).tobytes() == values.tobytes()
    assert made.encode(np.asfortranarray(values)) == data
    assert made.encode(np.repeat(np.repeat(values, 2, 0), 2, 1)[::2, ::2]) == data
    assert made.encode(values.astype(made.dtype.newbyteorder(">"))) == data
    made.check(data, values.shape)


@settings(deadline=None, max_examples=60)
@given(filled(), st.data())
def test_a_window_is_read_by_the_chunks_that_lie_in_it_and_no_others(case, data):
    made, values = case
    (top, bottom), (left, right) = (
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in values.shape
    )
    encoded, asked = made.encode(values), []
    out = np.empty((bottom - top, right - left), made.dtype)
    window = slice(top, bottom), slice(left, right)
    assert made.read(getter(encoded, asked), window, out)
    assert out.tobytes() == values[window].tobytes()
    chunks = {(y // made.chunk[0], x // made.chunk[1]) for y in range(top, bottom) for x in range(left, right)}
    assert len(asked) == 1 + len(chunks)
    assert sum(size for _, size in asked) <= len(encoded)


def test_a_window_of_no_shard_is_left_alone():
    made = Shards((4, 4), (2, 2), np.dtype("int32"), 0)
    out = np.full((4, 4), 7, np.int32)
    for nothing in (lambda start, size: None, lambda start, size: b""):
        assert not made.read(nothing, (slice(0, 4), slice(0, 4)), out)
    assert (out == 7).all()


# Damage


def damaged(made, data, shape):
    """Every way of reading a shard says that it is damaged."""
    whole = slice(0, shape[0]), slice(0, shape[1])
    with pytest.raises(DamagedShardError):
        made.decode(data, shape)
    with pytest.raises(DamagedShardError):
        made.read(getter(data), whole, np.empty(shape, made.dtype))


@settings(deadline=None, max_examples=60)
@given(filled(), st.data())
def test_a_flipped_bit_is_an_error_and_check_finds_it_without_decoding(case, data):
    made, values = case
    encoded = bytearray(made.encode(values))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    damaged(made, bytes(encoded), values.shape)
    with pytest.raises(DamagedShardError):
        made.check(bytes(encoded), values.shape)


@settings(deadline=None, max_examples=40)
@given(filled(), st.data())
def test_a_shard_cut_short_or_run_on_is_an_error(case, data):
    made, values = case
    encoded = made.encode(values)
    damaged(made, encoded[: data.draw(st.integers(1, len(encoded) - 1))], values.shape)
    damaged(made, encoded + data.draw(st.binary(min_size=1, max_size=40)), values.shape)
    with pytest.raises(DamagedShardError):
        made.decode(b"", values.shape)


@settings(deadline=None, max_examples=40)
@given(shards(), shards())
def test_a_shard_of_another_array_is_an_error(made, other):
    # of two forms of the same size in bytes nothing but the metadata tells which
    assume(made.index_size != other.index_size or made.chunk_bytes != other.chunk_bytes)
    damaged(made, other.encode(np.ones(other.shape, other.dtype)), made.shape)


def indexed(made, frames, places=None):
    """A shard of these chunks whose index has its right checksum, whatever it says."""
    offsets = np.cumsum([0, *map(len, frames)])
    index = np.array(places or [(o, len(f)) for o, f in zip(offsets, frames, strict=False)], "<u8").tobytes()
    return b"".join([*frames, index, _crc(index)])


MADE = Shards((768, 2), (384, 2), np.dtype("int32"), 0)
CHUNK = MADE.encode_chunk(np.ones(MADE.chunk, np.int32))
N = len(CHUNK)


def test_a_shard_put_together_by_hand_is_right(tmp_path):
    data = indexed(MADE, [CHUNK, CHUNK])
    assert (MADE.decode(data) == 1).all()
    assert (on_disk(tmp_path, data).window(slice(None), slice(None)) == 1).all()


@pytest.mark.parametrize(
    "place",
    [
        *[(MISSING, MISSING), (0, 0), (0, CRC), (0, 1), (2 * N, N), (2 * N + 1, N), (0, 2**40), (2**40, N)],
        *[(2**63 - N, N), (2**63, N), (MISSING - N - 1, N), (MISSING, N), (0, MISSING)],
    ],
)
def test_an_index_that_leads_out_of_the_shard_is_an_error(place, tmp_path):
    """Its checksum is right: somebody made it so."""
    data = indexed(MADE, [CHUNK, CHUNK], [(0, N), place])
    damaged(MADE, data, MADE.shape)
    with pytest.raises(DamagedShardError):
        MADE.check(data)
    store = on_disk(tmp_path, data)
    assert store.window(slice(384), slice(None)).all()
    with pytest.raises(md.StoreError, match=r"is damaged: shard 0/escape_time/c/0/0 .*verify"):
        store.window(slice(None), slice(None))


def on_disk(folder, data):
    """A store of one tile, of two chunks, whose shard is `data`."""
    view = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=MADE.shape)
    store = open_for_writing(folder / "a.zarr", Description.of(view, 100, ("escape_time",), MADE.shape))
    store.place.put("0/escape_time/c/0/0", data)
    return store


def framed(content):
    """A chunk with its right checksum."""
    return content + _crc(content)


def claiming(content, size):
    """A zstd frame whose header is changed to claim that it holds `size` bytes."""
    frame = bytearray(Zstd(level=LEVEL).encode(content))
    descriptor, claimed = frame[4], len(content)
    width = (descriptor >> 5 & 1, 2, 4, 8)[descriptor >> 6]
    start = 5 + (not descriptor >> 5 & 1)
    offset = 256 if width == 2 else 0
    assert int.from_bytes(frame[start : start + width], "little") + offset == claimed
    frame[start : start + width] = (size - offset).to_bytes(width, "little")
    return bytes(frame)


BOMBS = {
    "of another size": Zstd(level=LEVEL).encode(bytes(MADE.chunk_bytes + 1)),
    "of a gibibyte": claiming(bytes(2**20), 2**30),
    "that holds more than it claims": claiming(bytes(4000), MADE.chunk_bytes),
    "that holds less than it claims": claiming(bytes(range(250)) * 2, MADE.chunk_bytes),
    "that claims nothing": b"\x28\xb5\x2f\xfd\x00\x58" + bytes(20),
    "cut in its header": b"\x28\xb5\x2f\xfd",
    "of another compressor": b"\x1f\x8b" + bytes(40),
    "empty": b"",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_chunk_that_is_not_what_it_must_be_is_an_error(bomb):
    data = indexed(MADE, [CHUNK, framed(BOMBS[bomb])])
    damaged(MADE, data, MADE.shape)


@given(st.binary(max_size=400))
def test_any_bytes_are_an_error(data):
    assume(data)
    damaged(MADE, data, MADE.shape)


@pytest.mark.parametrize("size", [1, 3, 4, 19, 20, 35, 36, 37, -1])
def test_a_window_of_a_shard_cut_short_on_a_disk_is_an_error(tmp_path, size):
    store = on_disk(tmp_path, b"")
    store.write((0, 0), np.ones((768, 2), np.int32))
    file = Path(store.path) / "0/escape_time/c/0/0"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(md.StoreError, match="is damaged"):
        store.window(slice(0, 10), slice(0, 1))


# Windows of a store


@settings(deadline=None, max_examples=40)
@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.data())
def test_a_window_of_a_level_is_what_numpy_cuts_and_the_fill_value_where_a_tile_is_missing(shape, data):
    view = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=shape)
    tile = tuple(data.draw(st.integers(-(-n // 4), n)) for n in shape)
    values = np.arange(1, shape[0] * shape[1] + 1, dtype=np.int32).reshape(shape)
    with tempfile.TemporaryDirectory() as folder:
        store = open_for_writing(folder, Description.of(view, 100, ("escape_time",), tile))
        for i, j in np.ndindex(store.description.tiles):
            rows, columns = (slice(*part) for part in store.description.levels[0].window((i, j)))
            if data.draw(st.booleans()):
                store.write((i, j), values[rows, columns])
            else:
                values[rows, columns] = 0
        ends = st.none() | st.integers(-45, 45)
        for _ in range(4):
            rows, columns = slice(data.draw(ends), data.draw(ends)), slice(data.draw(ends), data.draw(ends))
            assert np.array_equal(store.window(rows, columns), values[rows, columns])


def test_threads_decode_beside_each_other():
    made = Shards((64, 64), (32, 32), np.dtype("int32"), 0)
    values = [np.full(made.shape, k, np.int32) for k in range(200)]
    with ThreadPoolExecutor(4) as threads:
        decoded = list(threads.map(made.decode, threads.map(made.encode, values)))
    assert all(np.array_equal(a, b) for a, b in zip(values, decoded, strict=True))
