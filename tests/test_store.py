from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import skip_or_fail
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from zarr.codecs import ShardingCodec

import mandeldask as md
from mandeldask.store import Description, chunk_side, metadata, open_for_writing, open_store
from mandeldask.store.arrays import TileColumns, one_by_one, pieces
from mandeldask.store.description import FORMAT_VERSION
from mandeldask.store.metadata import KEY

VIEW = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(70, 50))
FIELD = Description.of(VIEW, 100, ("escape_time",), (32, 20))
OTHER = dataclasses.replace(FIELD, max_iter=101)
SHARD = "0/escape_time/c/0/0"


def samples(description, seed=0):
    """Counts that no compression makes small, from 1 to the largest int32."""
    return np.random.default_rng(seed).integers(1, 2**31, description.shape, dtype=np.int32)


def tiles_of(description):
    return list(product(*(range(n) for n in description.tiles)))


def block(description, tile, values):
    rows, columns = description.levels[0].window(tile)
    return values[slice(*rows), slice(*columns)]


def fill(store, values, tiles=None):
    for tile in tiles or tiles_of(store.description):
        store.write(tile, block(store.description, tile, values))


def files(path):
    """Every file below `path` with its bytes."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(Path(path).rglob("*")) if p.is_file()}


def edit(path, change):
    """Change the root attributes of the store at `path` as a careless hand would."""
    metadata = json.loads((path / "zarr.json").read_text())
    change(metadata["attributes"][KEY])
    (path / "zarr.json").write_text(json.dumps(metadata))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.zarr"


@pytest.fixture
def full(path):
    """A whole, finished store."""
    store = open_for_writing(path, FIELD)
    fill(store, samples(FIELD))
    store.finish()
    return store


# The layout


def test_the_field_is_int32_rows_first_and_0_where_not_computed(full):
    array = zarr.open_array(full.path, path="0/escape_time", mode="r")
    assert array.metadata.zarr_format == 3
    assert (array.shape, array.dtype, array.fill_value) == (VIEW.shape, np.int32, 0)
    assert array.metadata.dimension_names == ("y", "x")


def test_one_tile_is_one_shard_of_standard_codecs(full):
    array = zarr.open_array(full.path, path="0/escape_time", mode="r")
    assert array.shards == FIELD.tile
    assert array.chunks == tuple(chunk_side(side) for side in FIELD.tile)
    (sharding,) = array.metadata.codecs
    assert isinstance(sharding, ShardingCodec)
    assert [codec.to_dict()["name"] for codec in sharding.codecs] == ["bytes", "blosc", "crc32c"]
    assert [codec.to_dict()["name"] for codec in sharding.index_codecs] == ["bytes", "crc32c"]
    shards = files(Path(full.path) / "0/escape_time/c")
    assert sorted(shards) == [f"{i}/{j}" for i, j in tiles_of(FIELD)]


@given(st.integers(1, 10**5))
def test_a_chunk_divides_its_shard_and_suits_a_viewer_or_is_the_whole_shard(side):
    chunk = chunk_side(side)
    assert side % chunk == 0
    assert 256 <= chunk <= 512 or (chunk == side and not any(side % n == 0 for n in range(256, 513)))


@pytest.mark.parametrize(("side", "chunk"), [(2048, 512), (1000, 500), (768, 384), (257, 257), (255, 255), (521, 521)])
def test_chunks_of_usual_shards(side, chunk):
    assert chunk_side(side) == chunk


@pytest.mark.parametrize("registration", ["gridline", "pixel"])
def test_coordinates_stand_beside_the_field_with_the_bits_of_the_view(path, registration):
    view = dataclasses.replace(VIEW, registration=registration)
    store = open_for_writing(path, Description.of(view, 100, ("escape_time",), (32, 20)))
    for name in ("y", "x"):
        array = zarr.open_array(store.path, path=f"0/{name}", mode="r")
        assert array.metadata.dimension_names == (name,)
        assert array[:].tobytes() == view.axis(name).tobytes()


def test_gridline_coordinates_have_the_bits_of_linspace(full):
    group = zarr.open_group(full.path, path="0", mode="r")
    assert group["x"][:].tobytes() == np.linspace(-2, 1, 50).tobytes()
    assert group["y"][:].tobytes() == np.linspace(-1.5, 1.5, 70).tobytes()


def test_the_root_carries_the_field_description(path):
    open_for_writing(path, FIELD, given={"x": ["-2", "1"]})
    manifest = zarr.open_group(path, mode="r").attrs[KEY]
    assert manifest["field"] == {
        "x": [-2.0, 1.0],
        "y": [-1.5, 1.5],
        "shape": [70, 50],
        "registration": "gridline",
        "max_iter": 100,
        "fields": ["escape_time"],
        "tile": [32, 20],
        "format_version": FORMAT_VERSION,
    }
    assert manifest["given"] == {"x": ["-2", "1"]}


def test_the_tiles_group_has_one_value_a_tile(full):
    group = zarr.open_group(full.path, path="tiles", mode="r")
    assert {name: str(array.dtype) for name, array in group.arrays()} == TileColumns
    assert {array.shape for _, array in group.arrays()} == {FIELD.tiles}


numbers = st.floats(-1e300, 1e300)
bounds = st.tuples(numbers, numbers).map(sorted).filter(lambda b: b[0] < b[1])
sides = st.integers(1, 2**31 - 1)
views = st.builds(md.View, bounds, bounds, st.tuples(sides, sides), st.sampled_from(["gridline", "pixel"]))


@given(views, st.integers(1, 2**31 - 1), st.tuples(sides, sides))
def test_a_description_comes_back_from_json_to_the_bit(view, max_iter, tile):
    description = Description.of(view, max_iter, ("escape_time",), tile)
    assume(not description.problem())
    assert Description.from_json(json.loads(json.dumps(description.to_json()))) == description
    assert description.view == view
    assert all(1 <= side <= n for side, n in zip(description.tile, description.shape, strict=True))


# Readers


def aligned(dask_array, chunks):
    """Whether every block of `dask_array` begins where a chunk does: two readers never share one."""
    return all(
        size % chunk == 0
        for sizes, chunk in zip(dask_array.chunks, chunks, strict=True)
        for size in sizes[:-1]  # the last may be cut at the edge
    )


@pytest.fixture
def large(path):
    """A store whose shards hold several chunks and whose edges are ragged."""
    view = dataclasses.replace(VIEW, shape=(1100, 900))
    store = open_for_writing(path, Description.of(view, 100, ("escape_time",), (768, 512)))
    fill(store, samples(store.description))
    store.finish()
    return store


def test_xarray_opens_a_level_without_a_warning(large):
    xarray = pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_zarr(large.path, group="0") as level:
            assert level["escape_time"].dims == ("y", "x")
            assert level["escape_time"].dtype == np.int32
            assert level["escape_time"].attrs["max_iter"] == 100
            assert aligned(level["escape_time"].data, (384, 512))
            assert np.array_equal(level["escape_time"].values, samples(large.description))
            assert level["x"].values.tobytes() == np.linspace(-2, 1, 900).tobytes()
            assert level["y"].values.tobytes() == np.linspace(-1.5, 1.5, 1100).tobytes()
            assert float(level["escape_time"].sel(x=1, y=-1.5)) == samples(large.description)[0, -1]


def test_xarray_opens_the_whole_store_as_a_tree_without_a_warning(full):
    xarray = pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_datatree(full.path, engine="zarr") as tree:
            assert set(tree.children) == {"0", "1", "2", "tiles"}
            assert np.array_equal(tree["0/escape_time"].values, samples(FIELD))
            assert set(tree["tiles"].data_vars) == set(TileColumns)


@pytest.mark.parametrize("consolidated", [None, False])
def test_plain_zarr_opens_the_store(full, consolidated):
    group = zarr.open_group(full.path, mode="r", use_consolidated=consolidated)
    assert np.array_equal(group["0/escape_time"][:], samples(FIELD))


def test_open_gives_a_lazy_dataset(large):
    pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        field = md.open(large.path)
    assert aligned(field["escape_time"].data, (384, 512))
    assert np.array_equal(field["escape_time"].values, samples(large.description))
    assert field["x"].values.tobytes() == np.linspace(-2, 1, 900).tobytes()


def test_open_reads_a_store_that_is_not_finished(path):
    pytest.importorskip("xarray")
    store = open_for_writing(path, FIELD)
    fill(store, samples(FIELD), [(1, 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = md.open(path)["escape_time"].values
    assert np.array_equal(block(FIELD, (1, 1), values), block(FIELD, (1, 1), samples(FIELD)))
    assert np.count_nonzero(values) == 32 * 20


def test_open_gives_a_zarr_group_where_xarray_is_missing(full):
    program = """
