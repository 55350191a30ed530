from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import distributed
import faults
import numpy as np
import psutil
import pytest
from dask.utils import key_split
from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin
from packaging.version import Version
from services import poll

import mandeldask as md
from mandeldask import cluster as clusters
from mandeldask.config import LocalCluster, parse
from mandeldask.dashboard import problem_with
from mandeldask.errors import JobCancelledError
from mandeldask.field import Timed
from mandeldask.job import Progress, Started, TileDone, TileFailed, driver, ignore
from mandeldask.job import lease as leases
from mandeldask.job.dispatcher import MAX_ATTEMPTS, Dispatcher
from mandeldask.job.graph import written_tiles
from mandeldask.job.ledger import Ledger
from mandeldask.job.plan import make_plan
from mandeldask.kernels import KERNELS
from mandeldask.store import Description, Place, open_for_writing, open_store

UNIT = {"view": {"x": [0, 1], "y": [0, 1], "shape": [100, 120]}, "max_iter": 50, "tile": [25, 40], "kernel": "numpy"}
TILES = 12


@pytest.fixture
def kernel(request):
    """Install `before` as the kernel "faulty" of this process, for one test."""

    def install(before):
        faults.install("faulty", before)
        request.addfinalizer(lambda: faults.remove("faulty"))
        return UNIT | {"kernel": "faulty"}

    return install


@pytest.fixture(scope="module")
def expected():
    view = parse(UNIT).view
    return KERNELS["numpy"](50)(view.block((0, 100), (0, 120)))


def test_a_run_stores_the_field_and_sums_it_up(client, tmp_path, expected):
    events = []
    summary = md.run(UNIT, tmp_path / "a.zarr", client=client, tell=events.append)
    store = open_store(tmp_path / "a.zarr")
    assert np.array_equal(store.escape_time[:], expected)
    assert (summary.tiles, summary.computed, summary.failed) == (TILES, TILES, 0)
    assert summary.iterations == summary.total_iterations == expected.sum()
    assert summary.not_escaped == np.count_nonzero(expected == 50)
    weights = np.outer(*(np.pad(np.ones(n - 2), 1, constant_values=0.5) for n in expected.shape))
    assert (expected[0] == 50).any() and expected[0, 0] == 50
    assert summary.area == pytest.approx((weights * (expected == 50)).sum() / (99 * 119))
    assert 0 < summary.efficiency <= 1
    names = [type(e).__name__ for e in events]
    progress = [e for e in events if isinstance(e, Progress)]
    assert (progress[-1].done, progress[-1].pending, progress[-1].workers) == (TILES, TILES, 2)
    assert [name for name in names if name != "Progress"] == [
        "Preparing",
        "Plan",
        "Started",
        *["TileDone"] * TILES,
        "Summary",
    ]
    (link,) = [e.dashboard for e in events if isinstance(e, Started)]
    assert link.endswith("/mandeldask")
    assert not problem_with(link), "the page is there, on a cluster of the caller's own"
    records = [e.record for e in events if isinstance(e, TileDone)]
    assert sorted(r.tile for r in records) == [(i, j) for i in range(4) for j in range(3)]
    for r in records:
        block = store.read(r.tile)
        assert (r.iterations, r.minimum, r.maximum) == (block.sum(), block.min(), block.max())
        assert r.started <= r.finished
        assert r.worker.startswith("tcp://127.0.0.1:")
    tiles = store.read_tiles()
    assert tiles["iterations"].sum() == expected.sum()
    assert (tiles["attempts"] == 1).all()
    assert "lease" not in store.read_notes()


@pytest.mark.parametrize("registration", ["gridline", "pixel"])
def test_the_area_of_a_window_within_the_set_is_that_of_the_window(client, tmp_path, registration):
    view = {"x": [-0.1, 0.1], "y": [-0.1, 0.1], "shape": [3, 3], "registration": registration}
    summary = md.run({"view": view, "max_iter": 50, "tile": [2, 2]}, tmp_path / "a.zarr", client=client)
    assert (summary.not_escaped, summary.area) == (9, pytest.approx(0.04))


