"""What the scheduler makes of events: in order, late, twice, after a resume, hostile."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from distributed.protocol import dumps, loads
from hypothesis import given
from hypothesis import strategies as st
from services import poll

from mandeldask.cluster import Size
from mandeldask.dashboard import MAX_JOBS, Plugin, hooks
from mandeldask.dashboard.figure import COLOURINGS
from mandeldask.dashboard.page import _parts, _tile_facts
from mandeldask.dashboard.state import DONE, FAILED, RETRY, WAITING, JobState, running_tiles
from mandeldask.image import palette_index
from mandeldask.job import Plan, TileDone, TileFailed
from mandeldask.job.events import Progress
from mandeldask.job.reporter import Reporter
from mandeldask.kernels import KERNELS
from mandeldask.store import Description, Store, open_for_writing, place_of
from mandeldask.telemetry import TOPIC, JobInfo, Preview, job_id, key_name, parse_key, tile_event
from mandeldask.tile import Record, statistics
from mandeldask.view import View

VIEW = View(x=(-2, 1), y=(-1.5, 1.5), shape=(700, 1100))
DESCRIPTION = Description.of(VIEW, 300, ("escape_time",), (130, 170))
ROWS, COLUMNS = DESCRIPTION.tiles
GRID = Preview(DESCRIPTION.shape, DESCRIPTION.tile, 300)
FIELD = KERNELS["numba"](300)(VIEW.block((0, 700), (0, 1100)))
TILES = [(i, j) for i in range(ROWS) for j in range(COLUMNS)]


JOB = job_id("a" * 32, "/tmp/a.zarr")
TASK = key_name(JOB, "run")


def record(tile, worker="tcp://127.0.0.1:1"):
    rows, columns = DESCRIPTION.levels[0].window(tile)
    block = FIELD[slice(*rows), slice(*columns)]
    return Record(tile, 0.25, *statistics(block, 300), worker, 1.0, 2.0, GRID.encode(block, tile))


class Scheduler:
    """Keeps what a client or a worker logs, as it arrives: through Dask's own protocol; and tells its plugins."""

    status = "running"

    def __init__(self):
        self.events = []
        self.plugins = {}

    def log_event(self, topic, event):
        assert topic == TOPIC
        self.events.append(loads(dumps(event)))
        for plugin in self.plugins.values():
            plugin.log_event(topic, self.events[-1])

    def run_on_scheduler(self, function, *arguments):
        return function(*arguments, dask_scheduler=self)


def plan_of(store, done):
    pending = int((~done).sum())
    return Plan(store, "numba", Size(1, 1, 2**30), done.size - pending, pending, 1, bool(done.any()))


def told(happenings, done=None, identity="a" * 32, error=None, name=None):
    """The events of a run in which this happens: records of workers, and events of the driver."""
    done = np.zeros(DESCRIPTION.tiles, bool) if done is None else done
    store = Store(place_of("/tmp/a.zarr"), identity, DESCRIPTION)
    scheduler = Scheduler()
    with suppress(KeyboardInterrupt), Reporter(scheduler, plan_of(store, done), {}, done, name) as reporter:
        for happening in happenings:
            if isinstance(happening, Record):
                scheduler.log_event(TOPIC, tile_event(job_id(identity, store.path), happening))
                happening = TileDone(happening)  # noqa: PLW2901
            reporter(happening)
        if error:
            raise error
    return scheduler.events


def heard(events):
    """The plugin of a scheduler that was told of these events."""
    plugin = Plugin()
    for event in events:
        plugin.log_event(TOPIC, event)
    assert not plugin._warned
    return plugin


def only(plugin):
    (job,) = plugin.jobs.values()
    return job


PROGRESS = Progress(len(TILES), 0, 0, 1e6, 1e8, 0.0, 1)
WHOLE = told([*map(record, TILES), PROGRESS])


