"""A store that something happened to: verify names it, repair and resume mend it to the same checksum."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import zarr

import mandeldask as md
from mandeldask.check import window_shape
from mandeldask.config import parse
from mandeldask.job import lease
from mandeldask.store import Place, open_store, shard_key

ROOT = Path(__file__).parent.parent
CONFIG = {
    "view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [1100, 1600]},
    "max_iter": 60,
    "tile": [512, 768],  # 3 x 3 tiles of 1 x 2 chunks; of the levels 1 is written with a tile, 2 is made from shards
    "fields": ["escape_time", "smooth"],
    "kernel": "numpy",
}


@pytest.fixture(scope="module")
def sound(client, tmp_path_factory):
    """A whole store, not to be changed."""
    path = tmp_path_factory.mktemp("sound") / "a.zarr"
    md.run(CONFIG, path, client=client)
    return path


@pytest.fixture
def path(sound, tmp_path):
    """A copy of it to be harmed."""
    return Path(shutil.copytree(sound, tmp_path / "a.zarr"))


def numbers(path):
    """All levels of both fields, to the bit."""
    store = open_store(path)
    levels = range(len(store.description.levels))
    return [
        store.window(slice(None), slice(None), level, name).tobytes()
        for level in levels
        for name in ("escape_time", "smooth")
    ]


def flip(file, position=-30):
    data = bytearray(file.read_bytes())
    data[position] ^= 4
    file.write_bytes(data)


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def empty(file):
    file.write_bytes(b"")


def remove(file):
    file.unlink()


def rewrite(path, level, tile, change):
    """Put other numbers into a shard, with right checksums."""
    store = open_store(path)
    samples = store.read(tile, level)
    change(samples)
    rows, columns = store.description.levels[level].window(tile)
    zarr.open_array(path, path=f"{level}/escape_time", mode="r+")[slice(*rows), slice(*columns)] = samples


def edit(file, change):
    metadata = json.loads(file.read_text())
    change(metadata)
    file.write_text(json.dumps(metadata))


def keys(found):
    return {finding.key for finding in found.findings}


def test_a_sound_store_is_found_sound_and_left_as_it_is(sound):
    before = {p: p.read_bytes() for p in sound.rglob("*") if p.is_file()}
    found = md.verify(sound, recompute=3, seed=1)
    assert (found.sound, found.damaged, found.missing, found.missing_levels, found.exit_code) == (True, 0, 0, 0, 0)
    assert found.findings == ()
    shards = len(list(sound.glob("[0-9]*/*/c/*/*")))
    assert (found.shards, found.recomputed, found.seed) == (shards, 3, 1)
    assert md.verify(sound, quick=True).shards == shards
    assert {p: p.read_bytes() for p in sound.rglob("*") if p.is_file()} == before


def test_the_workers_of_a_cluster_find_the_same(path, client):
    flip(path / "0/escape_time/c/1/1")
    cut(path / "2/smooth/c/0/0")
    here, there = md.verify(path, recompute=2, seed=5), md.verify(path, recompute=2, seed=5, client=client)
    assert keys(here) == keys(there) >= {"0/escape_time/c/1/1", "2/smooth/c/0/0"}
    assert (here.shards, here.bytes, here.kinds) == (there.shards, there.bytes, there.kinds)


@pytest.mark.parametrize("harm", [flip, cut, empty])
def test_damaged_shards_are_named_and_mended_to_the_bit(sound, path, client, harm):
    harmed = {"0/escape_time/c/1/2", "0/smooth/c/2/2", "1/escape_time/c/0/0", "2/smooth/c/0/0"}
    for key in harmed:
        harm(path / key)
    for quick in (False, True):
        found = md.verify(path, quick=quick)
        assert (found.exit_code, found.kinds) == (6, {"shard": 4})
        assert keys(found) == harmed
    mended = md.verify(path, quick=True, repair=True, client=client)
    assert (mended.repaired, mended.computed, mended.exit_code) == (True, 2, 0)
    assert numbers(path) == numbers(sound)
    assert md.verify(path).exit_code == 0


def test_damage_is_removed_with_what_was_made_from_it_and_nothing_else(sound, path):
    flip(path / "0/escape_time/c/1/1")
    before = {p.relative_to(path) for p in path.rglob("*") if p.is_file()}
    removed = md.verify(path, remove_damaged=True)
    assert (removed.repaired, removed.computed, removed.missing, removed.exit_code) == (True, 0, 1, 4)
    d = open_store(path).description
    gone = before - {p.relative_to(path) for p in path.rglob("*") if p.is_file()}
    assert {str(p) for p in gone} == {
        shard_key(level, name, (i, j)) for level, i, j in d.made_from((0, 1, 1)) for name in d.fields
    }
    assert not open_store(path).done()[1, 1]
    assert open_store(path).read_tiles()["minimum"][1, 1] == 0


class Watched(Place):
    """A folder that tells what is deleted in it, in order."""

    deleted: ClassVar[list[str]] = []

    def delete(self, key):
        self.deleted.append(key)
        super().delete(key)


def test_a_repair_that_is_interrupted_leaves_no_level_of_a_tile_that_is_gone(path):
    """A level that stayed would not be made again: the tile that it was made from was perhaps wrong in it too."""
    flip(path / "0/escape_time/c/1/1")
    Watched.deleted.clear()
    md.verify(Watched(str(path)), remove_damaged=True)
    levels = [int(key.partition("/")[0]) for key in Watched.deleted]
    assert levels == [2, 2, 1, 1, 0, 0]


def test_a_missing_tile_is_no_damage(path, client, sound):
    remove(path / "0/escape_time/c/1/1")
    remove(path / "2/smooth/c/0/0")
    found = md.verify(path)
    assert (found.damaged, found.missing, found.missing_levels, found.exit_code) == (0, 1, 1, 4)
    md.resume(path, client=client, kernel="numpy")
    assert numbers(path) == numbers(sound)


@pytest.mark.parametrize(
    ("level", "value", "kind"), [(0, 0, "value"), (0, 61, "value"), (0, -5, "value"), (2, 61, "value"), (1, 1, "level")]
)
def test_a_wrong_number_behind_right_checksums_is_found(sound, path, client, level, value, kind):
    tile = (0, 0) if level == 2 else (2, 2)
    rewrite(path, level, tile, lambda samples: samples.__setitem__((3, 4), value))
    found = md.verify(path)
    assert shard_key(level, "escape_time", tile) in keys(found)
    assert found.kinds[kind] >= 1
    assert md.verify(path, quick=True).damaged == 0
    md.verify(path, repair=True, client=client)
    assert numbers(path) == numbers(sound)


def test_a_number_that_only_the_kernel_can_tell_is_found_by_computing_it_again(sound, path, client):
    """It is at an odd row, so no level has it, and swapped within the tile, so the statistics agree too."""

    def swap(samples):  # of samples that escape: smooth says nothing of them
        i = next(i for i in range(1, 500, 2) if samples[i, 1] != samples[i, 3] and 60 not in samples[i, :4])
        samples[i, 1], samples[i, 3] = samples[i, 3], samples[i, 1]

    rewrite(path, 0, (1, 1), swap)
    assert md.verify(path).findings == ()
    found = md.verify(path, recompute=9, seed=0)
    (wrong,) = [finding for finding in found.findings if "reference kernel" in finding.problem]
    assert wrong.key == "0/escape_time/c/1/1"
    assert "it differs in 2 of 393216 samples" in wrong.problem
    assert md.verify(path, recompute=9, repair=True, client=client).computed == 1
    assert numbers(path) == numbers(sound)


def test_a_tile_that_is_too_dear_is_computed_again_in_a_window():
    assert window_shape((2048, 2048), 50) == (2048, 2048)
    for max_iter in (1000, 10**6, 2**31 - 1):
        rows, columns = window_shape((2048, 2048), max_iter)
        assert 1 <= rows <= 2048 and 1 <= columns <= 2048
        assert rows * columns <= max(256, 2**28 // max_iter)
    assert window_shape((1, 10**6), 10**4) == (1, 26843)


def test_tiles_whose_statistics_disagree_are_found_and_computed_again(sound, path, client):
    store = open_store(path)
    columns = store.read_tiles()
    right = {name: columns[name].copy() for name in ("iterations", "minimum", "maximum", "not_escaped")}
    columns["iterations"][2, 1] += 1
    columns["not_escaped"][1, 0] += 1
    store.write_tiles(columns, {(2, 1), (1, 0)})
    found = md.verify(path)
    assert found.kinds == {"statistics": 2}
    assert "of tile 2,1 has iterations" in " ".join(finding.problem for finding in found.findings)
    mended = md.verify(path, repair=True, client=client)
    assert (mended.exit_code, mended.computed) == (0, 2)
    assert numbers(path) == numbers(sound)
    assert all(np.array_equal(open_store(path).read_tiles()[name], right[name]) for name in right)


@pytest.mark.parametrize("name", ["minimum", "not_escaped"])
def test_a_damaged_part_of_the_table_of_tiles_is_found_and_made_again(path, client, name):
    right = open_store(path).read_tiles()[name]
    flip(path / f"tiles/{name}/c/0/0", 5)
    assert keys(md.verify(path)) == {f"tiles/{name}/c/0/0"}
    md.verify(path, quick=True, remove_damaged=True)
    assert not (path / f"tiles/{name}/c/0/0").exists()
    assert md.verify(path).findings == ()  # what is lost is not known, and not wrong
    md.resume(path, client=client)
    assert md.verify(path).exit_code == 0
    assert np.array_equal(open_store(path).read_tiles()[name], right)


def forget_statistics(path):
    """As a killed driver leaves them."""
    for name in ("minimum", "not_escaped"):
        remove(path / f"tiles/{name}/c/0/0")


SLIPS = {  # a shard that is copied over another: from, to; and what else happened
    "of the field": [("0/escape_time/c/0/1", "0/escape_time/c/1/1")],
    "of the field, statistics lost": [("0/escape_time/c/0/1", "0/escape_time/c/1/1"), forget_statistics],
    "of the field, its neighbour cut": [
        ("0/escape_time/c/0/0", "0/escape_time/c/0/1"),
        ("0/smooth/c/0/0", "0/smooth/c/0/1"),
        lambda path: cut(path / "0/escape_time/c/1/0"),
        lambda path: cut(path / "0/smooth/c/1/1"),
        forget_statistics,
    ],
    "of the other field": [("0/smooth/c/0/0", "0/smooth/c/1/0")],
    "of a level": [("1/escape_time/c/0/0", "1/escape_time/c/0/1")],
    "of the coarsest level": [("1/escape_time/c/0/0", "2/escape_time/c/0/0")],
    "of the field and a level": [
        ("0/escape_time/c/0/1", "0/escape_time/c/1/1"),
        ("1/escape_time/c/0/1", "1/escape_time/c/1/1"),
        ("0/smooth/c/0/1", "0/smooth/c/1/1"),
        ("1/smooth/c/0/1", "1/smooth/c/1/1"),
        forget_statistics,
    ],
}


@pytest.mark.parametrize("slips", SLIPS.values(), ids=SLIPS)
def test_a_valid_shard_in_the_wrong_place_is_believed_by_no_repair(sound, path, client, slips):
    """Tiles of the field are computed again where they are wrong, and no others."""
    for slip in slips:
        if callable(slip):
            slip(path)
        else:
            shutil.copy(path / slip[0], path / slip[1])
    field = {key for slip in slips if not callable(slip) and (key := slip[1]).startswith("0/")}
    found = md.verify(path)
    assert found.exit_code == 6
    assert field <= keys(found)
    mended = md.verify(path, repair=True, client=client)
    assert mended.exit_code == 0
    assert mended.computed == len({finding.tile for finding in found.findings if finding.tile and not finding.tile[0]})
    assert bool(mended.computed) == bool(field)
    assert open_store(path).checksum() == open_store(sound).checksum()
    assert numbers(path) == numbers(sound)
    assert md.verify(path).findings == ()


METADATA = {
    "a shape": ("0/escape_time/zarr.json", lambda m: m.update(shape=[1100, 1601])),
    "a codec": ("0/escape_time/zarr.json", lambda m: m["codecs"][0].update(name="pickle")),
    "a data type": ("2/smooth/zarr.json", lambda m: m.update(data_type="float32")),
    "a fill value": ("1/escape_time/zarr.json", lambda m: m.update(fill_value=7)),
    "max_iter": ("0/escape_time/zarr.json", lambda m: m["attributes"].update(max_iter=61)),
    "dimension names": ("0/x/zarr.json", lambda m: m.update(dimension_names=["lon"])),
    "a column of tiles": ("tiles/seconds/zarr.json", lambda m: m.update(data_type="int8")),
    "consolidated metadata of a level": (
        "1/zarr.json",
        lambda m: m["consolidated_metadata"]["metadata"]["x"].update(shape=[10**9]),
    ),
    "consolidated metadata": (
        "zarr.json",
        lambda m: m["consolidated_metadata"]["metadata"]["0/x"].update(shape=[10**9]),
    ),
    "ome": ("zarr.json", lambda m: m["attributes"]["ome"].update(version="0.9")),
    "the iterations of the description": (
        "zarr.json",
        lambda m: m["attributes"]["mandeldask"]["field"].update(max_iter=61),
    ),
    "the bounds of the description": (
        "zarr.json",
        lambda m: m["attributes"]["mandeldask"]["field"].update(x=[-2, 2]),
    ),
    "all attributes": ("zarr.json", lambda m: m.update(attributes={})),
    "the copy of the description": ("0/zarr.json", lambda m: m.update(attributes={})),
}


@pytest.mark.parametrize(("key", "change"), METADATA.values(), ids=METADATA)
def test_edited_metadata_is_named_and_put_right_at_once(sound, path, client, key, change):
    edit(path / key, change)
    found = md.verify(path)
    assert found.exit_code == 6
    assert keys(found) == {key}
    assert keys(md.verify(path, quick=True, client=client)) == {key}
    assert md.verify(path, quick=True, remove_damaged=True).exit_code == 0
    assert md.verify(path).findings == ()
    for file in sound.rglob("zarr.json"):
        if file.parent.name != "tiles":
            assert json.loads((path / file.relative_to(sound)).read_text()) == json.loads(file.read_text())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "[" * 100_000])
@pytest.mark.parametrize("key", ["zarr.json", "0/zarr.json", "0/escape_time/zarr.json", "tiles/zarr.json"])
def test_metadata_that_cannot_be_read_is_put_right(sound, path, key, text):
    (path / key).write_text(text)
    found = md.verify(path)
    assert found.exit_code == 6
    assert keys(found) == {key}
    md.verify(path, remove_damaged=True)
    assert md.verify(path).findings == ()
    assert numbers(path) == numbers(sound)


@pytest.mark.parametrize("key", ["zarr.json", "0/zarr.json", "2/x/zarr.json", "tiles/zarr.json"])
def test_metadata_that_was_removed_is_put_back(sound, path, key):
    (path / key).unlink()
    assert keys(md.verify(path)) == {key}
    md.verify(path, remove_damaged=True)
    assert md.verify(path).findings == ()
    assert numbers(path) == numbers(sound)


def test_an_edited_description_is_believed_by_no_command(path, client):
    """Else a resume would fill the rest of the store with another field."""
    edit(path / "zarr.json", lambda m: m["attributes"]["mandeldask"]["field"].update(max_iter=61))
    for use in (md.open, md.resume, md.status, open_store):
        with pytest.raises(md.StoreError, match=r"was changed since .*verify .* --repair"):
            use(path)


def test_coordinates_that_are_not_those_of_the_view_are_written_again(sound, path):
    store = open_store(path)
    for key in ("0/x/c/0", "2/y/c/0"):
        flip(path / key, 9)
    (path / "1/x/c/0").write_bytes((path / "1/y/c/0").read_bytes())
    (path / "0/y/c/0").unlink()
    found = md.verify(path)
    assert found.kinds == {"coordinates": 4}
    assert keys(found) == {"0/x/c/0", "2/y/c/0", "1/x/c/0", "0/y/c/0"}
    assert md.verify(path, remove_damaged=True).exit_code == 0
    for key in keys(found):
        assert (path / key).read_bytes() == (sound / key).read_bytes()
    assert store.description == open_store(path).description


def test_stray_files_are_named_and_left_alone(path):
    strays = {"notes.txt", "0/escape_time/c/0/readme", "0/escape_time/c/99/0.bak", "mine/thesis.tex", "7x/a"}
    for key in strays:
        (path / key).parent.mkdir(parents=True, exist_ok=True)
        (path / key).write_text("years of work")
    (path / "0/link").symlink_to("/etc/passwd")
    (path / f"0/escape_time/c/0/0.{'0123456789abcdef' * 2}.partial").write_text("half")  # of a writer that was killed
    (path / f"zarr.{'0123456789abcdef' * 2}.partial").write_text("probe")  # and of a worker that was to write
    found = md.verify(path, remove_damaged=True)
    assert keys(found) == strays | {"0/link"}
    assert (found.damaged, found.exit_code) == (0, 0)
    assert all((path / key).read_text() == "years of work" for key in strays)
    with pytest.raises(md.StoreError, match=r"also holds .*move that away"):
        md.run(CONFIG, path, overwrite=True)
    assert all((path / key).read_text() == "years of work" for key in strays)


def test_repair_is_refused_while_a_driver_writes(path):
    flip(path / "0/escape_time/c/1/1")
    damaged = (path / "0/escape_time/c/1/1").read_bytes()
    with lease.held(open_store(path)):
        assert keys(md.verify(path)) == {"0/escape_time/c/1/1"}, "to look is allowed"
        with pytest.raises(md.StoreError, match="another run is writing"):
            md.verify(path, remove_damaged=True)
        edit(path / "zarr.json", lambda m: m["attributes"]["mandeldask"]["field"].update(max_iter=61))
        with pytest.raises(md.StoreError, match="another run is writing"):
            md.verify(path, remove_damaged=True)
        assert (path / "0/escape_time/c/1/1").read_bytes() == damaged
    md.verify(path, remove_damaged=True)
    assert "lease" not in open_store(path).read_notes()


def test_a_store_that_is_none_is_told(tmp_path):
    with pytest.raises(md.StoreError, match="no store at"):
        md.verify(tmp_path / "none.zarr")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/thesis.tex").write_text("years of work")
    with pytest.raises(md.StoreError, match="is not a store of mandeldask"):
        md.verify(tmp_path / "a", remove_damaged=True)
    with pytest.raises(md.ConfigError, match="recompute"):
        md.verify(tmp_path / "a", recompute=-1)


def call(*words, cwd):
    command = [sys.executable, "-m", "mandeldask", *map(str, words)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_the_commands_find_and_mend_all_of_it_at_once(sound, path, tmp_path):
    """A flipped bit, a cut shard, a deleted one, edited metadata: the checksum is that of before."""
    _, checksum, _ = call("checksum", "a.zarr", cwd=path.parent)
    flip(path / "0/escape_time/c/1/2")
    cut(path / "0/smooth/c/2/2")
    remove(path / "0/escape_time/c/0/1")
    edit(path / "0/escape_time/zarr.json", lambda m: m.update(shape=[1, 1]))
    edit(path / "zarr.json", lambda m: m["attributes"]["mandeldask"]["field"].update(max_iter=61))
    code, out, _ = call("verify", "a.zarr", cwd=tmp_path)
    assert code == 6
    for words in (
        "zarr.json has another field description than the store was made with",
        "0/escape_time/c/1/2 has a wrong checksum",
        "0/smooth/c/2/2 has a wrong checksum",
        "0/escape_time/zarr.json has another shape",
        "1 of 9 tiles of the field",
        "mandeldask verify a.zarr --repair",
    ):
        assert words in out
    code, out, _ = call("verify", "a.zarr", "--json", "--quick", cwd=tmp_path)
    found = json.loads(out)
    assert (code, found["exit_code"], found["damaged"], found["missing"], found["sound"]) == (6, 6, 4, 1, False)
    assert {finding["key"] for finding in found["findings"]} == {
        "zarr.json",
        "0/escape_time/zarr.json",
        "0/escape_time/c/1/2",
        "0/smooth/c/2/2",
    }
    code, out, _ = call("verify", "a.zarr", "--remove-damaged", cwd=tmp_path)
    assert code == 4
    assert "mandeldask resume a.zarr" in out
    code, out, err = call("verify", "a.zarr", "--repair", "--workers", "1", cwd=tmp_path)
    assert code == 0
    assert "3 to compute" in err and "nothing is missing or wrong" in out
    code, out, _ = call("verify", "a.zarr", "--recompute", "2", "--seed", "7", cwd=tmp_path)
    assert code == 0
    assert "nothing is missing or wrong" in out and "--seed 7" in out
    assert call("checksum", "a.zarr", cwd=tmp_path)[1] == checksum
    assert numbers(path) == numbers(sound)


def test_bad_words_on_the_command_line(tmp_path):
    assert call("verify", "none.zarr", cwd=tmp_path)[0] == 3
    assert call("verify", "none.zarr", "--recompute", "-1", cwd=tmp_path)[0] == 2
    assert call("verify", "none.zarr", "--workers", "1", "--cluster", "local", cwd=tmp_path)[0] == 2


def test_the_field_description_survives_in_its_copy(sound):
    assert parse(CONFIG).view == open_store(sound).description.view
    assert md.open(sound).attrs.keys() >= {"mandeldask"}