def test_a_run_whose_border_takes_long_to_read_says_so(client, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(driver, "SILENT_SECONDS", 0.01)
    monkeypatch.setattr(Ledger, "area", lambda *_: poll(lambda: any("reading tiles" in text for text in told)))
    md.run(UNIT, tmp_path / "a.zarr", client=client, tell=lambda event: told.append(getattr(event, "text", "")))
    assert "reading tiles" in told[-2]  # before the summary


def test_other_fields_are_stored_beside_an_unchanged_count(client, tmp_path, expected):
    """One task a tile, one array a field: numbers where the sample escapes, NaN or a flag where it does not."""
    fields = ["escape_time", "smooth", "distance", "interior"]
    summary = md.run(UNIT | {"fields": fields, "kernel": "auto"}, tmp_path / "a.zarr", client=client)
    assert summary.iterations == expected.sum()
    level = md.open(tmp_path / "a.zarr")
    block = KERNELS["numpy"](50, tuple(fields))(parse(UNIT).view.block((0, 100), (0, 120)))
    assert np.array_equal(level.escape_time, expected)
    assert np.array_equal(level["interior"] > 0, expected == 50)
    for name, dtype in (("smooth", np.float64), ("distance", np.float32)):
        assert level[name].dtype == dtype
        assert np.array_equal(np.isnan(level[name]), expected == 50)
        np.testing.assert_allclose(level[name].values[expected < 50], block[name][expected < 50], rtol=3e-7, atol=4e-6)
    (tmp_path / "a.zarr/0/escape_time/c/1/1").unlink()  # an interruption between a tile's fields
    assert md.resume(tmp_path / "a.zarr", client=client).computed == 1
    with pytest.raises(md.StoreError, match="fields is"):
        md.run(UNIT, tmp_path / "a.zarr", client=client)


@pytest.mark.parametrize(("workers", "cpu"), [(1, None), (3, None), (2, "generic")])
def test_any_workers_tiles_and_cpu_give_the_same_checksum(tmp_path, expected, monkeypatch, workers, cpu):
    if cpu:
        monkeypatch.setenv("NUMBA_CPU_NAME", cpu)  # the workers compile for it
    digest = hashlib.sha256(expected.astype("<i4").tobytes()).hexdigest()
    with clusters.connect(LocalCluster(workers=workers)) as client:
        for n, tile in enumerate(([100, 120], [15, 24])):  # 1 x 1 and 7 x 5 tiles
            md.run(UNIT | {"tile": tile, "kernel": "numba"}, tmp_path / f"{n}.zarr", client=client)
            assert open_store(tmp_path / f"{n}.zarr").checksum() == digest


class SeeTasks(SchedulerPlugin):
    """What reaches the scheduler: for each key the Dask layers that are fused in its task."""

    name = "see-tasks"

    def __init__(self):
        self.layers = {}

    async def start(self, scheduler):
        self.scheduler = scheduler

    def transition(self, key, start, finish, *args, **kwargs):
        if key not in self.layers:
            subgraph = [part for part in self.scheduler.tasks[key].run_spec.args if isinstance(part, dict)]
            self.layers[key] = {re.split("-[0-9a-f]{24,}", str(name))[0] for steps in subgraph for name in steps}


def test_the_scheduler_gets_the_fused_dask_arrays_one_task_a_tile(client, tmp_path):
    """Grid, kernel and write in each; beside them one task for each tile of the levels, and no other."""
    client.register_plugin(SeeTasks())
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    tasks = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["see-tasks"].layers)
    client.unregister_scheduler_plugin("see-tasks")
    tiles = {key[1:]: layers for key, layers in tasks.items() if key[0].startswith("escape-time-tile-")}
    assert sorted(tiles) == [(i, j) for i in range(4) for j in range(3)]
    assert all(layers == {"complex-grid", "escape-time", "escape-time-tile"} for layers in tiles.values())
    of_levels = sum(math.prod(level.tiles) for level in open_store(tmp_path / "a.zarr").description.levels[1:])
    others = [key for key in tasks if key[1:] not in tiles]
    assert len(others) == len(tasks) - TILES == of_levels
    (name,) = {key[0] for key in others}  # of each name the scheduler keeps a group of tasks until it ends
    assert name.startswith("escape-time-level-")


