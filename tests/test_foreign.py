"""Stores that were made to harm whoever reads them: each command refuses, or goes round, within bounds of memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mandeldask as md
from mandeldask.store import metadata, open_store
from mandeldask.store.description import FORMAT_VERSION

TESTS = Path(__file__).parent
CONFIG = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [300, 300]}, "max_iter": 60, "tile": [150, 150]}
MIB = 400
GIB = 2**30
READING = ["status", "verify", "verify quick", "image", "checksum", "open", "deepen", "resume"]


@pytest.fixture(scope="module")
def sound(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "a.zarr"
    md.run(CONFIG | {"kernel": "numpy"}, path, client=client)
    return path


@pytest.fixture
def path(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "a.zarr"))


def use(path, *commands):
    """What each command makes of a store; none takes more than 400 MiB, or ends in a traceback."""
    script = [sys.executable, str(TESTS / "foreign.py"), str(path), str(path.parent), *commands]
    env = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    done = subprocess.run(script, env=env, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name, result in found.items():
        assert result["code"] != "traceback", f"{name}: {result['text']}"
        assert result["peak"] < MIB, f"{name}: {result['peak']} MiB"
    return found


def describe(path, **entries):
    """Change the field description as somebody who knows how it is kept."""
    root = json.loads((path / "zarr.json").read_text())
    manifest = root["attributes"]["mandeldask"]
    manifest["field"].update(entries)
    manifest["digest"] = metadata.digest(manifest)
    (path / "zarr.json").write_text(json.dumps(root))


def test_metadata_of_a_gigabyte_where_few_bytes_belong(path):
    for key in ("1/escape_time/zarr.json", "tiles/zarr.json"):
        os.truncate(path / key, GIB)
    found = use(path, *READING)
    assert found["status"]["code"] == 0
    assert found["verify"]["code"] == 6
    for key in ("1/escape_time/zarr.json", "tiles/zarr.json"):
        assert key in found["verify"]["text"]
    assert found["resume"]["code"] == 0, "what cannot be read is made again"
    assert md.verify(path).exit_code == 0


def test_metadata_of_100_mb(path):
    for key in ("0/zarr.json", "0/escape_time/zarr.json"):
        (path / key).write_text(" " * 10**8)
    found = use(path, "status", "verify", "open", "resume")
    assert found["verify"]["code"] == 6
    assert (found["open"]["code"], found["resume"]["code"]) == (3, 0)
    (path / "zarr.json").write_text(" " * 10**8)
    with pytest.raises(md.StoreError, match="is not a store of mandeldask"):
        open_store(path)


@pytest.mark.parametrize("key", ["zarr.json", "0/zarr.json", "1/escape_time/zarr.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000], ids=["lists", "objects"])
def test_metadata_that_is_nested_deep(path, key, text):
    (path / key).write_text(text)
    assert md.verify(path).kinds.keys() <= {"metadata", "description"}
    assert md.verify(path).exit_code == 6
    with pytest.raises(md.StoreError):
        md.open(path, level=int(key.startswith("1/")))


HUGE = {
    "10^36 samples": {"shape": [10**18, 10**18]},
    "a tile a sample": {"shape": [2**31 - 1, 2**31 - 1], "tile": [1, 1]},
    "a tile of everything": {"shape": [2**31 - 1, 2**31 - 1], "tile": [2**31 - 1, 2**31 - 1]},
    "max_iter beyond int32": {"max_iter": 2**40},
    "a newer format": {"format_version": FORMAT_VERSION + 1},
    "bounds that are not finite": {"x": [-2, float("inf")]},
    "no field": {"fields": []},
    "a field with a path for a name": {"fields": ["escape_time", "../../thesis"]},
}


@pytest.mark.parametrize("entries", HUGE.values(), ids=HUGE)
def test_a_description_beyond_all_bounds_is_refused(path, entries):
    describe(path, **entries)
    for use_it in (open_store, md.open, md.status, md.verify, md.resume):
        with pytest.raises(md.StoreError):
            use_it(path)


def test_a_description_of_a_petabyte_in_few_tiles(path):
    """No more samples than can be worked with: nothing is allocated for what is not there."""
    describe(path, shape=[2**31 - 2**20, 2**31 - 2**20], tile=[2**20, 2**20])
    found = use(path, "status", "verify quick", "open", "resume", "deepen")
    assert {name: told["code"] for name, told in found.items()} == dict.fromkeys(found, 3)


def test_four_million_tiles_of_one_sample(path):
    describe(path, shape=[2048, 2048], tile=[1, 1])
    found = use(path, "status", "verify quick", "open")
    assert "/4194304 tiles" in found["status"]["text"]


METADATA = {
    "a codec that runs code": lambda m: m.update(codecs=[{"name": "numcodecs.pickle", "configuration": {}}]),
    "a codec that nobody knows": lambda m: m["codecs"].append({"name": "evil"}),
    "10^36 elements": lambda m: m.update(shape=[10**18, 10**18]),
    "a chunk of a terabyte": lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[2**20, 2**20]),
    "keys that leave the store": lambda m: m["chunk_key_encoding"].update(configuration={"separator": "/../../"}),
    "a number for its codecs": lambda m: m.update(codecs=7),
}


@pytest.mark.parametrize("change", METADATA.values(), ids=METADATA)
def test_metadata_that_is_not_that_of_the_description_is_refused_before_a_byte_is_decoded(path, change):
    for key in ("0/escape_time/zarr.json", "1/escape_time/zarr.json", "tiles/seconds/zarr.json"):
        metadata = json.loads((path / key).read_text())
        change(metadata)
        (path / key).write_text(json.dumps(metadata))
    assert md.verify(path).kinds == {"metadata": 3}
    for read in (md.open, md.resume):
        with pytest.raises(md.StoreError, match=r"escape_time/zarr\.json .*verify"):
            read(path)
    assert open_store(path).escape_time[:].min() > 0, "what decodes by the description alone is not led astray"


def test_links_and_pipes_lead_nowhere(path, tmp_path):
    """A shard that is /dev/zero never ends, a pipe is waited for, a folder may be somebody's home."""
    home = tmp_path / "home"
    shutil.copytree(path / "1/escape_time/c", home)
    (path / "0/escape_time/c/0/0").unlink()
    (path / "0/escape_time/c/0/0").symlink_to("/dev/zero")
    (path / "0/escape_time/c/0/1").unlink()
    os.mkfifo(path / "0/escape_time/c/0/1")
    (path / "0/escape_time/c/1/0").unlink()
    (path / "0/escape_time/c/1/0").symlink_to(home / "0/0")
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    found = use(path, "status", "resume", "verify")
    assert found["verify"]["code"] == 0
    assert md.open(path)["escape_time"].values.min() > 0, "resume put real shards in their place"
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before
    shutil.rmtree(path / "1/escape_time/c")
    (path / "1/escape_time/c").symlink_to(home)
    found = use(path, "verify", "resume", "overwrite")
    assert {found[name]["code"] for name in ("verify", "resume", "overwrite")} == {3}
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("stray", ["thesis.tex", "0/thesis.tex", "0/escape_time/thesis.tex", "2024/thesis.tex"])
def test_overwrite_needs_a_manifest_of_ours_and_nothing_else_in_place(path, client, stray):
    (path / stray).parent.mkdir(exist_ok=True)
    (path / stray).write_text("years of work")
    with pytest.raises(md.StoreError, match=r"also holds .*thesis\.tex: move that away"):
        md.run(CONFIG, path, overwrite=True, client=client)
    (path / "zarr.json").unlink()
    with pytest.raises(md.StoreError, match="something else, not a store of mandeldask"):
        md.run(CONFIG, path, overwrite=True, client=client)
    assert (path / stray).read_text() == "years of work"