import sys
sys.modules["xarray"] = None  # makes `import xarray` fail
import mandeldask as md
field = md.open(sys.argv[1])
print(type(field).__module__.partition(".")[0], field["escape_time"][:].sum(dtype="int64"), field["x"][0])
"""
    command = [sys.executable, "-c", program, full.path]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == ["zarr", str(samples(FIELD).sum(dtype=np.int64)), "-2.0"]


# Tiles


@st.composite
def tilings(draw):
    """Small fields in at most 5 x 5 tiles, most with ragged edges, some with a tile larger than the field."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    tile = tuple(draw(st.integers(-(-n // 5), n + 3)) for n in shape)
    return Description.of(dataclasses.replace(VIEW, shape=shape), 100, ("escape_time",), tile)


@settings(deadline=None, max_examples=12)
@given(tilings(), st.integers(0, 2**32), st.data())
def test_what_is_written_is_read_and_only_that_is_done(description, seed, data):
    values = samples(description, seed)
    tiles = data.draw(st.lists(st.sampled_from(tiles_of(description)), unique=True))
    with tempfile.TemporaryDirectory() as directory:
        store = open_for_writing(directory, description)
        assert not store.done().any()
        for tile in tiles:
            store.write(tile, block(description, tile, values))
        assert sorted(map(tuple, np.argwhere(store.done()).tolist())) == sorted(tiles)
        for tile in tiles_of(description):
            wanted = block(description, tile, values)
            assert np.array_equal(store.read(tile), wanted if tile in tiles else np.zeros_like(wanted))
        for tile in tiles_of(description):
            store.write(tile, block(description, tile, values))
        assert store.done().all()
        assert np.array_equal(store.escape_time[:], values)