def test_a_whole_run_gives_the_preview_of_the_field_and_the_figures_of_its_tiles():
    job = only(heard(WHOLE))
    assert np.array_equal(job.preview, FIELD[:: GRID.stride, :: GRID.stride])
    assert (job.tiles["state"] == DONE).all()
    assert (job.tiles["seconds"] == 0.25).all()
    assert job.tiles["mean"][0, 0] == pytest.approx(FIELD[:130, :170].mean())
    assert job.tiles["mean"][-1, -1] == pytest.approx(FIELD[130 * (ROWS - 1) :, 170 * (COLUMNS - 1) :].mean())
    assert (job.tiles["minimum"][2, 3], list(job.workers)) == (FIELD[260:390, 510:680].min(), ["tcp://127.0.0.1:1"])
    assert (job.progress.iterations_per_second, job.done, job.ended) == (1e8, len(TILES), "done")


@given(st.randoms(use_true_random=False))
def test_events_in_any_order_and_twice_come_to_the_same(chance):
    parts = [*WHOLE, *told([record(t, "tcp://127.0.0.1:2") for t in TILES[:5]]), *WHOLE]
    chance.shuffle(parts)
    job = only(heard([WHOLE[0], *parts]))
    assert np.array_equal(job.preview, FIELD[:: GRID.stride, :: GRID.stride])
    assert job.done == len(TILES)


def test_a_job_whose_first_events_were_lost_is_known_from_the_later_ones():
    assert only(heard(WHOLE[-1:])).ended == "done"
    assert heard(WHOLE[1:-1]).jobs == {}, "no driver told of it"


def stored(path):
    """A store of all tiles, and its table with the figures of the mean alone; one of its tiles is damaged."""
    store = open_for_writing(path, DESCRIPTION)
    for i, j in TILES:
        rows, columns = DESCRIPTION.levels[0].window((i, j))
        store.write((i, j), FIELD[slice(*rows), slice(*columns)])
    (path / "0/escape_time/c/0/0").write_bytes(b"damaged")
    columns = store.read_tiles()
    columns["iterations"][:], columns["minimum"][:], columns["maximum"][:] = 130 * 170 * 7, 1, 300
    return store, columns


def test_what_was_done_before_the_page_came_is_read_from_the_store_in_the_meantime(tmp_path):
    store, columns = stored(tmp_path / "a.zarr")
    scheduler = Scheduler()
    plugin = scheduler.plugins[TOPIC] = Plugin()
    done = np.ones(DESCRIPTION.tiles, bool)
    with Reporter(scheduler, plan_of(store, done), columns, done):
        poll(lambda: plugin.jobs and only(plugin).tiles["sampled"].sum() == len(TILES) - 1, "the previews")
    job = only(plugin)
    expected = FIELD[:: GRID.stride, :: GRID.stride].copy()
    expected[GRID.cells((0, 0))] = 7  # the mean of a tile that cannot be read
    assert np.array_equal(job.preview, expected)
    assert (job.tiles["state"] == DONE).all()
    assert (job.tiles["minimum"][2, 3], job.tiles["maximum"][2, 3]) == (
        FIELD[260:390, 510:680].min(),
        FIELD[260:390, 510:680].max(),
    )
    assert job.tiles["mean"][2, 3] == pytest.approx(FIELD[260:390, 510:680].mean())
    assert job.tiles["worker"][2, 3] == -1
    assert ("worker", "from an earlier run") in _tile_facts(job, (2, 3), [])


def test_a_page_that_comes_late_learns_of_the_tiles_that_it_missed(tmp_path):
    """The plugin is put there in mid-run, when the topic has long dropped the first events."""
    store, columns = stored(tmp_path / "a.zarr")
    scheduler = Scheduler()
    none = np.zeros(DESCRIPTION.tiles, bool)
    with Reporter(scheduler, plan_of(store, none), columns, none) as reporter:
        for tile in TILES[1:10]:
            reporter(TileDone(record(tile)))
        plugin = scheduler.plugins[TOPIC] = Plugin()
        poll(lambda: plugin.jobs and only(plugin).tiles["sampled"].sum() == 9, "the previews")
    assert only(plugin).done == 9