def test_the_public_arrays_and_a_run_give_the_same_bits_by_the_same_kernel(client, tmp_path, monkeypatch):
    """The block function that a run hands to Dask is the one that `escape_time` hands to it."""
    made = []

    def make(*arguments):
        made.append((arguments, KERNELS["numpy"](*arguments)))
        return made[-1][1]

    monkeypatch.setitem(KERNELS, "seen", make)
    grid = md.complex_grid(parse(UNIT).view, chunks=(25, 40))
    field = md.escape_time(grid, 50, "seen")
    block_function = made[-1][1]
    md.run(UNIT | {"kernel": "seen"}, tmp_path / "a.zarr", client=client)
    assert open_store(tmp_path / "a.zarr").escape_time[:].tobytes() == field.compute(scheduler="sync").tobytes()
    assert all(function == block_function and function is not block_function for _, function in made[1:])
    written = written_tiles(open_store(tmp_path / "a.zarr"), "seen", "a-name")
    assert [type(layer.task).__name__ for layer in written.dask.layers.values()] == ["Task"] * 3
    of_the_run, of_the_public = (
        next(layer for name, layer in array.dask.layers.items() if name.startswith("escape-time-"))
        for array in (written, field)
    )
    assert of_the_run.task.func == of_the_public.task.func == Timed(block_function, "seen")


def test_a_client_that_is_not_the_default_will_do(client, tmp_path):
    with Client(client.scheduler.address, set_as_default=False) as other:
        assert md.run(UNIT, tmp_path / "a.zarr", client=other).computed == TILES


def test_overrides_change_a_mapping_and_a_config_too(client, tmp_path):
    for n, config in enumerate((UNIT, parse(UNIT))):
        md.run(config, tmp_path / f"{n}.zarr", overrides=["max_iter=7"], client=client)
        assert open_store(tmp_path / f"{n}.zarr").description.max_iter == 7


def test_an_emptied_shard_of_any_field_is_computed_again(client, tmp_path):
    config = UNIT | {"fields": ["escape_time", "smooth"]}
    md.run(config, tmp_path / "a.zarr", client=client)
    smooth = md.open(tmp_path / "a.zarr").smooth.values
    (tmp_path / "a.zarr/0/smooth/c/1/1").write_bytes(b"")  # as a power cut may leave it
    (tmp_path / "a.zarr/0/escape_time/c/0/1").write_bytes(b"")
    assert md.resume(tmp_path / "a.zarr", client=client).computed == 2
    assert np.array_equal(md.open(tmp_path / "a.zarr").smooth, smooth, equal_nan=True)


def test_a_driver_whose_store_was_replaced_writes_nothing_into_the_new_one(client, tmp_path):
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    old = Ledger(open_store(tmp_path / "a.zarr"))
    with leases.held(old.store), old.flushed():
        other = Description.of(parse(UNIT).view, 51, ("escape_time",), (25, 40))
        new = open_for_writing(tmp_path / "a.zarr", other, overwrite=True)
        new.write_notes(lease={"host": "elsewhere", "heartbeat": 4e9})
        old.fail((0, 0), "of the old field")
    assert new.read_notes() == {"lease": {"host": "elsewhere", "heartbeat": 4e9}}
    assert (new.read_tiles()["attempts"] == 0).all()


def test_what_a_kill_between_two_arrays_leaves_is_told_and_mended(client, tmp_path):
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    for part in ("tiles", "0"):
        shutil.rmtree(tmp_path / "a.zarr" / part)
    with pytest.raises(md.StoreError, match="mandeldask resume"):
        md.open(tmp_path / "a.zarr")
    assert md.resume(tmp_path / "a.zarr", client=client).computed == TILES
    assert md.run(UNIT, tmp_path / "a.zarr", client=client, overwrite=True).computed == TILES