def test_a_tile_whose_samples_are_all_alike_is_written_too(path):
    store = open_for_writing(path, FIELD)
    store.write((0, 0), np.ones((32, 20), np.int32))
    store.write((0, 1), np.zeros((32, 20), np.int32))  # the fill value
    assert np.argwhere(store.done()).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    "stray",
    ["1/1.0123456789abcdef.partial", "1/1.partial", "1/.1.tmp", "1/x", "x/1", "1.1", "1/1/1", "9/0", "0/9"],
)
def test_a_stray_file_beside_the_shards_is_no_tile(path, stray):
    store = open_for_writing(path, FIELD)
    fill(store, samples(FIELD), [(0, 1)])
    (path / "0/escape_time/c" / stray).parent.mkdir(parents=True, exist_ok=True)
    (path / "0/escape_time/c" / stray).write_bytes(b"half a shard")
    assert np.argwhere(store.done()).tolist() == [[0, 1]]


def test_writing_a_tile_twice_gives_identical_bytes(full):
    before = files(full.path)
    fill(full, samples(FIELD))
    fill(open_store(full.path), samples(FIELD), tiles_of(FIELD)[::-1])
    assert files(full.path) == before


def test_writers_that_overlap_leave_zarr_as_they_found_it():
    """Zarr's settings are the process's: the first writer must not take back what the second needs, nor keep it."""
    before = zarr.config.get("async.concurrency")
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    for writer in (first, second):
        writer.enter_context(one_by_one())
        assert zarr.config.get("async.concurrency") == 1
    first.close()
    assert zarr.config.get("async.concurrency") == 1 < before
    second.close()
    assert zarr.config.get("async.concurrency") == before


def test_a_store_travels_to_a_worker_and_writes_there(client, path):
    store = open_for_writing(path, FIELD)
    assert pickle.loads(pickle.dumps(store)) == store
    client.submit(fill, store, samples(FIELD), pure=False).result()
    assert np.array_equal(store.escape_time[:], samples(FIELD))


@settings(deadline=None, max_examples=5)
@given(tilings(), st.integers(0, 2**32))
def test_the_checksum_is_that_of_the_samples_in_row_order_whatever_the_tiles(description, seed):
    values = samples(description, seed)
    wanted = hashlib.sha256(values.astype("<i4").tobytes()).hexdigest()
    rows, columns = description.shape
    for tile in (description.tile, (1, columns), (rows, 1)):
        tiled = dataclasses.replace(description, tile=tile)
        with tempfile.TemporaryDirectory() as directory:
            store = open_for_writing(directory, tiled)
            array = zarr.open_array(directory, path="0/escape_time", mode="r+")
            array[:] = values
            assert store.checksum() == wanted


@settings(deadline=None, max_examples=10)
@given(st.tuples(st.integers(1, 150), st.integers(1, 150)), st.data())
def test_what_the_driver_learns_is_kept_tile_by_tile(tiles, data):
    description = Description.of(dataclasses.replace(VIEW, shape=tiles), 100, ("escape_time",), (1, 1))
    anywhere = st.tuples(st.integers(0, tiles[0] - 1), st.integers(0, tiles[1] - 1))
    changed = data.draw(st.sets(anywhere, max_size=20))
    with tempfile.TemporaryDirectory() as directory:
        store = open_for_writing(directory, description)
        columns = store.read_tiles()
        assert all((column == 0).all() for column in columns.values())
        for k, tile in enumerate(sorted(changed)):
            for column in columns.values():
                column[tile] = k + 1
        store.write_tiles(columns, changed)
        for name, column in store.read_tiles().items():
            assert column.dtype == TileColumns[name]
            assert np.array_equal(column, columns[name])


