"""Fields beyond binary64: one reference orbit, the same counts however they are computed, what is proven of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from services import poll

import mandeldask as md
from mandeldask.cluster import Size
from mandeldask.config import parse
from mandeldask.errors import ClusterError, ConfigError, JobCancelledError, StoreError
from mandeldask.job import Notice, Orbit, Plan, reference, status
from mandeldask.job.events import ORBIT_BYTES
from mandeldask.job.plan import check_memory, recorded
from mandeldask.kernels import orbit_of_its_own
from mandeldask.store import open_store, read_reference, stored_reference
from mandeldask.tile import read_block

CENTRE = [  # Kalles Fraktaler's benchmark place at 1e14
    "-1.759817130804847813610825010561798238243999999999999999999800",
    "-0.012593310799749865383746631843264858450340000000000000000000",
]
CONFIG = {
    "view": {"centre": CENTRE, "span": "4e-14", "shape": [48, 64]},
    "max_iter": 4000,
    "tile": [16, 32],
    "fields": ["escape_time"],
}
TILES = 6


@pytest.fixture(scope="module")
def whole(client, tmp_path_factory):
    """A finished store, and what was told."""
    told = []
    path = tmp_path_factory.mktemp("deep") / "a.zarr"
    summary = md.run(CONFIG, path, client=client, tell=told.append)
    return path, summary, told


@pytest.fixture
def path(whole, tmp_path):
    return Path(shutil.copytree(whole[0], tmp_path / "a.zarr"))


def checksum(path):
    return open_store(path).checksum()


def about(told, what="reference"):
    return [event.text for event in told if isinstance(event, Notice) and event.about == what]


def lose(path, *tiles):
    for tile in tiles:
        (path / "0/escape_time/c" / tile).unlink()


def test_the_counts_are_the_mathematical_ones_and_the_summary_says_how_they_were_proven(whole):
    path, summary, _ = whole
    store = open_store(path)
    view, counts = store.description.view, store.escape_time[:]
    offsets = view.block((0, 48), (0, 64))
    for i, j in [(0, 0), (20, 30), (47, 63), (24, 32)]:
        assert (counts[i, j], True) == orbit_of_its_own(view, complex(offsets[i, j]), 4000)
    assert len(np.unique(counts)) > 50
    columns = store.read_tiles()
    assert summary.proofs.unproven == summary.proofs.unknown == 0
    assert summary.proofs.second == columns["second"].sum()
    assert summary.unit == view.frame.unit == -45
    assert str(summary.proofs).startswith("no counts unproven; ")
    assert replace(summary, not_escaped=0).set_in_words(" in time") == "every sample escaped in time"
    few = replace(summary, not_escaped=3, area=3.0, unit=-4000)
    assert few.set_in_words() == "0.09766% of the samples did not escape: area 1.72646e-2408"


def test_the_same_checksum_from_another_tiling_and_from_a_graph_without_a_store(whole, client, tmp_path):
    md.run(CONFIG | {"tile": [48, 20]}, tmp_path / "b.zarr", client=client)
    assert checksum(tmp_path / "b.zarr") == checksum(whole[0])
    view = parse(CONFIG).view
    field = md.escape_time(md.complex_grid(view, (48, 64)), 4000, view=view)
    assert np.array_equal(field.compute(scheduler="sync"), open_store(whole[0]).escape_time[:])


def cached(dask_worker):
    from mandeldask.kernels.deep.prepared import _cache

    return list(_cache)


def test_the_reference_is_made_once_and_read_by_the_workers(whole, client, path):
    told, key = whole[2], stored_reference(open_store(whole[0])).key
    assert [" made in " in text for text in about(told)] == [True]
    assert all(key in keys for keys in client.run(cached).values())
    lose(path, "0/0", "2/1")
    told = []
    assert md.resume(path, client=client, tell=told.append).computed == 2
    assert [" made in " in text for text in about(told)] == [False]
    assert checksum(path) == checksum(whole[0])
    # whatever a worker has in its cache is what a store holds: none worked out one of its own
    assert all(len(key) == 64 for keys in client.run(cached).values() for key in keys)


def bytes_a_step(dask_worker):
    from mandeldask.kernels.deep.prepared import _cache

    return [
        (r.reference.z.nbytes + r.reference.low.nbytes + r.table.terms.nbytes + r.table.powers.nbytes + flat.nbytes)
        / r.reference.length
        for r in _cache.values()
        for flat in r.flats.values()
    ]


def flip(path):
    file = path / "reference/z/c/0"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def forge(path):
    file = path / "reference/zarr.json"
    file.write_text(file.read_text().replace('"error": -1', '"error": -2'))


def claim_more(path):
    file = path / "reference/zarr.json"
    file.write_text(file.read_text().replace('"length": ', '"length": 1'))


def of_another(path):
    file = path / "reference/zarr.json"
    file.write_text(file.read_text().replace('"unit": -45', '"unit": -44'))


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (flip, "wrong checksum"),
        (forge, "does not have its digest"),
        (claim_more, "impossible length|digest"),
        (of_another, "is that of another field"),
        (lambda path: (path / "reference/low/c/0").unlink(), "lacks a part"),
    ],
    ids=["flipped", "forged", "long", "foreign", "partial"],
)
def test_a_damaged_or_foreign_reference_is_told_and_made_again(whole, client, path, harm, problem):
    harm(path)
    found = md.verify(path)
    assert (found.exit_code, found.kinds) == (6, {"reference": 1})
    lose(path, "1/1")
    told = []
    assert md.resume(path, client=client, tell=told.append).computed == 1
    (again, made) = about(told)
    assert "made again" in again
    assert " made in " in made
    assert checksum(path) == checksum(whole[0])
    assert md.verify(path).exit_code == 0


def test_a_lost_reference_is_no_fault_and_made_again_when_it_is_needed(whole, client, path):
    shutil.rmtree(path / "reference")
    assert md.verify(path).exit_code == 0
    lose(path, "1/1")
    assert md.resume(path, client=client).computed == 1
    assert read_reference(open_store(path))
    assert checksum(path) == checksum(whole[0])


def test_a_worker_that_finds_it_damaged_ends_the_run_with_the_remedy(path):
    loader = stored_reference(open_store(path))
    flip(path)
    with pytest.raises(StoreError, match=r"reference orbit of .* wrong checksum: `.*resume .*` makes it again"):
        loader()


def test_verify_finds_a_wrong_count_by_the_samples_own_orbits(path):
    store = open_store(path)
    assert md.verify(path, recompute=1).exit_code == 0
    tile = store.read((1, 0)).copy()
    tile += 1
    store.write((1, 0), tile)
    found = md.verify(path, recompute=TILES)
    assert found.exit_code == 6
    assert found.kinds["value"] >= 1


def test_deepen_equals_a_run(whole, client, tmp_path):
    old = md.run(CONFIG | {"max_iter": 420}, tmp_path / "old.zarr", client=client)
    assert 0 < old.not_escaped < old.samples
    md.deepen(tmp_path / "old.zarr", 4000, tmp_path / "new.zarr", client=client)
    assert checksum(tmp_path / "new.zarr") == checksum(whole[0])
    assert md.verify(tmp_path / "new.zarr").exit_code == 0


def test_deepen_computes_a_tile_of_which_a_count_is_not_proven_and_refuses_a_preview(client, path, tmp_path):
    store = open_store(path)
    assert read_block(store, 5000, (1, 1)).any()
    columns = store.read_tiles()
    columns["unproven"][1, 1] = 1
    store.write_tiles(columns, {(1, 1)})
    assert not read_block(store, 5000, (1, 1)).any()
    assert read_block(store, 5000, (0, 1)).any()
    told = []
    preview = md.run(CONFIG | {"proof": "none"}, tmp_path / "b.zarr", client=client, tell=told.append)
    assert (preview.proofs.unproven, preview.proofs.preview) == (preview.samples, True)
    assert next(event for event in told if isinstance(event, Plan)).facts["proof"].startswith("none: this is a preview")
    assert "some counts are wrong" in md.picture(tmp_path / "b.zarr").samples.text
    assert md.verify(tmp_path / "b.zarr").exit_code == 0
    with pytest.raises(ConfigError, match="is a preview, whose counts are not proven"):
        md.verify(tmp_path / "b.zarr", recompute=TILES)
    with pytest.raises(ConfigError, match="has proof: none, so its counts may be wrong"):
        md.deepen(tmp_path / "b.zarr", 5000, tmp_path / "c.zarr", client=client)


def test_a_submitted_job_gives_the_same(whole, client, tmp_path):
    submitted = md.submit(CONFIG, tmp_path / "b.zarr", client=client)
    assert submitted.wait(timeout=120).state == "finished"
    assert checksum(tmp_path / "b.zarr") == checksum(whole[0])
    assert any("steps of" in text for _, text in submitted.logs())


@pytest.mark.once
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_run_that_was_stopped_goes_on_with_its_reference_and_all_counts_are_proven(whole, client, tmp_path, number):
    description, path = tmp_path / "deep.yaml", tmp_path / "b.zarr"
    description.write_text(yaml.safe_dump(CONFIG | {"tile": [4, 4], "cluster": {"workers": 1}}))
    command = [sys.executable, "-m", "mandeldask", "run", description, "--out", path, "--no-image", "--quiet"]
    process = subprocess.Popen(command, start_new_session=True)
    poll(lambda: (path / "0/escape_time/zarr.json").exists() and open_store(path).done().any())
    os.killpg(process.pid, number)
    assert process.wait() in {-signal.SIGKILL, 130}
    told, before = [], int(recorded(open_store(path)).sum())
    summary = md.resume(path, client=client, tell=told.append)
    assert summary.computed == 192 - before < 192 + (number == signal.SIGKILL)
    assert summary.proofs.unknown == 0
    assert [" made in " in text for text in about(told)] == [False]
    assert checksum(path) == checksum(whole[0])


def test_a_tile_whose_record_was_lost_is_computed_again(client, path):
    store = open_store(path)
    columns = store.read_tiles()
    for tile, lost in (((1, 1), {"minimum": 0}), ((2, 0), {"unproven": -1})):
        for name, value in lost.items():
            columns[name][tile] = value
    store.write_tiles(columns, {(1, 1)})
    told = []
    assert status(path).state == "incomplete"
    summary = md.resume(path, client=client, tell=told.append)
    plan = next(event for event in told if isinstance(event, Plan))
    assert plan.facts["tiles"].endswith("2 to compute, 2 of them again: how they were proven is not known")
    assert (summary.computed, summary.proofs.unknown) == (2, 0)
    assert "not known of 1 tile: `resume` computes them again" in str(replace(summary.proofs, unknown=1))


def test_a_store_of_the_other_arithmetic_or_proof_is_another_field(whole, client):
    for change, told in (
        ({"proof": "none"}, "proof is full there, none here"),
        (
            {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [48, 64]}},
            "another view: x .* around .* there, x .* here; ",
        ),
    ):
        with pytest.raises(StoreError, match=f"holds another field: {told}") as error:
            md.run(CONFIG | change, whole[0], client=client)
        assert len(str(error.value).replace(str(whole[0]), "")) < 500


def test_a_shallow_view_in_exact_arithmetic(client, tmp_path):
    config = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [30, 40]}, "max_iter": 100, "arithmetic": "exact"}
    md.run(config | {"fields": ["escape_time", "interior", "distance"]}, tmp_path / "a.zarr", client=client)
    assert md.verify(tmp_path / "a.zarr").exit_code == 0
    interior, times = (md.open(tmp_path / "a.zarr")[name].values for name in ("interior", "escape_time"))
    assert np.array_equal(interior, times == 100)
    md.run(config | {"arithmetic": "binary64"}, tmp_path / "b.zarr", client=client)
    exact, plain = (open_store(tmp_path / name).escape_time[:] for name in ("a.zarr", "b.zarr"))
    assert np.count_nonzero(exact != plain) <= 2
    assert md.open(tmp_path / "a.zarr").attrs["mandeldask"].count('"arithmetic": "exact"') == 1


def test_a_deep_field_has_what_its_picture_takes_unless_its_fields_are_named(whole, client, tmp_path):
    md.run({key: CONFIG[key] for key in CONFIG if key != "fields"}, tmp_path / "a.zarr", client=client)
    assert md.picture(tmp_path / "a.zarr").shade == "smooth"
    assert md.picture(whole[0]).shade == "counts"
    assert checksum(tmp_path / "a.zarr") == checksum(whole[0])


def test_the_coordinates_are_offsets_and_say_so(whole):
    opened = md.open(whole[0])
    assert opened.x.attrs == {"long_name": "Re(c - origin)", "units": "2^-45", "origin": CENTRE[0].rstrip("0")}
    assert opened.x.dtype == np.float64
    assert -1 <= float(opened.x[0]) < 0


def test_an_orbit_that_does_not_fit_beside_a_tile_is_refused_while_it_is_made(whole, tmp_path, client):
    plan = next(event for event in whole[2] if isinstance(event, Plan))
    size = replace(plan.cluster, memory_limit=2**30)
    check_memory(("escape_time",), (256, 256), size, True, 2**28)
    with pytest.raises(
        ClusterError, match=r"and 1.00 GiB for the reference orbit.* fewer workers with more memory each"
    ):
        check_memory(("escape_time",), (256, 256), size, True, 2**30)
    assert isinstance(size, Size)
    known = [found for worker in client.run(bytes_a_step).values() for found in worker]
    assert known
    assert all(0.8 * ORBIT_BYTES < found <= ORBIT_BYTES for found in known)
    assert Orbit(3, 1_000_000).words == "reference orbit, 3 of at most 1 M steps"


def test_a_long_orbit_tells_how_far_it_is_and_what_would_be_faster_and_can_be_cancelled(whole, monkeypatch):
    monkeypatch.setattr(reference, "TELL_SECONDS", 0.0)
    monkeypatch.setattr(reference, "MANY_BITS", 40)
    monkeypatch.setattr(reference.importlib.util, "find_spec", lambda name: None)
    told, plan = [], next(event for event in whole[2] if isinstance(event, Plan))
    look = reference._Look(plan, told.append, lambda: len(told) > 2)
    look(100, 4000)
    look(200, 4000)
    assert [type(event) for event in told] == [Notice, Orbit, Orbit]
    assert "gmpy2" in told[0].text
    with pytest.raises(JobCancelledError):
        look(300, 4000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "numba"}, r"too deep for binary64.* kernel numba .* take kernel: deep, or auto"),
        ({"arithmetic": "binary64"}, "arithmetic must be exact here, for the view is too deep for binary64"),
        ({"arithmetic": "binary64", "kernel": "deep"}, "arithmetic must be exact here, for kernel deep"),
        ({"proof": "some"}, "proof"),
        ({"max_iter": 2**63}, "max_iter must be at most 2147483647"),
        ({"view": CONFIG["view"] | {"span": "0"}}, "span must be positive; got 0"),
        ({"view": CONFIG["view"] | {"span": "1e-20000"}}, "span is out of range"),
        ({"view": CONFIG["view"] | {"span": "1e-80"}}, r"centre\[0\] has 60 decimals, .* at least 81"),
        ({"view": {"x": [0, 1], "y": [0, 1], "shape": [9, 9]}, "proof": "none"}, "proof goes with arithmetic: exact"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as error:
        md.run(CONFIG | change, tmp_path / "a.zarr")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.zarr").exists()