@pytest.mark.parametrize("fault", [None, faults.disk_full, faults.fail], ids=["all done", "disk full", "all fail"])
def test_the_scheduler_holds_nothing_after_a_run(client, tmp_path, kernel, fault):
    before = client.run_on_scheduler(_tasks)
    with pytest.raises((md.StoreError, md.ClusterError)) if fault else nullcontext():
        md.run(kernel(fault) if fault else UNIT, tmp_path / "a.zarr", client=client)
    poll(lambda: not client.run_on_scheduler(_tasks) - before, "the release of every task")
    poll(lambda: not client.run_on_scheduler(_keys_remembered), "the release of every key")


def test_the_scheduler_keeps_no_group_of_tasks_for_each_burst_of_levels(client, tmp_path):
    """Each takes 7 KiB until the scheduler ends: `distributed.spans` refers to it."""
    before = client.run_on_scheduler(_groups)
    md.run(UNIT | {"view": UNIT["view"] | {"shape": [160, 160]}, "tile": [10, 10]}, tmp_path / "a.zarr", client=client)
    assert client.run_on_scheduler(_groups) - before <= 2  # of the field, of the levels


def _groups(dask_scheduler):
    return sum(len(span.groups) for span in dask_scheduler.extensions["spans"].spans.values())


def _tasks(dask_scheduler):
    return set(dask_scheduler.tasks)


def _keys_remembered(dask_scheduler):
    return key_split.cache_info().currsize


def test_resume_computes_only_what_is_missing_with_another_kernel(client, tmp_path, expected, kernel):
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    for name in ("0/0", "2/1", "3/2"):
        (tmp_path / "a.zarr/0/escape_time/c" / name).unlink()
    kernel(partial(faults.count, path=str(tmp_path / "calls")))
    summary = md.resume(tmp_path / "a.zarr", kernel="faulty", client=client)
    assert len(faults.counted(tmp_path / "calls")) == summary.computed == 3
    assert summary.total_iterations == expected.sum()
    assert np.array_equal(open_store(tmp_path / "a.zarr").escape_time[:], expected)
    assert md.resume(tmp_path / "a.zarr", client=client).computed == 0


def test_run_on_a_store_of_the_same_field_resumes_it(client, tmp_path):
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    (tmp_path / "a.zarr/0/escape_time/c/1/1").unlink()
    events = []
    assert md.run(UNIT | {"tile": None}, tmp_path / "a.zarr", client=client, tell=events.append).computed == 1
    assert events[1].resumed


def test_a_store_of_another_field_is_left_alone(client, tmp_path):
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    before = open_store(tmp_path / "a.zarr")
    with pytest.raises(md.StoreError, match=r"max_iter is 50 there, 51 here.*--overwrite"):
        md.run(UNIT | {"max_iter": 51}, tmp_path / "a.zarr", client=client)
    assert open_store(tmp_path / "a.zarr") == before
    assert md.run(UNIT | {"max_iter": 51}, tmp_path / "a.zarr", client=client, overwrite=True).computed == TILES
    assert open_store(tmp_path / "a.zarr").description.max_iter == 51


def test_a_tile_that_fails_at_first_is_tried_again(client, tmp_path, expected, kernel):
    config = kernel(partial(faults.fail_first, path=str(tmp_path / "calls"), times=MAX_ATTEMPTS - 1))
    events = []
    summary = md.run(config, tmp_path / "a.zarr", client=client, tell=events.append)
    assert summary.failed == 0
    failures = [e for e in events if isinstance(e, TileFailed)]
    assert [(e.tile, e.attempt, e.final) for e in failures] == [((0, 0), 1, False), ((0, 0), 2, False)]
    store = open_store(tmp_path / "a.zarr")
    assert np.array_equal(store.escape_time[:], expected)
    assert store.read_tiles()["attempts"][0, 0] == MAX_ATTEMPTS
    assert "errors" not in store.read_notes()