def test_notes_are_kept_until_they_are_none(path):
    store = open_for_writing(path, FIELD)
    store.write_notes(errors={"0,0": "no luck"}, lease={"pid": 1})
    store.write_notes(lease=None)
    assert open_store(path).read_notes() == {"errors": {"0,0": "no luck"}}


# Opening for writing


def test_parents_are_created(tmp_path):
    deep = tmp_path / "not/there/yet/a.zarr"
    assert open_for_writing(deep, FIELD) == open_store(deep)


@pytest.mark.parametrize("name", ["a", "a.zip", "a::b.zarr", "a b%20#?.zarr", "ä.zarr", "-.zarr"])
def test_a_store_is_a_directory_of_any_name(tmp_path, name):
    store = open_for_writing(tmp_path / name, FIELD)
    assert (tmp_path / name).is_dir()
    fill(store, samples(FIELD))
    assert open_store(tmp_path / name).done().all()


def test_an_empty_directory_becomes_a_store(path):
    path.mkdir()
    assert open_for_writing(path, FIELD) == open_store(path)


def test_the_same_field_reopens_and_keeps_all_that_is_there(full):
    before = files(full.path)
    assert open_for_writing(full.path, FIELD, given={"other": "digits"}) == full
    assert files(full.path) == before


ARRAYS = ["0/escape_time", "0/x", "0/y", *(f"tiles/{name}" for name in TileColumns)]


@pytest.mark.parametrize("lost", [*ARRAYS, "0", "tiles", "0/x/c", "0/y/c"])
def test_an_interrupted_creation_is_mended(path, lost):
    """A writer killed between any two files it makes leaves a store that the next one completes."""
    store = open_for_writing(path, FIELD)
    shutil.rmtree(path / lost)
    assert open_for_writing(path, FIELD) == store
    fill(store, samples(FIELD))
    store.finish()
    level = zarr.open_group(path, path="0", mode="r")
    assert np.array_equal(level["escape_time"][:], samples(FIELD))
    for name in ("y", "x"):
        assert level[name][:].tobytes() == VIEW.axis(name).tobytes()
    assert {name: column.shape for name, column in store.read_tiles().items()} == dict.fromkeys(TileColumns, (3, 3))


@pytest.mark.parametrize("lost", ["0/escape_time", "0/x", "tiles/seconds"])
def test_an_array_lost_from_a_finished_store_is_made_again(full, path, lost):
    """Its metadata, consolidated when the run ended, is still in its groups and must not be believed."""
    shutil.rmtree(path / lost)
    store = open_for_writing(path, FIELD)
    assert (path / lost / "zarr.json").exists()
    fill(store, samples(FIELD))
    assert np.array_equal(store.escape_time[:], samples(FIELD))


def test_a_creation_killed_before_its_first_file_was_whole_is_started_again(path):
    path.mkdir()
    (path / f"zarr.{'0123456789abcdef' * 2}.partial").write_text('{"zarr_fo')
    assert open_for_writing(path, FIELD) == open_store(path)


CHANGES = {
    "shape": (71, 50),
    "registration": "pixel",
    "max_iter": 101,
    "fields": ("escape_time", "other"),
    "tile": (32, 32),
    "x": (-2.0, 1.5),
    "y": (-1.5, 1.25),
}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed=st.sets(st.sampled_from(sorted(CHANGES)), min_size=1))
def test_another_field_is_refused_with_three_entries_that_differ_and_no_other(full, changed):
    before = files(full.path)
    other = dataclasses.replace(FIELD, **{name: CHANGES[name] for name in changed})
    with pytest.raises(md.StoreError) as told:
        open_for_writing(full.path, other)
    message = str(told.value)
    told = [name for name in CHANGES if name in changed][:3]
    for name in CHANGES:
        mine, theirs = FIELD.to_json()[name], other.to_json()[name]
        assert (f"{name} is {mine} there, {theirs} here" in message) == (name in told)
    assert (f"; and {len(changed) - 3} more" in message) == (len(changed) > 3)
    assert "--overwrite" in message
    assert files(full.path) == before


def test_overwrite_replaces_a_store_of_ours_and_leaves_nothing_of_it(full, tmp_path):
    store = open_for_writing(full.path, OTHER, overwrite=True)
    assert store == open_store(full.path)
    assert store.description == OTHER
    assert store.identity != full.identity
    assert not store.done().any()
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_overwrite_replaces_a_store_behind_a_symbolic_link(full, tmp_path):
    link = tmp_path / "link.zarr"
    link.symlink_to(full.path)
    open_for_writing(link, OTHER, overwrite=True)
    assert link.is_symlink()
    assert open_store(full.path).description == OTHER
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "link.zarr"]