def test_the_store_is_not_read_for_a_page_that_is_not_there(monkeypatch):
    monkeypatch.setattr("mandeldask.job.reporter.REPORT_SECONDS", 0.01)
    read_tiles, looks, scheduler = [], [], Scheduler()
    monkeypatch.setattr(Store, "read", lambda store, tile: read_tiles.append(tile))
    scheduler.plugins[TOPIC] = Plugin()
    scheduler.plugins[TOPIC].problem = "no Bokeh"
    ask = scheduler.run_on_scheduler
    scheduler.run_on_scheduler = lambda *words: looks.append(ask(*words))
    done = np.ones(DESCRIPTION.tiles, bool)
    with Reporter(scheduler, plan_of(Store(place_of("/tmp/a.zarr"), "a", DESCRIPTION), done), {}, done):
        poll(lambda: len(looks) >= 2, "two looks for a page")
    assert (set(looks), read_tiles) == ({None}, [])


def test_what_tasks_end_in_is_known_before_the_driver_tells():
    plugin = Plugin()
    plugin.log_event(TOPIC, WHOLE[0])
    job = only(plugin)
    plugin.transition((TASK, 0, 0), "processing", "erred")
    plugin.transition((TASK, 0, 1), "processing", "memory")
    plugin.transition((TASK, 0, 2), "waiting", "processing")
    for strange in ((TASK, 99, 0), "sum-1", ("sum", 0, 0)):
        plugin.transition(strange, "processing", "memory")
    assert job.tiles["state"][0, :3].tolist() == [RETRY, DONE, WAITING]
    assert job.previews_wanted() == [(0, 1)], "its worker's event was lost"
    assert ("escape times", "not known") in _tile_facts(job, (0, 1), [])
    assert COLOURINGS["seconds"].label(job.tiles[0, 1]) == ""
    plugin.transition((TASK, 0, 0), "processing", "memory")
    plugin.transition((TASK, 0, 0), "processing", "erred")
    assert job.tiles["state"][0, 0] == DONE, "it was computed since"


def test_failures_are_told_until_their_tile_is_done():
    failures = [TileFailed((0, 0), 1, "ValueError: <b>", False), TileFailed((1, 2), 3, "x" * 9999, True)]
    job = only(heard(told(failures, error=KeyboardInterrupt())))
    assert (job.tiles["state"][0, 0], job.tiles["state"][1, 2], job.ended) == (RETRY, FAILED, "stopped")
    assert job.failures[0, 0].error == "ValueError: <b>"
    assert len(job.failures[1, 2].error) == 500
    job = only(heard(told([*failures, record((0, 0))])))
    assert set(job.failures) == {(1, 2)}
    late = only(heard([*told([record((0, 0))]), *told([failures[0]])]))
    assert (late.tiles["state"][0, 0], late.failures) == (DONE, {})


def test_of_two_runs_the_one_heard_of_last_is_the_newer_whatever_their_clocks_say():
    failures = [TileFailed((0, 0), 3, "ValueError: no", True), TileFailed((1, 2), 1, "ValueError: no", False)]
    first = told(failures, error=KeyboardInterrupt())
    second = told([record((3, 3)), PROGRESS])
    second = [e | {"job": e["job"] | {"started": 1.0}} if "ended" in e else e for e in second]  # a clock that is behind
    state = heard([*first, *second])
    job = only(state)
    assert (job.job.run, job.ended) == (second[0]["job"]["run"], "done")
    assert (job.tiles["state"][0, 0], job.tiles["state"][1, 2], job.failures) == (WAITING, WAITING, {}), (
        "it tries them again"
    )
    for late in first:
        state.log_event(TOPIC, late)
    assert (job.job.run, job.ended) == (second[0]["job"]["run"], "done")
    assert (job.tiles["state"][0, 0], job.progress.done, job.failures) == (WAITING, len(TILES), {})