def test_a_tile_that_always_fails_is_recorded_and_passed_over(client, tmp_path, expected, kernel):
    config = kernel(partial(faults.fail_first, path=str(tmp_path / "calls"), times=10**9))
    summary = md.run(config, tmp_path / "a.zarr", client=client)
    assert (summary.computed, summary.failed) == (TILES - 1, 1)
    assert len(faults.counted(tmp_path / "calls")) == MAX_ATTEMPTS
    assert summary.errors == {"0,0": "ArithmeticError: the tile at the corner <b>failed</b>"}
    store = open_store(tmp_path / "a.zarr")
    assert store.read_notes()["errors"] == summary.errors
    assert not store.done()[0, 0]
    assert store.done().sum() == TILES - 1
    assert md.resume(tmp_path / "a.zarr", client=client).failed == 0
    assert np.array_equal(store.escape_time[:], expected)
    assert "errors" not in store.read_notes()


def test_a_kernel_that_kills_its_worker_costs_one_tile(tmp_path, kernel):
    config = kernel(faults.crash) | {"cluster": {"kind": "local", "workers": 2}}
    summary = md.run(config, tmp_path / "a.zarr")
    assert set(summary.errors) == {"0,0"}
    assert "worker died" in summary.errors["0,0"]
    assert open_store(tmp_path / "a.zarr").done().sum() == TILES - 1


def test_a_kernel_that_never_works_ends_the_run(client, tmp_path, kernel):
    with pytest.raises(md.ClusterError, match=r"no tile can be computed.*no tile succeeds"):
        md.run(kernel(faults.fail), tmp_path / "a.zarr", client=client)


def test_a_full_disk_ends_the_run_with_the_remedy(client, tmp_path, kernel):
    with pytest.raises(md.StoreError, match=r"No space left on device.*mandeldask resume"):
        md.run(kernel(faults.disk_full), tmp_path / "a.zarr", client=client)
    assert not open_store(tmp_path / "a.zarr").done().any()


def test_a_second_driver_is_refused_while_the_first_lives(client, tmp_path):
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    store = open_store(tmp_path / "a.zarr")
    with leases.held(store):
        for again in (lambda: md.resume(store.path, client=client), lambda: md.run(UNIT, store.path, overwrite=True)):
            with pytest.raises(md.StoreError, match="another run is writing"):
                again()
    assert md.resume(store.path, client=client).computed == 0


@pytest.mark.parametrize(
    "lease",
    [
        {"host": "elsewhere", "pid": 1, "started": 0, "heartbeat": 0},
        {"host": None, "pid": 2**22 + 1, "started": 0, "heartbeat": 4e9},
        {"host": None, "pid": os.getpid(), "started": 0, "heartbeat": 4e9},
        {"host": "elsewhere", "heartbeat": "soon"},
        {"host": None, "pid": 1, "started": 0, "heartbeat": 4e9},
        {"host": "elsewhere", "pid": 1, "started": 0, "heartbeat": 4e9},
    ],
    ids=[
        "silent for long",
        "its process is gone",
        "it is of this process, and over",
        "it is no lease",
        "its process is another now",
        "its clock was years ahead",
    ],
)
def test_a_lease_of_a_dead_driver_is_ignored(client, tmp_path, lease):
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    open_store(tmp_path / "a.zarr").write_notes(lease=lease | {"host": lease["host"] or socket.gethostname()})
    assert md.resume(tmp_path / "a.zarr", client=client).computed == 0


def test_a_driver_whose_clock_is_minutes_ahead_holds_its_store(client, tmp_path):
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    lease = {"host": "elsewhere", "pid": 1, "started": 0, "heartbeat": time.time() + 300}
    open_store(tmp_path / "a.zarr").write_notes(lease=lease)
    with pytest.raises(md.StoreError, match="another run is writing"):
        md.resume(tmp_path / "a.zarr", client=client)