def foreign_group(path):
    zarr.create_group(path, attributes={"theirs": 1}).create_array("a", shape=(3,), dtype="i4")[:] = 7


def foreign_array(path):
    zarr.create_array(path, shape=(3,), dtype="i4")[:] = 7


def old_zarr(path):
    zarr.create_group(path, zarr_format=2, attributes={"theirs": 1})


def group_with_our_key(path):
    zarr.create_group(path, attributes={KEY: "is what they call it"})


def plain_directory(path):
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")


def dot_file(path):
    path.mkdir()
    (path / ".keep").touch()


def directories_alone(path):
    (path / "empty/but/mine").mkdir(parents=True)


def file(path):
    path.write_text("years of work")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "make",
    [foreign_group, foreign_array, old_zarr, group_with_our_key, plain_directory, dot_file, directories_alone, file],
)
def test_what_is_not_ours_is_refused_and_not_touched_even_with_overwrite(tmp_path, path, make, overwrite):
    make(path)
    before, names = files(tmp_path), sorted(tmp_path.rglob("*"))
    with pytest.raises(md.StoreError, match="choose another path"):
        open_for_writing(path, FIELD, overwrite=overwrite)
    assert files(tmp_path) == before
    assert sorted(tmp_path.rglob("*")) == names


@pytest.mark.parametrize("open_it", [open_store, md.open, functools.partial(open_for_writing, description=FIELD)])
@pytest.mark.parametrize(
    "url", ["ftp://bucket/a.zarr", "https://example.org/a.zarr", "file:///tmp/a.zarr", "memory://a"]
)
def test_a_url_of_another_kind_is_refused(open_it, url):
    with pytest.raises(md.StoreError, match="a store is a path, or a URL of s3://, gs://"):
        open_it(url)


@pytest.mark.parametrize("open_it", [open_store, md.open, functools.partial(open_for_writing, description=FIELD)])
@pytest.mark.parametrize("bad", ["", "a\0b", "x" * 300])
def test_what_can_be_no_path_is_refused(tmp_path, monkeypatch, open_it, bad):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(md.StoreError):
        open_it(bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("open_it", [open_store, md.open])
def test_where_no_store_is_the_command_that_makes_one_is_told(path, open_it):
    with pytest.raises(md.StoreError, match=r"no store at .*a\.zarr; compute one with `.*mandeldask run CONFIG --out"):
        open_it(path)
    assert not path.exists()


@pytest.mark.parametrize("open_it", [open_store, md.open])
@pytest.mark.parametrize("make", [foreign_group, foreign_array, old_zarr, group_with_our_key, plain_directory, file])
def test_what_is_no_store_of_ours_is_not_opened(path, open_it, make):
    make(path)
    with pytest.raises(md.StoreError, match="is not a store of mandeldask"):
        open_it(path)


def test_a_newer_format_version_is_refused(full, path):
    edit(path, lambda manifest: manifest["field"].update(format_version=FORMAT_VERSION + 1, colour="blue"))
    before = files(path)
    for open_it in (open_store, md.open, functools.partial(open_for_writing, description=FIELD)):
        with pytest.raises(md.StoreError, match=f"format version {FORMAT_VERSION + 1}, and this mandeldask reads"):
            open_it(path)
    assert files(path) == before


def damage(**entries):
    return lambda manifest: manifest["field"].update(entries)


def remove(*keys):
    def change(manifest):
        for key in keys:
            (manifest if key in manifest else manifest["field"]).pop(key)

    return change


DAMAGES = [
    *(remove(name) for name in (*FIELD.to_json(), "identity", "field")),
    lambda manifest: manifest["field"].clear(),
    lambda manifest: manifest.update(field=[1, 2]),
    damage(surprise=1),
    *(damage(x=value) for value in ("no", 3, [1], [1, 0], [None, 1], ["a", "b"], {"low": 1})),
    *(damage(shape=value) for value in ("70", 70, [70], [0, 50], [70.5, 50], [70, "50"], [70, 2**40], None)),
    *(damage(tile=value) for value in ("32", 32, [32], [0, 20], [-1, 20], [32.5, 20], [32, "20"], None)),
    *(damage(max_iter=value) for value in ("100", 0, -1, 2**31, 1.5, None, True)),
    *(damage(fields=value) for value in ("escape_time", 5, None, [], [1])),
    *(damage(registration=value) for value in ("other", 1, None)),
    *(damage(format_version=value) for value in (None, "1", 0, [1])),
]


@pytest.mark.parametrize("change", DAMAGES, ids=lambda _: "")
def test_a_damaged_description_is_told_and_not_believed(full, path, change):
    edit(path, change)
    before = files(path)
    for open_it in (open_store, md.open, functools.partial(open_for_writing, description=FIELD)):
        with pytest.raises(md.StoreError):
            open_it(path)
    assert files(path) == before


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"3",
        b"null",
        b"{}",
        b'{"zarr_format": 3}',
        b'{"zarr_format": 9, "node_type": "group"}',
        b'{"zarr_format": 3, "node_type": "group", "attributes": []}',
        b'{"zarr_format": 3, "node_type": "group", "attributes": {"mandeldask": null}}',
    ],
)
def test_root_metadata_that_cannot_be_read_is_told_and_left_alone(full, path, text):
    (path / "zarr.json").write_bytes(text)
    before = files(path)
    for open_it in (
        open_store,
        md.open,
        functools.partial(open_for_writing, description=FIELD),
        functools.partial(open_for_writing, description=FIELD, overwrite=True),
    ):
        with pytest.raises(md.StoreError):
            open_it(path)
    assert files(path) == before