def test_the_job_whose_latest_run_was_heard_of_last_is_at_the_end():
    a, b, again = told([]), told([], identity="b" * 32), told([])
    ids = [messages[0]["job"]["id"] for messages in (a, b)]
    state = heard([*a, *b, *a])
    assert list(state.jobs) == ids
    assert list(heard([*a, *b, *again]).jobs) == ids[::-1]


def test_a_driver_that_falls_silent_is_said_to_be_so(monkeypatch):
    job = only(heard(WHOLE[:-1]))
    job.ended = ""
    assert job.silent == 0
    job.heard = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: 1060.0)
    assert job.silent == 60


def test_the_oldest_jobs_are_forgotten():
    several = [event for n in range(MAX_JOBS + 5) for event in told([], identity=f"{n:032x}")]
    assert len(heard(several).jobs) == MAX_JOBS


FAIL = {"tile": (0, 0), "attempt": 1, "error": "", "final": True}
DRIVER, TILE = WHOLE[0] | {"failures": [FAIL], "progress": vars(PROGRESS)}, WHOLE[1]
BAD_JOBS = {
    "an id that is none": {"id": "<script>"},
    "too many tiles": {"shape": (2**31 - 1, 2**31 - 1), "tile": (1, 1)},
    "no tile at all": {"tile": (0, 1)},
    "a shape of floats": {"shape": (7.0, 8.0)},
    "not a number": {"started": float("nan")},
    "a time no calendar has": {"started": 1e300},
    "a name too long": {"name": "x" * 501},
    "a name that is none": {"name": None},
}
BAD = {
    "nothing": None,
    "a text": "boo",
    "an unknown key": DRIVER | {"hello": 1},
    "no job": {"progress": None},
    **{what: DRIVER | {"job": DRIVER["job"] | change} for what, change in BAD_JOBS.items()},
    "a failure outside": DRIVER | {"failures": [FAIL | {"tile": (99, 0)}]},
    "an endless rate": DRIVER | {"progress": vars(PROGRESS) | {"iterations_per_second": float("inf")}},
    "a tile outside": TILE | {"tile": (99, 0)},
    "a tile before the first": TILE | {"tile": (-1, 0)},
    "a preview too short": TILE | {"preview": TILE["preview"][1:]},
    "a preview of text": TILE | {"preview": "<b>"},
    "impossible figures": TILE | {"minimum": 301},
    "seconds that are none": TILE | {"seconds": "<b>"},
    "an endless time": TILE | {"seconds": float("inf")},
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_event_is_dropped_with_a_warning_that_gives_a_reason(bad, caplog):
    plugin = Plugin()
    plugin.log_event(TOPIC, WHOLE[0])
    before = only(plugin).stamp
    plugin.log_event(TOPIC, BAD[bad])
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    reason = caplog.records[0].getMessage().partition("others will be: ")[2]
    assert reason and "\n" not in reason
    assert (only(plugin).done, only(plugin).stamp) == (0, before)


def test_bad_events_cost_one_warning_in_all_and_good_ones_are_taken_still(caplog):
    plugin = Plugin()
    for event in BAD.values():
        plugin.log_event(TOPIC, event)
    plugin.log_event("another-topic", BAD["a text"])
    plugin.log_event(TOPIC, DRIVER)
    plugin.log_event(TOPIC, TILE)
    assert len(caplog.records) == 1
    assert (only(plugin).done, only(plugin).progress) == (1, PROGRESS)


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.tuples(st.integers(1, 900), st.integers(1, 900)),
)
def test_parts_of_tiles_fill_the_preview_without_seam(shape, tile):
    grid = Preview(shape, tile, 100)
    assert max(grid.size) <= 512
    rows, columns = grid.tiles
    chance = random.Random(0)
    for axis, n in enumerate(grid.tiles):
        pick = [0, n - 1, chance.randrange(n)]
        for k in pick:
            place = [0, 0]
            place[axis] = k
            cells, samples = grid.cells(tuple(place))[axis], grid.samples(tuple(place))[axis]
            ours = np.arange(shape[axis])[k * tile[axis] : (k + 1) * tile[axis]][samples]
            assert (ours == np.arange(0, shape[axis], grid.stride)[cells]).all()
    edges = [grid.cells((i, 0))[0] for i in range(rows)]
    assert (edges[0].start, edges[-1].stop) == (0, grid.size[0])
    assert all(a.stop == b.start for a, b in pairwise(edges))
    assert columns == len({grid.cells((0, j))[1].start for j in range(columns)}) or grid.stride > tile[1]