ODD = [5, "x", [1], [], None, True, math.inf, 10**400]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:8])
def test_notes_that_another_program_wrote_harm_no_command(tmp_path, odd):
    store = open_for_writing(tmp_path / "a.zarr", Description.of(parse(UNIT).view, 50, ("escape_time",), (25, 40)))
    file = tmp_path / "a.zarr/tiles/zarr.json"
    group = json.loads(file.read_text())
    lease = {"host": socket.gethostname(), "pid": 1, "started": 0.0, "heartbeat": 0.0}
    for attributes in (
        odd,
        *({name: odd} for name in ("lease", "progress", "errors", "job")),
        *({"lease": lease | {key: odd}} for key in ("host", "pid", "started", "heartbeat")),
        {"lease": {"host": "elsewhere", "heartbeat": time.time()}, "progress": {"workers": odd, "seconds_left": odd}},
    ):
        file.write_text(json.dumps(group | {"attributes": attributes}))
        assert md.status(store.path).tiles == TILES
        if "progress" in (attributes if isinstance(attributes, dict) else {}):
            continue  # another driver's
        with leases.held(store):
            file.write_text(json.dumps(group | {"attributes": attributes}))
        store.write_notes(lease=None)
        assert "lease" not in store.read_notes()


class Away(Place):
    """A folder that takes no notes for now, as a bucket whose server does not answer."""

    answers: ClassVar[bool] = False

    def put_all(self, values):
        values = list(values)
        if "tiles/zarr.json" in dict(values) and not self.answers:
            raise md.StoreError("no answer")
        super().put_all(values)


def test_what_could_not_be_noted_is_noted_the_next_time(tmp_path, monkeypatch):
    d = Description.of(parse(UNIT).view, 50, ("escape_time",), (25, 40))
    store = open_for_writing(tmp_path / "a.zarr", d)
    ledger = Ledger(replace(store, place=Away(store.path)))
    ledger.fail((1, 2), "a crash")
    with pytest.raises(md.StoreError, match="no answer"):
        ledger.flush()
    monkeypatch.setattr(Away, "answers", True)
    ledger.flush()
    assert store.read_notes() == {"errors": {"1,2": "a crash"}}
    assert store.read_tiles()["attempts"][1, 2] == 1


def test_a_heartbeat_that_comes_late_does_not_take_the_lease_again(tmp_path):
    store = open_for_writing(tmp_path / "a.zarr", Description.of(parse(UNIT).view, 50, ("escape_time",), (25, 40)))
    with leases.held(store):
        mine = store.read_notes()["lease"]
        leases._beat(store, mine)
        assert store.read_notes()["lease"]["heartbeat"] > mine["heartbeat"]
    leases._beat(store, mine)
    assert "lease" not in store.read_notes()


def test_a_driver_that_is_cancelled_while_nothing_is_in_flight_says_so(client, tmp_path):
    config = parse(UNIT | {"store": str(tmp_path / "a.zarr")})
    plan = make_plan(config, "numpy", clusters.size_of_client(client))
    dispatcher = Dispatcher(client, plan, Ledger(plan.store), ignore)
    dispatcher.cancel()
    with pytest.raises(JobCancelledError):
        dispatcher.run(~plan.store.done())
    assert not plan.store.done().any()


@pytest.mark.once
@pytest.mark.parametrize("stop", [KeyboardInterrupt, JobCancelledError])
def test_tiles_that_end_while_a_run_is_interrupted_are_recorded(client, kernel, tmp_path, stop):
    begun = tmp_path / "begun"

    def interrupt(event):
        if isinstance(event, TileDone):
            poll(lambda: len(faults.counted(begun)) > 2, "tiles in progress")
            release()
            raise stop

    with faults.held(begun, after=2) as release, pytest.raises(stop):
        md.run(kernel(partial(faults.count, path=begun)), tmp_path / "a.zarr", client=client, tell=interrupt)
    poll(lambda: not any(client.processing().values()), "the end of all tiles")
    store = open_store(tmp_path / "a.zarr")
    assert 2 < store.done().sum() < TILES
    assert np.array_equal(store.done(), store.read_tiles()["minimum"] > 0)