@pytest.mark.parametrize("name", ["0/zarr.json", "0/escape_time/zarr.json", "tiles/zarr.json", "0/x/zarr.json"])
def test_array_metadata_that_cannot_be_read_is_mended_or_told_and_costs_no_tile(full, path, name):
    whole = (path / name).read_bytes()
    (path / name).write_text("{")
    try:
        store = open_for_writing(path, FIELD)
    except md.StoreError:
        (path / name).write_bytes(whole)
        store = open_store(path)
    assert store.done().all()
    assert np.array_equal(store.escape_time[:], samples(FIELD))
    assert zarr.open_array(path, path="0/x", mode="r")[:].tobytes() == VIEW.axis("x").tobytes()


def test_a_place_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("years of work")
    with pytest.raises(md.StoreError, match=r"cannot write .*; choose another path"):
        open_for_writing(tmp_path / "file/a.zarr", FIELD)
    assert files(tmp_path) == {"file": b"years of work"}


# Faults


@pytest.mark.parametrize("known", [False, True], ids=["not yet opened", "opened before"])
def test_a_writer_that_holds_a_replaced_store_does_not_write(path, known):
    """Else a worker that outlives its run writes another field's counts among the new ones, as a finished tile."""
    old = open_for_writing(path, FIELD)
    if known:
        fill(old, samples(FIELD), [(1, 1)])
    new = open_for_writing(path, OTHER, overwrite=True)
    before = files(path)
    with pytest.raises(md.StoreError, match="was replaced while a run was writing it"):
        fill(old, samples(FIELD), [(0, 0)])
    assert not new.done().any()
    assert files(path) == before


@pytest.mark.parametrize("known", [False, True], ids=["not yet opened", "opened before"])
def test_a_writer_whose_store_was_removed_does_not_bring_it_back(path, known):
    store = open_for_writing(path, FIELD)
    if known:
        fill(store, samples(FIELD), [(1, 1)])
    shutil.rmtree(path)
    with pytest.raises(md.StoreError, match="was replaced while a run was writing it"):
        fill(store, samples(FIELD), [(0, 0)])
    assert not path.exists()


LATE = """if True:
    import os, signal, sys
    import numpy as np
    from mandeldask.store import Store, open_store

    checks, check = [], Store.check_identity

    def check_and_sleep(self, *here):
        check(self, *here)
        checks.append(here)
        if len(checks) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGSTOP)

    store = open_store(sys.argv[1])
    Store.check_identity = check_and_sleep
    names = [("escape_time", "i4"), ("smooth", "f4")]
    store.write((0, 0), np.ones(store.description.levels[0].tile_shape((0, 0)), names))
"""


@pytest.mark.parametrize("checks", [1, 2])
def test_a_worker_that_slept_between_check_and_write_does_not_reach_a_store_that_took_its_place(path, checks):
    """Neither the field, nor another field, nor a level."""
    view = dataclasses.replace(VIEW, shape=(1030, 1100))
    fields = ("escape_time", "smooth")
    open_for_writing(path, Description.of(view, 100, fields, (512, 512)))
    worker = subprocess.Popen([sys.executable, "-c", LATE, str(path), str(checks)], stderr=subprocess.PIPE)
    assert os.WIFSTOPPED(os.waitpid(worker.pid, os.WUNTRACED)[1]), worker.stderr.read()
    new = open_for_writing(path, Description.of(view, 50, fields, (512, 512)), overwrite=True)
    before = files(path)
    os.kill(worker.pid, signal.SIGCONT)
    _, complaint = worker.communicate(timeout=60)
    assert re.search("FileNotFoundError|was replaced while a run was writing it", complaint.decode())
    assert not any(new.done(level.number).any() for level in new.description.levels)
    assert files(path) == before
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """A store of one shard that holds two chunks: the store, the shard's file and its bytes."""
    view = dataclasses.replace(VIEW, shape=(768, 2))
    store = open_for_writing(
        tmp_path_factory.mktemp("shard") / "a.zarr", Description.of(view, 100, ("escape_time",), (768, 2))
    )
    store.write((0, 0), np.arange(1, 769, dtype=np.int32)[:, np.newaxis] * np.ones(2, np.int32))
    file = Path(store.path) / SHARD
    return store, file, file.read_bytes()


