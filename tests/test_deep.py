"""Fields beyond binary64: one reference orbit, the same counts however they are computed, what is proven of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from services import poll

import mandeldask as md
from mandeldask.cli import cli
from mandeldask.config import parse
from mandeldask.errors import ClusterError, ConfigError, JobCancelledError, StoreError
from mandeldask.job import Notice, Orbit, Plan, driver, status
from mandeldask.job.events import ORBIT_BYTES
from mandeldask.job.plan import check_memory, recorded
from mandeldask.kernels import orbit_of_its_own
from mandeldask.kernels.deep.prepared import _cache
from mandeldask.store import open_store, read_reference, stored_reference
from mandeldask.tile import read_block
from mandeldask.view import View

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


def printed(*words):
    return CliRunner().invoke(cli, [*map(str, words)]).output


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


def flip(path, key="reference/z/c/0"):
    data = bytearray((path / key).read_bytes())
    data[len(data) // 2] ^= 1
    (path / key).write_bytes(data)


def note(path, unproven):
    """Note of tiles how many of their counts are not proven."""
    store = open_store(path)
    columns = store.read_tiles()
    for tile, number in unproven.items():
        columns["unproven"][tile] = number
    store.write_tiles(columns, set(unproven))


def forge(path):
    file = path / "reference/zarr.json"
    file.write_text(file.read_text().replace('"bits": 2', '"bits": 3'))


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


@pytest.mark.parametrize("harm", [flip, lambda path: shutil.rmtree(path / "reference")], ids=["flipped", "lost"])
def test_verify_makes_no_reference_and_believes_no_tile_that_it_cannot_judge(whole, client, path, harm):
    level = path / "1/escape_time/c"
    shutil.copy(level / "0/0", level / "1/0")
    _cache.clear()  # of this process, which may hold the orbit
    judged = md.verify(path)
    assert (judged.kinds, judged.missing) == ({"level": 2}, 0)
    harm(path)
    _cache.clear()
    found = md.verify(path)
    assert not _cache
    assert found.kinds["level"] == 2
    doubted = {finding.tile for finding in found.findings if "no reference orbit" in finding.problem}
    assert doubted == {(0, 2, 0), (0, 2, 1)}
    assert md.verify(path, repair=True, client=client).exit_code == 0
    assert checksum(path) == checksum(whole[0])


def test_the_facts_of_an_exact_orbit_are_json(client, tmp_path):
    """That of 0 has no error: its logarithm is no number of JSON."""
    config = {"view": {"centre": ["0", "0"], "span": "3", "shape": [9, 9]}, "arithmetic": "exact", "max_iter": 50}
    md.run(config, tmp_path / "a.zarr", client=client)
    json.loads((tmp_path / "a.zarr/reference/zarr.json").read_text(), parse_constant=pytest.fail)
    assert md.verify(tmp_path / "a.zarr").exit_code == 0


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


def test_a_field_some_of_whose_samples_escape_with_the_last_step_is_sound(tmp_path, client):
    path, fields = tmp_path / "a.zarr", ["escape_time", "smooth", "distance"]
    md.run(CONFIG | {"max_iter": 420, "fields": fields}, path, client=client)
    assert md.verify(path).exit_code == 0


def test_verify_finds_a_wrong_count_by_the_samples_own_orbits(path):
    store = open_store(path)
    assert md.verify(path, recompute=1).exit_code == 0
    tile = store.read((1, 0)).copy()
    tile += 1
    store.write((1, 0), tile)
    found = md.verify(path, recompute=TILES)
    assert found.exit_code == 6
    assert found.kinds["value"] >= 1


def test_verify_compares_a_tile_with_unproven_counts_as_far_as_it_can_tell(path):
    note(path, {(1, 0): 2, (0, 1): -1})
    assert md.verify(path, recompute=TILES).not_comparable == 0  # whatever is equal to a proven count is right
    store = open_store(path)
    for tile in (1, 0), (0, 1):
        store.write(tile, store.read(tile) + np.int32(1))
    text = printed("verify", path, "--quick", "--recompute", TILES)
    assert "6 tiles, each whole" in text and "1 of them not comparable: no more counts differ" in text
    assert re.findall("(0/escape_time/c/./.) has", text) == ["0/escape_time/c/1/0"]


def test_deepen_equals_a_run(whole, client, tmp_path):
    old = md.run(CONFIG | {"max_iter": 420}, tmp_path / "old.zarr", client=client)
    assert 0 < old.not_escaped < old.samples
    md.deepen(tmp_path / "old.zarr", 4000, tmp_path / "new.zarr", client=client)
    assert checksum(tmp_path / "new.zarr") == checksum(whole[0])
    assert md.verify(tmp_path / "new.zarr").exit_code == 0


def test_deepen_computes_a_tile_of_which_a_count_is_not_proven_and_refuses_a_preview(client, path, tmp_path):
    store = open_store(path)
    assert read_block(store, 5000, (1, 1)).any()
    note(path, {(1, 1): 1})
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


HASTY = """
from mandeldask.cli import main
from mandeldask.job import ledger
ledger.FLUSH_SECONDS = 0.05  # so that records are there before the end of a short run
main()
"""


@pytest.mark.once
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_run_that_was_stopped_goes_on_with_its_reference_and_all_counts_are_proven(whole, client, tmp_path, number):
    description, path = tmp_path / "deep.yaml", tmp_path / "b.zarr"
    description.write_text(yaml.safe_dump(CONFIG | {"tile": [4, 4], "cluster": {"workers": 1}}))
    command = [sys.executable, "-c", HASTY, "run", description, "--out", path, "--no-image", "--quiet"]
    process = subprocess.Popen(command, start_new_session=True)
    poll(lambda: (path / "0/escape_time/zarr.json").exists() and recorded(open_store(path)).any())
    os.killpg(process.pid, number)
    assert process.wait() in {-signal.SIGKILL, 130}
    told, store = [], open_store(path)
    before, done = int(recorded(store).sum()), int(store.done().sum())
    assert 0 < before <= done < 192
    assert number == signal.SIGKILL or before == done
    summary = md.resume(path, client=client, tell=told.append)
    assert summary.computed == 192 - before
    assert summary.proofs.unknown == 0
    assert [" made in " in text for text in about(told)] == [False]
    assert checksum(path) == checksum(whole[0])


def test_a_tile_whose_record_was_lost_is_computed_again(client, path):
    note(path, {(1, 1): -1, (2, 0): -1})
    told = []
    assert status(path).state == "incomplete"
    summary = md.resume(path, client=client, tell=told.append)
    plan = next(event for event in told if isinstance(event, Plan))
    assert plan.facts["tiles"].endswith("2 to compute, 2 of them done already, but how they were proven was not noted")
    assert (summary.computed, summary.proofs.unknown) == (2, 0)
    assert "not known of 1 tile: `resume` computes them again" in str(replace(summary.proofs, unknown=1))


@pytest.mark.parametrize("harm", [flip, lambda path, key: (path / key).unlink()], ids=["flipped", "lost"])
def test_counts_are_not_proven_where_the_note_of_it_is_damaged_or_lost(client, path, harm):
    harm(path, "tiles/unproven/c/0/0")
    store = open_store(path)
    assert (store.read_tiles()["unproven"] == -1).all()
    assert not read_block(store, 5000, (1, 1)).any()
    assert (status(path).state, status(path).done) == ("incomplete", 0)
    found = md.verify(path, remove_damaged=True)
    assert (found.exit_code, found.missing, found.without_proof) == (4, TILES, TILES)
    assert "6 of 6 tiles of the field, 6 of them there, but not how" in printed("verify", path)
    summary = md.verify(path, repair=True, client=client)
    assert (summary.computed, summary.missing, summary.exit_code) == (TILES, 0, 0)
    summary = md.resume(path, client=client)
    assert (summary.computed, str(summary.proofs)[:19]) == (0, "no counts unproven;")
    assert (store.read_tiles()["unproven"] == 0).all()


@pytest.mark.parametrize("name", ["minimum", "not_escaped", "second"])
def test_another_damaged_column_costs_no_proof(client, path, name):
    note(path, {(1, 1): 7})
    flip(path, f"tiles/{name}/c/0/0")
    assert md.verify(path, repair=True, client=client).computed == 0
    summary = md.resume(path, client=client)
    assert (summary.computed, summary.proofs.unproven, summary.proofs.unknown) == (0, 7, 0)
    assert summary.proofs.second >= 0


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
    known = [found for worker in client.run(bytes_a_step).values() for found in worker]
    assert known
    assert all(0.8 * ORBIT_BYTES < found <= ORBIT_BYTES for found in known)
    assert Orbit(3, 1_000_000).words == "reference orbit, 3 of at most 1 M steps"


def test_a_long_orbit_tells_how_far_it_is_and_what_would_be_faster_and_can_be_cancelled(whole, monkeypatch):
    monkeypatch.setattr(driver, "ORBIT_SECONDS", 0.0)
    monkeypatch.setattr(driver, "MANY_BITS", 40)
    monkeypatch.setattr(driver.importlib.util, "find_spec", lambda name: None)
    told, plan = [], next(event for event in whole[2] if isinstance(event, Plan))
    look = driver._Look(plan, told.append, lambda: len(told) > 2)
    look(100, 4000)
    look(200, 4000)
    assert [type(event) for event in told] == [Notice, Orbit, Orbit]
    assert "gmpy2" in told[0].text
    with pytest.raises(JobCancelledError):
        look(300, 4000)


def test_the_bits_of_a_strip_follow_its_inner_radius(monkeypatch):
    monkeypatch.setattr(driver.importlib.util, "find_spec", lambda name: None)
    frame, told = View.log_polar((0, 1), ("1e-300", 3), 64).frame, []
    assert -frame.unit < driver.MANY_BITS < -frame.finest
    plan = SimpleNamespace(store=SimpleNamespace(description=SimpleNamespace(frame=frame)))
    driver._Look(plan, told.append, lambda: False)._advise()
    assert "gmpy2" in told[0].text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "numba"}, r"too deep for binary64.* kernel numba .* take kernel: deep, or auto"),
        ({"arithmetic": "binary64"}, "run description: arithmetic must be exact here, for the view is too deep"),
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