def test_a_key_tells_its_job_and_tile():
    ours, other = job_id("a", "/x.zarr"), job_id("a", "/y.zarr")
    assert ours != other
    name = key_name(ours, "run")
    for key in ((name, 18, 11), (f"{name}-0123abc", 18, 11)):  # as Dask 2025 has it
        assert parse_key(key) == (ours, "run", (18, 11))
    for strange in ("a", ("a", 1, 2), (f"escape-time-tile-{ours}-x", "0", 0), (f"escape-time-tile-{ours}", 0, 0)):
        assert parse_key(strange) is None


def test_running_tiles_are_those_that_workers_hold():
    job = JobState(JobInfo(JOB, "a", "r", "numpy", 1.0, (900, 300), (100, 100), 9, (0.0, 1.0), (0.0, 1.0)))
    tasks = [Task(key=(TASK, 8, k)) for k in range(3)]
    foreign = Task(key=("sum", 0, 0))

    worker = SimpleNamespace(address="w", last_seen=time.time() - 2, processing=tasks[:2], executing={tasks[1]: 3.0})
    other = SimpleNamespace(address="v", last_seen=0, processing=[foreign], executing={foreign: 1.0})
    waiting, computing = running_tiles(SimpleNamespace(workers={"w": worker, "v": other}), job)
    assert (waiting.tile, waiting.worker, waiting.seconds) == ((8, 0), "w", None)
    assert (computing.tile, computing.seconds) == ((8, 1), pytest.approx(5, abs=0.5))


@dataclass(frozen=True)
class Task:
    """A task as the scheduler has it."""

    key: object


class Without:
    """A scheduler whose hooks are not what they were."""

    def __init__(self, **attributes):
        self.plugins = {}
        self.__dict__.update(attributes)

    def get_events(self, topic):
        return ()


@pytest.mark.parametrize(
    ("scheduler", "problem"),
    [
        (Without(http_application=SimpleNamespace(applications=[])), hooks.SWITCHED_OFF),
        (Without(), "this version of Dask does not take a page of ours"),
    ],
    ids=["switched off", "another Dask"],
)
def test_where_the_page_cannot_be_the_plugin_says_why_in_one_warning(scheduler, problem, caplog):
    plugin = Plugin()
    asyncio.run(plugin.start(scheduler))
    assert problem in plugin.problem
    assert len(caplog.records) == 1
    plugin.log_event(TOPIC, DRIVER)
    plugin.log_event(TOPIC, TILE)
    assert only(plugin).done == 1


def test_without_bokeh_the_plugin_says_so(monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "bokeh.server.tornado", None)
    plugin = Plugin()
    asyncio.run(plugin.start(Without()))
    assert "no Bokeh" in plugin.problem


def test_what_goes_wrong_with_sending_costs_a_reporter_one_warning(caplog):
    class Failing:
        status = "running"

        def log_event(self, topic, event):
            raise OSError("no")

    done = np.zeros(DESCRIPTION.tiles, bool)
    store = Store(place_of("/tmp/a.zarr"), "a", DESCRIPTION)
    with Reporter(Failing(), plan_of(store, done), {}, done) as reporter:
        reporter(TileDone(record((0, 0))))
    assert len(caplog.records) == 1