@settings(deadline=None)
@given(st.data())
def test_a_flipped_bit_anywhere_in_a_shard_is_an_error_and_no_number(shard, data):
    store, file, whole = shard
    position, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(whole)
    changed[position] ^= 1 << bit
    file.write_bytes(changed)
    try:
        with pytest.raises((ValueError, md.StoreError)):
            store.read((0, 0))
    finally:
        file.write_bytes(whole)
    assert store.read((0, 0))[-1].tolist() == [768, 768]


@pytest.mark.parametrize("size", [0, 1, 4, 19, 35, 36, 37, 100, -1])
def test_a_shard_cut_short_is_not_done_or_an_error_and_never_a_number(shard, size):
    """A machine that lost power may leave one: an empty shard must not read as zeros while it counts as done."""
    store, file, whole = shard
    file.write_bytes(whole[:size])
    try:
        if store.done()[0, 0]:
            with pytest.raises((ValueError, md.StoreError)):
                store.read((0, 0))
    finally:
        file.write_bytes(whole)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        skip_or_fail("there is no mount command")
    if mounted.returncode:
        skip_or_fail(f"a tmpfs cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def exhaust(disk):
    """Take what is left of a disk, to the last byte."""
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 (the loop ends in no other way)


def test_a_full_disk_is_an_error_and_leaves_no_part_of_a_tile_that_reads_as_data(small_disk):
    view = dataclasses.replace(VIEW, shape=(1024, 1024))  # 4 MiB of counts that zstd cannot shrink by a quarter
    description = Description.of(view, 100, ("escape_time",), (256, 256))
    values = samples(description)
    store = open_for_writing(small_disk / "a.zarr", description)
    with pytest.raises((OSError, md.StoreError), match="No space left on device"):
        fill(store, values)
    written = list(map(tuple, np.argwhere(store.done()).tolist()))
    assert 1 <= len(written) < 4
    assert written == tiles_of(description)[: len(written)]
    for tile in tiles_of(description):
        wanted = block(description, tile, values)
        assert np.array_equal(store.read(tile), wanted if tile in written else np.zeros_like(wanted))
    assert open_for_writing(store.path, description) == store
    assert not list(small_disk.rglob("*.partial"))


def test_a_store_on_a_full_disk_is_refused_and_can_be_made_once_there_is_room(small_disk):
    exhaust(small_disk)
    with pytest.raises(md.StoreError, match=r"cannot write .*No space left on device"):
        open_for_writing(small_disk / "a.zarr", FIELD)
    with pytest.raises(md.StoreError):
        open_store(small_disk / "a.zarr")
    (small_disk / "ballast").unlink()
    store = open_for_writing(small_disk / "a.zarr", FIELD)
    fill(store, samples(FIELD))
    assert store.done().all()


def test_what_a_driver_noted_survives_a_full_disk(small_disk):
    store = open_for_writing(small_disk / "a.zarr", FIELD)
    store.write_notes(errors={"0,0": "no luck"})
    exhaust(small_disk)
    with pytest.raises(OSError, match="No space left on device"):
        store.write_notes(errors={str(k): "x" * 100 for k in range(100)})
    assert store.read_notes() == {"errors": {"0,0": "no luck"}}


def test_a_read_only_disk_is_refused_before_a_run_and_still_read(small_disk):
    store = open_for_writing(small_disk / "a.zarr", FIELD)
    fill(store, samples(FIELD), [(0, 0)])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for name, overwrite in (("a.zarr", False), ("a.zarr", True), ("b.zarr", False)):
        with pytest.raises(md.StoreError, match=r"cannot write .*; choose another path"):
            open_for_writing(small_disk / name, FIELD, overwrite=overwrite)
    assert open_store(store.path).done()[0, 0]
    assert sorted(os.listdir(small_disk)) == ["a.zarr"]


# Stores of format version 2, whose shards are compressed by zstd


def claim(path, side, tile):
    """A store whose description claims a field of `side` x `side`, of which nothing is there."""
    description = Description.of(md.View((-2, 1), (-1.5, 1.5), (side, side)), 100, ("escape_time",), (tile, tile))
    path.mkdir()
    manifest = metadata.new_manifest(description, "0" * 32, {})
    (path / "zarr.json").write_text(json.dumps(metadata.root(manifest, description)))
    return path


MEASURED = """if True:
    import re, sys
    from mandeldask.cli import main
    sys.argv[0] = "mandeldask"
    try:
        main()
    finally:
        # unlike ru_maxrss nothing of the parent's
        print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


def measured(*words):
    """Exit code, message and MiB of a command."""
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, int(done.stdout.split()[-1])


@pytest.mark.parametrize(
    ("command", "side", "tile", "code", "message"),
    [
        ("checksum", 2**31 - 1, 2**20, 3, "at most 2^46 samples"),
        ("image", 2**31 - 1, 2**20, 3, "at most 2^46 samples"),
        ("checksum", 2**22, 4096, 3, "lacks 1048576 tiles of 17.6 T samples"),
        ("image", 2**17, 2048, 0, ""),
    ],
)
def test_a_store_that_claims_to_be_huge_takes_no_memory(tmp_path, command, side, tile, code, message):
    path = claim(tmp_path / "a.zarr", side, tile)
    out = [str(tmp_path / "a.png"), "--size", "100", "--quiet"] if command == "image" else []
    got, said, mebibytes = measured(command, str(path), *out)
    assert got == code, said
    assert not code or message in said.splitlines()[-1]
    assert mebibytes < 600


@pytest.mark.parametrize(
    ("side", "message"), [(2**31 - 1, r"at most 2\^46"), (2**22, "too large for Dask: open its level 1")]
)
def test_a_field_too_large_for_dask_is_not_opened(tmp_path, side, message):
    with pytest.raises(md.StoreError, match=message):
        md.open(claim(tmp_path / "a.zarr", side, 2**20))


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 299), st.integers(1, 64))
def test_every_kth_index_lies_in_one_piece(stop, step, start, side):
    indices = range(min(start, stop), stop, step)
    found = list(pieces(indices, side))
    assert [i for _, piece in found for i in piece] == list(indices)
    assert all(indices[there] == piece and len({i // side for i in piece}) == 1 for there, piece in found)


def test_every_kth_sample_of_an_unfinished_field_is_that_of_the_whole(path):
    view = dataclasses.replace(VIEW, shape=(1030, 1100))
    description = Description.of(view, 100, ("escape_time",), (512, 512))
    store, values = open_for_writing(path, description), samples(description)
    fill(store, values, [(0, 0), (1, 2), (2, 1)])
    whole = store.escape_time[:, :]
    for window in (slice(3, 1029, 5), slice(0, None, 700)), (slice(600, 601), slice(1, None, 2)):
        assert np.array_equal(store.escape_time[window], whole[window])


@pytest.fixture
def older(path):
    store = open_for_writing(path, dataclasses.replace(FIELD, format_version=2))
    fill(store, samples(FIELD))
    store.finish()
    return store


def test_a_store_of_version_2_is_read(older):
    array = zarr.open_array(older.path, path="0/escape_time", mode="r")
    assert [codec.to_dict()["name"] for codec in array.metadata.codecs[0].codecs] == ["bytes", "zstd", "crc32c"]
    assert open_store(older.path) == older
    assert np.array_equal(older.escape_time[:], samples(FIELD))
    assert np.array_equal(md.open(older.path)["escape_time"], samples(FIELD))
    assert not {"shard", "metadata"} & md.verify(older.path).kinds.keys()


def test_a_store_of_version_3_is_written_unless_its_smooth_is_of_another_type(path):
    older = dataclasses.replace(FIELD, format_version=3)
    store = open_for_writing(path, older)
    assert open_for_writing(path, FIELD) == store
    other = dataclasses.replace(older, fields=("escape_time", "smooth"))
    open_for_writing(path, other, overwrite=True)
    assert zarr.open_array(path, path="0/smooth", mode="r").dtype == np.float32
    with pytest.raises(md.StoreError, match="format version 3"):
        open_for_writing(path, dataclasses.replace(other, format_version=4))


def test_a_store_of_version_2_is_not_written_and_the_message_says_what_to_do(older, path):
    before = files(path)
    with pytest.raises(
        md.StoreError, match=r"format version 2, which .* into another path or with --overwrite .*, or finish"
    ):
        open_for_writing(path, FIELD)
    assert files(path) == before
    assert open_for_writing(path, FIELD, overwrite=True).description == FIELD
