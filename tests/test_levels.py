"""The pyramid: each level is every 2nd, 4th, ... sample of the field, made while the field is, and made good later."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import deque
from functools import partial
from itertools import product
from pathlib import Path

import faults
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mandeldask as md
from mandeldask.config import parse
from mandeldask.job import Progress
from mandeldask.job.plan import Levels
from mandeldask.kernels import FIELDS, KERNELS
from mandeldask.store import Description, Store, open_for_writing, open_store
from mandeldask.store.description import MAX_FINE
from mandeldask.store.metadata import ome
from mandeldask.store.place import Place

UNIT = {"view": {"x": [0, 1], "y": [0, 1], "shape": [100, 120]}, "max_iter": 50, "tile": [25, 40], "kernel": "numpy"}
ALL = ("escape_time", "smooth", "distance")


def described(shape, tile, fields=("escape_time",)):
    return Description.of(md.View(x=(-2, 1), y=(-1.5, 1.5), shape=shape), 100, fields, tile)


@st.composite
def small(draw, fields=("escape_time",)):
    """Fields in tiles of any shape, of a single sample too; no level is fine."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    return described(shape, tuple(draw(st.integers(-(-n // 6), n + 2)) for n in shape), fields)


@st.composite
def any_size(draw):
    """The same of any size; of some the tiles are halved with the level, once or twice or in vain."""
    shape = draw(st.tuples(st.integers(1, 20000), st.integers(1, 20000)))
    tile = (
        draw(st.sampled_from([256, 512, 514, 520, 768, 1000, 1024, 1026, 2048, 4096]) | st.integers(n // 5 + 1, n))
        for n in shape
    )
    return described(shape, tuple(tile))


def tiles_of(level):
    return list(product(*map(range, level.tiles)))


# Arithmetic


@given(small() | any_size())
def test_levels_go_on_until_one_is_no_larger_than_a_tile(d):
    for k, level in enumerate(d.levels):
        assert level.number == k
        assert level.shape == (len(range(0, d.shape[0], 2**k)), len(range(0, d.shape[1], 2**k)))
        assert all(n <= side for n, side in zip(level.shape, d.tile, strict=True)) == (k == len(d.levels) - 1)
    assert d.fine <= min(MAX_FINE, len(d.levels) - 1)


@given(any_size())
def test_on_the_fine_levels_a_tile_stays_a_tile(d):
    """What its own task writes is what it has at hand, and no smaller than a viewer's chunk."""
    for level in d.levels[: d.fine + 1]:
        assert level.tiles == d.tiles
        for tile in [(0, 0), (d.tiles[0] - 1, d.tiles[1] - 1)]:
            for (start, stop), (first, end) in zip(level.window(tile), d.levels[0].window(tile), strict=True):
                assert range(10**6)[first : end : level.stride] == range(
                    start * level.stride, stop * level.stride, level.stride
                )
        assert level.number == 0 or min(level.tile) >= 256
    assert all(level.tile == d.tile for level in d.levels[d.fine + 1 :])


@pytest.mark.parametrize(
    ("tile", "fine"),
    [
        *[((4096, 4096), 2), ((1024, 1024), 2), ((512, 512), 1), ((512, 1024), 1), ((256, 256), 0)],
        *[((1000, 1000), 1), ((1536, 1032), 2), ((1026, 1024), 1), ((1023, 1024), 0)],
    ],
)
def test_fine_levels_of_usual_tiles(tile, fine):
    assert described((10000, 10000), tile).fine == fine


@given(small() | any_size(), st.data())
def test_a_tile_has_the_children_that_hold_its_samples_and_they_have_it_as_parent(d, data):
    for level in d.levels[1:]:
        below, tile = d.levels[level.number - 1], tuple(data.draw(st.integers(0, n - 1)) for n in level.tiles)
        rows, columns = level.window(tile)
        held = {(2 * y // below.tile[0], 2 * x // below.tile[1]) for y in range(*rows) for x in _ends(*columns)}
        held |= {(2 * y // below.tile[0], 2 * x // below.tile[1]) for y in _ends(*rows) for x in range(*columns)}
        held = set(product({i for i, _ in held}, {j for _, j in held}))
        assert sorted(held) == d.children(level.number, tile)
        assert {list(d.made_from((below.number, *child)))[1] for child in held} == {(level.number, *tile)}


def _ends(start, stop):
    return {start, stop - 1}


@given(small())
def test_the_tiles_of_a_level_are_its_samples_each_once(d):
    for level in d.levels:
        seen = np.zeros(level.shape, np.int32)
        for tile in tiles_of(level):
            rows, columns = level.window(tile)
            seen[slice(*rows), slice(*columns)] += 1
            assert level.tile_shape(tile) == (rows[1] - rows[0], columns[1] - columns[0])
        assert (seen == 1).all()


# What is written


def random_field(d, seed):
    """Any samples, in all of the fields; some are not a number."""
    rng = np.random.default_rng(seed)
    field = np.zeros(d.shape, [(name, FIELDS[name]) for name in d.fields])
    field["escape_time"] = rng.integers(1, 101, d.shape)
    for name in d.fields[1:]:
        field[name] = np.where(rng.random(d.shape) < 0.2, np.nan, rng.random(d.shape))
    return field


def write_all(store, field):
    d = store.description
    for tile in tiles_of(d.levels[0]):
        rows, columns = d.levels[0].window(tile)
        store.write(tile, field[slice(*rows), slice(*columns)])
    for level in d.levels[d.fine + 1 :]:
        for tile in tiles_of(level):
            store.write_level(level.number, tile)


def check_levels(store, field):
    """Each level is every 2^k-th sample of `field`, in bits, and stands at its coordinates."""
    for level in store.description.levels:
        k = level.stride
        assert store.done(level.number).all()
        for name in store.description.fields:
            found = store.window(slice(None), slice(None), level.number, name)
            assert found.tobytes() == np.ascontiguousarray(field[name][::k, ::k]).tobytes(), (level, name)


@settings(deadline=None, max_examples=10)
@given(small(ALL), st.integers(0, 2**32))
def test_each_level_is_every_second_sample_of_the_one_below(d, seed):
    field = random_field(d, seed)
    with tempfile.TemporaryDirectory() as folder:
        store = open_for_writing(folder, d)
        write_all(store, field)
        check_levels(store, field)


@pytest.mark.parametrize(
    ("shape", "tile"),
    [((1100, 1700), (512, 1024)), ((2100, 2050), (1024, 1024)), ((1025, 300), (512, 512)), ((3000, 1), (1024, 1))],
)
def test_levels_that_a_tile_writes_beside_it_are_the_same(tmp_path, shape, tile):
    d = described(shape, tile, ALL[:2])
    field = random_field(d, 1)
    store = open_for_writing(tmp_path / "a.zarr", d)
    write_all(store, field)
    check_levels(store, field)
    before = files(store.path)
    for level in d.levels[1:]:  # made from the shards of the level below, they have the same bytes
        for tile_ in tiles_of(level):
            store.write_level(level.number, tile_)
    assert files(store.path) == before


def files(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(Path(path).glob("[0-9]*/*/c/**/*")) if p.is_file()}


def test_a_level_is_not_made_of_what_is_missing_or_damaged(tmp_path):
    d = described((40, 40), (10, 10))
    store = open_for_writing(tmp_path / "a.zarr", d)
    write_all(store, random_field(d, 2))
    before = files(store.path)
    shard = tmp_path / "a.zarr/1/escape_time/c/0/1"
    for damage in (b"", before["1/escape_time/c/0/1"][:-1], b"\0" * 200):
        shard.write_bytes(damage)
        with pytest.raises(md.StoreError, match=r"shard 1/escape_time/c/0/1 .*verify"):
            store.write_level(2, (0, 0))
    shard.write_bytes(before["1/escape_time/c/0/1"])
    store.write_level(2, (0, 0))
    assert files(store.path) == before


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.sampled_from(["gridline", "pixel"]),
    st.sampled_from([1, 1e-5, 1e-12]),
)
def test_the_transformations_of_ome_give_the_coordinates_of_each_level(shape, registration, span):
    view = md.View((-0.75, -0.75 + span), (0.1, 0.1 + span), shape, registration)
    d = Description.of(view, 100, ALL, (512, 512))
    images = ome(d)
    assert images["version"] == "0.5"
    assert [image["name"] for image in images["multiscales"]] == list(ALL)
    for image in images["multiscales"]:
        assert [axis["name"] for axis in image["axes"]] == ["y", "x"]
        assert [part["path"] for part in image["datasets"]] == [f"{k}/{image['name']}" for k in range(len(d.levels))]
        for level, part in zip(d.levels, image["datasets"], strict=True):
            scale, move = part["coordinateTransformations"]
            for n, axis in enumerate(("y", "x")):
                values = d.view.axis(axis, stride=level.stride)
                said = move["translation"][n] + scale["scale"][n] * np.arange(values.size)
                assert scale["scale"][n] > 0
                np.testing.assert_allclose(
                    said, values, rtol=0, atol=1e-3 * span / shape[n] * level.stride + 1e-15 * values.size
                )
                assert values.tobytes() == view.axis(axis)[:: level.stride].tobytes()


# Which, and when


@settings(deadline=None, max_examples=60)
@given(small(), st.data())
def test_a_level_is_made_when_all_it_is_made_of_is_there_and_each_once(d, data):
    """Any shards are there at first; tiles end in any order, and some are given up."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Place(folder), "", d)
        store.place.put("zarr.json", b"{}")  # a folder without one is a store that was removed
        for level in d.levels:
            for tile in tiles_of(level):
                if data.draw(st.booleans()):
                    put(store, level, tile)
        before = [store.done(level.number) for level in d.levels]
        levels = Levels(store)
        missing = {(k, *tile) for k in range(1, len(d.levels)) for tile in np.argwhere(~before[k]).tolist()}
        assert len(levels) == len(missing)
        given_up, made = set(), []
        waiting = [("compute", *tile) for tile in np.argwhere(~before[0]).tolist()]
        waiting += [("make", *tile) for tile in levels.ready()]
        while waiting:
            what, *rest = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            tile = tuple(rest)
            if what == "compute" and data.draw(st.integers(0, 9)) == 0:
                given_up.add((0, *tile))
            elif what == "compute":
                put(store, d.levels[0], tile)
                waiting += [("make", *there) for there in levels.computed(tile)]
            else:
                k, i, j = tile
                assert all(store.done(k - 1)[child] for child in d.children(k, (i, j)))
                put(store, d.levels[k], (i, j))
                made.append(tile)
                waiting += [("make", *there) for there in levels.made(tile)]
        assert len(made) == len(set(made))
        left = waiting_for(d, given_up, missing)
        assert set(made) == missing - left
        assert awaited(levels) == left


def awaited(levels):
    return {(k, *tile) for k, children in enumerate(levels.awaited) for tile in np.argwhere(children >= 0).tolist()}


def put(store, level, tile):
    store.place.put(f"{level.number}/escape_time/c/{tile[0]}/{tile[1]}", b"there")


def waiting_for(d, given_up, missing):
    """The missing tiles of levels that cannot be made without these (level, row, column)."""
    found = set()
    for level in d.levels[1:]:
        k = level.number
        for tile in tiles_of(level):
            if (k, *tile) in missing and any((k - 1, *child) in given_up | found for child in d.children(k, tile)):
                found.add((k, *tile))
    return found


def test_lost_shards_of_fine_levels_are_made_again_one_from_the_other(tmp_path):
    d = described((2100, 4100), (1024, 1024))
    store = open_for_writing(tmp_path / "a.zarr", d)
    field = random_field(d, 3)
    write_all(store, field)
    for k in (1, 2, 3):
        shutil.rmtree(tmp_path / f"a.zarr/{k}/escape_time/c")
    (tmp_path / "a.zarr/0/escape_time/c/1/1").unlink()  # that tile's own task will write its part
    levels = Levels(store)
    assert {tile for tile in awaited(levels) if tile[1:] == (1, 1)} == set()
    assert len(levels) == 14 + 14 + 1
    waiting = deque([*levels.ready()])
    rows, columns = d.levels[0].window((1, 1))
    store.write((1, 1), field[slice(*rows), slice(*columns)])
    waiting += levels.computed((1, 1))
    while waiting:
        tile = waiting.popleft()
        store.write_level(tile[0], tile[1:])
        waiting += levels.made(tile)
    assert not len(levels)
    check_levels(store, field)


# On a cluster


@pytest.fixture
def counted(tmp_path):
    """The run description with a kernel that counts its calls, and the file that it counts in."""
    calls = tmp_path / "calls"
    faults.install("counted", partial(faults.count, path=str(calls)))
    yield UNIT | {"kernel": "counted"}, calls
    faults.remove("counted")


def field_of(config, fields=("escape_time",)):
    """The whole field by the reference kernel, structured."""
    view, max_iter = parse(config).view, config["max_iter"]
    block = KERNELS["numpy"](max_iter, ALL)(view.block((0, view.shape[0]), (0, view.shape[1])))
    return block[list(fields)]


@pytest.mark.parametrize(
    ("view", "tile"),
    [
        ({"shape": [100, 120]}, [25, 40]),
        ({"shape": [97, 51], "registration": "pixel"}, [9, 13]),
        ({"shape": [1, 300]}, [1, 7]),
        ({"shape": [40, 30]}, [64, 64]),
        ({"shape": [1300, 1100]}, [512, 512]),
    ],
    ids=["even", "odd", "one row", "one tile", "fine levels"],
)
def test_a_run_makes_every_level_the_strided_field(client, tmp_path, view, tile):
    config = UNIT | {"view": UNIT["view"] | view, "tile": tile}
    summary = md.run(config, tmp_path / "a.zarr", client=client)
    store = open_store(tmp_path / "a.zarr")
    assert (summary.failed, summary.computed) == (0, store.done().size)
    check_levels(store, field_of(config))
    assert md.status(tmp_path / "a.zarr").state == "finished"


def test_a_run_makes_the_levels_of_every_field(client, tmp_path):
    config = UNIT | {"kernel": "numba", "fields": list(ALL)}
    md.run(config, tmp_path / "a.zarr", client=client)
    store = open_store(tmp_path / "a.zarr")
    whole = np.zeros((100, 120), [(name, FIELDS[name]) for name in ALL])
    for name in ALL:
        whole[name] = store.window(slice(None), slice(None), 0, name)
    assert np.array_equal(whole["escape_time"], field_of(config)["escape_time"])
    for name in ALL[1:]:
        assert np.array_equal(np.isnan(whole[name]), whole["escape_time"] == 50)
    check_levels(store, whole)


@pytest.mark.parametrize("tile", [[25, 40], [512, 512]], ids=["coarse", "fine"])
def test_lost_levels_are_made_again_without_a_call_of_the_kernel(client, tmp_path, counted, tile):
    config, calls = counted
    if tile[0] == 512:
        config = config | {"view": config["view"] | {"shape": [1100, 700]}, "tile": tile}
    path = tmp_path / "a.zarr"
    md.run(config, path, client=client)
    whole, computed = files(path), faults.counted(calls)
    store = open_store(path)
    last = len(store.description.levels) - 1
    losses = [[f"{k}/escape_time/c/0/0"] for k in range(1, last + 1)]
    losses += [[f"{k}/escape_time/c" for k in range(1, last + 1)], ["1/escape_time/c/0/0", f"{last}/escape_time/c/0/0"]]
    for lost in losses:
        for name in lost:
            shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink()
        status = md.status(path)
        assert (status.state, status.done, status.exit_code) == ("incomplete", status.tiles, 4)
        events = []
        summary = md.resume(path, kernel="counted", client=client, tell=events.append)
        (plan,) = (e for e in events if isinstance(e, md.Plan))
        assert (plan.pending, plan.levels) == (0, status.levels)
        assert (summary.computed, summary.failed, summary.levels) == (0, 0, plan.levels)
        assert [e.levels for e in events if isinstance(e, Progress)][-1] == 0
        assert files(path) == whole
        assert md.status(path).state == "finished"
    assert faults.counted(calls) == computed


def test_a_lost_tile_and_lost_levels_cost_one_computation(client, tmp_path, counted):
    config, calls = counted
    path = tmp_path / "a.zarr"
    md.run(config, path, client=client)
    whole, computed = files(path), faults.counted(calls)
    (path / "0/escape_time/c/1/1").unlink()
    shutil.rmtree(path / "1/escape_time/c")
    shutil.rmtree(path / "2/escape_time/c")
    assert md.resume(path, kernel="counted", client=client).computed == 1
    assert files(path) == whole
    assert len(faults.counted(calls)) == len(computed) + 1


def test_a_tile_that_fails_leaves_what_is_made_of_it_missing_and_no_more(client, tmp_path):
    faults.install("faulty", faults.fail_at_corner)
    path = tmp_path / "a.zarr"
    try:
        summary = md.run(UNIT | {"kernel": "faulty"}, path, client=client)
    finally:
        faults.remove("faulty")
    assert summary.failed == 1
    store = open_store(path)
    d = store.description
    missing = {(level.number, *tile) for level in d.levels for tile in np.argwhere(~store.done(level.number)).tolist()}
    assert missing == {(k, 0, 0) for k in range(len(d.levels))}
    status = md.status(path)
    assert (status.state, status.exit_code, status.done, status.tiles, status.levels) == ("incomplete", 4, 11, 12, None)
    assert md.resume(path, kernel="numpy", client=client).computed == 1
    check_levels(open_store(path), field_of(UNIT))
    assert md.status(path).state == "finished"


def test_a_level_that_cannot_be_written_is_named_and_made_by_the_next_run(client, tmp_path):
    path = tmp_path / "a.zarr"
    open_for_writing(path, Description.of(parse(UNIT).view, 50, ("escape_time",), (25, 40)))
    (path / "1/escape_time/c/0/0/in the way").mkdir(parents=True)
    summary = md.run(UNIT, path, client=client)
    assert (summary.computed, summary.failed, list(summary.errors)) == (12, 1, ["level 1: 0,0"])
    assert "IsADirectoryError" in summary.errors["level 1: 0,0"]
    status = md.status(path)
    assert (status.state, status.done, status.levels, list(status.errors)) == ("incomplete", 12, 2, ["level 1: 0,0"])
    said = subprocess.run(
        [sys.executable, "-m", "mandeldask", "status", path], capture_output=True, text=True, check=False
    ).stdout
    assert "incomplete: 12/12 tiles, 2 pyramid tiles to build, 1 failed" in said
    shutil.rmtree(path / "1/escape_time/c/0/0")
    summary = md.resume(path, client=client)
    assert (summary.computed, summary.failed) == (0, 0)
    check_levels(open_store(path), field_of(UNIT))
    assert md.status(path).errors == {}


def test_a_damaged_shard_is_named_by_the_level_that_needs_it(client, tmp_path):
    path = tmp_path / "a.zarr"
    md.run(UNIT, path, client=client)
    shard = path / "0/escape_time/c/1/1"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    (path / "1/escape_time/c/0/0").unlink()
    summary = md.resume(path, client=client)
    assert (summary.computed, summary.failed) == (0, 1)
    assert "shard 0/escape_time/c/1/1 has a wrong checksum" in summary.errors["level 1: 0,0"]
    shard.unlink()
    assert md.resume(path, client=client).computed == 1
    assert shard.read_bytes() == whole
    check_levels(open_store(path), field_of(UNIT))
