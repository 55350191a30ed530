"""A field with more iterations from one with fewer: to the bit what a run would give, and little is computed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import faults
import numpy as np
import pytest

import mandeldask as md
from mandeldask.job import Notice
from mandeldask.store import open_store
from mandeldask.tile import read_block

ROOT = Path(__file__).parent.parent
CONFIG = {
    "view": {"centre": ["-0.745", "0.113"], "span": "0.02", "shape": [120, 150]},
    "max_iter": 150,
    "tile": [40, 50],
    "kernel": "numpy",
}
FIELDS = ["escape_time", "smooth", "distance", "interior"]
DEEPER = 400
LOOK = {"light": (315.0, 45.0), "colormap": "magma"}


@pytest.fixture(scope="module")
def old(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("old") / "a.zarr"
    md.run(CONFIG | {"fields": FIELDS, "picture": LOOK}, path, client=client)
    return path


@pytest.fixture(scope="module")
def fresh(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("fresh") / "a.zarr"
    md.run(CONFIG | {"fields": FIELDS, "max_iter": DEEPER}, path, client=client)
    return path


@pytest.fixture
def path(old, tmp_path):
    return Path(shutil.copytree(old, tmp_path / "a.zarr"))


def shards(path):
    """Every shard of every level and field, byte for byte."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.glob("[0-9]*/*/c/*/*")}


def line_of_size(c, path):
    fd = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(fd, f"{c.size}\n".encode())
    os.close(fd)


def test_it_equals_a_fresh_run_to_the_bit_in_every_field_and_level(client, path, fresh, tmp_path):
    told = []
    summary = md.deepen(path, DEEPER, tmp_path / "b.zarr", kernel="numpy", client=client, tell=told.append)
    assert (summary.computed, summary.failed) == (9, 0)
    assert shards(tmp_path / "b.zarr") == shards(fresh)
    wanted = open_store(fresh).read_tiles()
    for name, column in open_store(tmp_path / "b.zarr").read_tiles().items():
        assert name == "seconds" or np.array_equal(column, wanted[name])

    for store in (path, tmp_path / "b.zarr"):
        options = md.picture(store, scale="log").options
        assert (options.light, options.colormap, options.scale) == (LOOK["light"], LOOK["colormap"], "log")
    assert any(
        isinstance(event, Notice) and "only the samples that did not escape within 150 iterations" in event.text
        for event in told
    )
    assert md.verify(tmp_path / "b.zarr", recompute=2).exit_code == 0
    given = json.loads((path / "zarr.json").read_text())["attributes"]["mandeldask"]["given"]
    assert json.loads((tmp_path / "b.zarr/zarr.json").read_text())["attributes"]["mandeldask"]["given"] == given


def test_the_kernel_sees_the_samples_at_the_old_cap_and_no_other(client, tmp_path):
    md.run(CONFIG, tmp_path / "a.zarr", client=client)
    at_cap = np.count_nonzero(open_store(tmp_path / "a.zarr").escape_time[:] == 150)
    faults.install("sizes", partial(line_of_size, path=str(tmp_path / "sizes")))
    try:
        summary = md.deepen(tmp_path / "a.zarr", DEEPER, tmp_path / "b.zarr", kernel="sizes", client=client)
    finally:
        faults.remove("sizes")
    assert 0 < at_cap < 120 * 150
    assert sum(map(int, faults.counted(tmp_path / "sizes"))) == at_cap
    deeper = open_store(tmp_path / "b.zarr").escape_time[:]
    assert (summary.iterations, summary.total_iterations) == (deeper[deeper >= 150].sum(), deeper.sum())


def test_samples_that_are_proved_to_stay_are_not_computed_again(client, tmp_path):
    config = {"view": {"x": [-0.5, 0.5], "y": [0, 1], "shape": [40, 40]}, "max_iter": 100, "kernel": "numba"}
    md.run(config | {"fields": ["escape_time", "interior"]}, tmp_path / "a.zarr", client=client)
    old = open_store(tmp_path / "a.zarr")
    interior = old.window(slice(None), slice(None), 0, "interior")
    known = read_block(old, DEEPER, (0, 0))
    assert np.unique(interior).tolist() == [0, 1, 2]
    assert np.array_equal(known["escape_time"] == 0, interior == 1)
    md.deepen(tmp_path / "a.zarr", DEEPER, tmp_path / "b.zarr", client=client)
    deeper = open_store(tmp_path / "b.zarr")
    assert (deeper.escape_time[:][interior == 2] == DEEPER).all()
    assert (deeper.window(slice(None), slice(None), 0, "interior")[interior == 2] == 2).all()
    assert md.verify(tmp_path / "b.zarr").exit_code == 0