def test_a_tile_that_somebody_takes_out_in_mid_run_is_not_counted_as_done(client, tmp_path):
    def take_out(event):
        if isinstance(event, TileDone) and event.record.tile == (0, 0):
            (tmp_path / "a.zarr/0/escape_time/c/0/0").unlink()

    summary = md.run(UNIT, tmp_path / "a.zarr", client=client, tell=take_out)
    assert summary.done == TILES - 1
    assert summary.exit_code == 4
    assert md.resume(tmp_path / "a.zarr", client=client).exit_code == 0


def test_records_lost_with_their_driver_are_read_from_the_shards(client, tmp_path, expected):
    md.run(UNIT, tmp_path / "a.zarr", client=client)
    store = open_store(tmp_path / "a.zarr")
    store.write_tiles({k: np.zeros_like(v) for k, v in store.read_tiles().items()}, {(0, 0)})
    summary = md.resume(tmp_path / "a.zarr", client=client)
    assert (summary.computed, summary.total_iterations) == (0, expected.sum())


def test_a_block_too_large_for_the_workers_is_refused_with_a_tile_that_fits(tmp_path):
    config = parse(UNIT | {"view": UNIT["view"] | {"shape": [20000, 20000]}, "tile": [20000, 20000]})
    size = clusters.Size(workers=2, threads_per_worker=1, memory_limit=2**30)
    with pytest.raises(md.ClusterError, match=r"tile of 20000 x 20000 needs about .* Use tile: \[4096, 4096\]"):
        make_plan(config.model_copy(update={"store": str(tmp_path / "a.zarr")}), "numpy", size)
    assert not (tmp_path / "a.zarr").exists()


def test_a_tile_is_chosen_for_threads_and_memory(tmp_path):
    big = parse(UNIT | {"view": UNIT["view"] | {"shape": [20000, 20000]}, "tile": None})

    def tile(**size):
        plan = make_plan(
            big.model_copy(update={"store": str(tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr")}),
            "numpy",
            clusters.Size(**({"workers": 2, "threads_per_worker": 1, "memory_limit": 2**32} | size)),
        )
        return plan.store.description.tile

    assert tile() == (2048, 2048)
    assert tile(workers=50) == (1024, 1024)
    assert tile(workers=51) == (512, 512)
    assert tile(memory_limit=400 * 2**20) == (1024, 1024)


def test_changes_in_the_place_of_the_store_are_told_where_they_go():
    with pytest.raises(
        md.ConfigError, match=r"path of a store; got \{'max_iter': 500\}. .* overrides=\['max_iter=500'\]"
    ):
        md.run("lesson", {"max_iter": 500})


@pytest.mark.skipif(
    Version(distributed.__version__) < Version("2026.7.1"), reason="this Dask starts such workers again and again"
)
def test_a_script_without_a_main_guard_is_told_so_at_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import mandeldask as md\nmd.run({UNIT!r}, {str(tmp_path / 'a.zarr')!r})\n")
    env = os.environ | {"PYTHONPATH": str(Path(md.__file__).parent.parent)}
    process = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, check=False, timeout=50)
    assert process.returncode == 1
    assert process.stderr.count("Traceback") == 1
    assert 'needs `if __name__ == "__main__":`' in process.stderr


def test_a_program_from_standard_input_is_told_that_workers_cannot_import_it(tmp_path):
    program = f"import mandeldask as md\nmd.run({UNIT!r}, {str(tmp_path / 'a.zarr')!r})\n"
    env = os.environ | {"PYTHONPATH": str(Path(md.__file__).parent.parent)}
    command = [sys.executable, "-"]
    done = subprocess.run(command, input=program, env=env, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert "save it in a file" in done.stderr


def test_a_driver_that_was_killed_and_not_waited_for_holds_no_store():
    """As in a container without an init, or below a script that does not wait."""
    process = subprocess.Popen(["true"])
    seen = psutil.Process(process.pid)
    lease = {"host": socket.gethostname(), "pid": process.pid, "started": seen.create_time(), "heartbeat": time.time()}
    poll(lambda: seen.status() == psutil.STATUS_ZOMBIE, "its end")
    assert not leases.is_alive(lease)
    process.wait()