def test_the_states_add_up_and_texts_from_outside_are_escaped():
    job = only(heard(told([*map(record, TILES[:10]), TileFailed((5, 4), 1, "<b>", False)], name="<script>")))
    worker = SimpleNamespace(
        name="<img>",
        address='"><script>',
        last_seen=time.time(),
        processing=[Task((TASK, *tile)) for tile in ((5, 4), (5, 3), TILES[0])],
        executing={},
    )
    scheduler = SimpleNamespace(workers={"w": worker})
    running = running_tiles(scheduler, job)
    shown = _parts(scheduler, job, running, (5, 4))
    for sign, n in (("done", 10), ("on a worker", 2), ("waiting", len(TILES) - 12)):
        assert f"{sign} <b>{n}</b>" in shown["figures"]
    assert "will be retried <b>" not in shown["figures"], "it is on a worker"
    assert "&lt;script&gt;" in shown["heading"]
    assert "&lt;b&gt;" in shown["failures"]
    assert "&lt;img&gt;" in shown["workers"]
    for text in shown.values():
        assert not {"<script>", "<img>"} & set(re.findall("<[a-z]+>", text))


def test_the_ticks_of_the_picture_lie_where_their_escape_times_are_coloured():
    job = only(heard(WHOLE))
    _, ticks = COLOURINGS["picture"].paint(job)
    values = [int(tick.text.removesuffix("+")) for tick in ticks]
    index = palette_index(job.preview, 300)(np.array(values))
    assert [tick.at for tick in ticks] == pytest.approx((index - 1) / 253)
    assert values[0] == job.preview.min()
    assert len(values) == 5
    assert all(b.at - a.at > 0.1 for a, b in pairwise(ticks)), "room for their texts"
    deeper = (job.preview > values[-1]) & (job.preview < 300)
    assert ticks[-1].text.endswith("+") == deeper.any()


@pytest.mark.parametrize(
    ("view", "numbers", "ticks"),
    [
        ("seconds", (0.01, 0.4), [(0, "0 ms"), (0.25, "100 ms"), (0.5, "200 ms"), (0.75, "300 ms"), (1, "400 ms")]),
        ("seconds", (0.0, 1.1), [(0, "0 ms"), (0.227, "250 ms"), (0.455, "500 ms"), (0.682, "750 ms"), (1, "1.1 s")]),
        ("seconds", (0.0, 0.0), [(0, "0 ms")]),
        ("mean escape time", (10, 1000), [(0, "10"), (0.239, "30"), (0.5, "100"), (0.739, "300"), (1, "1 k")]),
        ("mean escape time", (), []),
    ],
)
def test_the_ticks_of_a_number_of_each_tile(view, numbers, ticks):
    job = only(heard(told([])))
    job.tiles[view.split()[0]][0, : len(numbers)] = numbers
    found = [(round(tick.at, 3), tick.text) for tick in COLOURINGS[view].paint(job)[1]]
    assert found == ticks


def test_the_time_left_has_a_word_where_there_is_none():
    job = only(heard(told([])[:1]))

    def left():
        return re.search(
            r"time left</div><div class=\"value\">(.*?)</div>", str(_parts(IDLE, job, [], None)["figures"])
        )[1]

    assert left() == "not known yet"
    job.progress = replace(PROGRESS, seconds_left=60.0)
    assert left() == "1 min 0 s"
    job.heard -= 100
    assert left() == "not known"
    job.heard += 100
    job.tiles["state"] = DONE
    assert left() == "finishing"
    for ended in ("stopped", "done"):
        job.ended = ended
        assert left() == ended


IDLE = SimpleNamespace(workers={})