def test_what_is_missing_or_damaged_in_the_old_store_is_computed_whole(client, path, fresh, tmp_path):
    (path / "0/escape_time/c/0/1").unlink()
    (path / "0/smooth/c/1/1").write_bytes(b"no shard")
    md.deepen(path, DEEPER, tmp_path / "b.zarr", kernel="numpy", client=client)
    assert shards(tmp_path / "b.zarr") == shards(fresh)


@pytest.mark.parametrize("how", ["resume", "deepen again", "resume without the old store"])
def test_what_was_begun_is_finished(client, path, fresh, tmp_path, how):
    md.deepen(path, DEEPER, tmp_path / "b.zarr", kernel="numpy", client=client)
    for key in ("0/escape_time/c/0/0", "0/distance/c/2/2", "1/escape_time/c/0/0"):
        (tmp_path / "b.zarr" / key).unlink()
    if how == "deepen again":
        summary = md.deepen(path, DEEPER, tmp_path / "b.zarr", kernel="numpy", client=client)
    else:
        if how != "resume":
            shutil.rmtree(path)
        summary = md.resume(tmp_path / "b.zarr", kernel="numpy", client=client)
    assert summary.computed == 2
    assert shards(tmp_path / "b.zarr") == shards(fresh)


@pytest.mark.parametrize("max_iter", [150, 149, 1, 0, -5, 2**31, True, "400"])
def test_iterations_that_are_not_more_are_refused_and_nothing_is_made(path, tmp_path, max_iter):
    with pytest.raises(md.ConfigError, match="max_iter must be more than the 150"):
        md.deepen(path, max_iter, tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()


def test_another_field_there_is_left_alone(client, path, tmp_path):
    for out in (path, fresh_of_other(client, tmp_path)):
        before = shards(out)
        with pytest.raises(md.StoreError, match="holds another field: max_iter is"):
            md.deepen(path, DEEPER, out, client=client)
        assert shards(out) == before


def fresh_of_other(client, folder):
    md.run(CONFIG | {"fields": FIELDS, "max_iter": 7}, folder / "other.zarr", client=client)
    return folder / "other.zarr"


def test_a_note_that_names_another_field_is_not_followed(client, path, fresh, tmp_path):
    """A store from elsewhere cannot have this machine's files taken for its own."""
    other = tmp_path / "c.zarr"
    md.run(CONFIG | {"fields": FIELDS, "view": CONFIG["view"] | {"span": "0.03"}}, other, client=client)
    md.deepen(path, DEEPER, tmp_path / "b.zarr", kernel="numpy", client=client)
    store = open_store(tmp_path / "b.zarr")
    for note in (
        {"path": str(other), "identity": open_store(other).identity},
        {"path": str(path), "identity": "of another"},
        {"path": "s3://bucket/a.zarr", "identity": "any"},
        {"path": 5},
        "a.zarr",
        ["a.zarr"],
    ):
        store.write_notes(deepens=note)
        (tmp_path / "b.zarr/0/escape_time/c/0/0").unlink()
        md.resume(tmp_path / "b.zarr", kernel="numpy", client=client)
        assert shards(tmp_path / "b.zarr") == shards(fresh)


def test_a_source_that_another_field_replaced_meanwhile_is_not_copied(client, path, tmp_path):
    """Its tiles have the same shape and names, but are of another place."""
    md.deepen(path, DEEPER, tmp_path / "b.zarr", kernel="numpy", client=client)
    source = open_store(path)
    assert read_block(source, DEEPER, (0, 0))["escape_time"].any()
    view = CONFIG["view"] | {"centre": ["-0.5", "0"]}
    md.run(CONFIG | {"fields": FIELDS, "view": view}, path, overwrite=True, client=client)
    assert source.read_shard((0, 0)) is not None
    assert not read_block(source, DEEPER, (0, 0))["escape_time"].any()


def test_the_command(old, fresh, tmp_path):
    def call(*words):
        command = [sys.executable, "-m", "mandeldask", *map(str, words)]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False)

    how = ["--kernel", "numpy", "--workers", "1", "--no-image"]
    done = call("deepen", old, "--max-iter", DEEPER, "--out", "b.zarr", *how)
    assert done.returncode == 0, done.stderr
    assert "deepens    " in done.stderr and "did not escape within 150 iterations" in done.stderr
    assert shards(tmp_path / "b.zarr") == shards(fresh)
    done = call("deepen", old, "--max-iter", "100", "--out", "c.zarr", *how)
    assert done.returncode == 2
    assert done.stderr.startswith("mandeldask: max_iter must be more than the 150 that")
    assert not (tmp_path / "c.zarr").exists()
