"""What the scheduler makes of messages: in order, late, twice, after a resume, hostile."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from distributed.protocol import dumps, loads
from hypothesis import given
from hypothesis import strategies as st
from services import poll

from mandeldask.cluster import Size
from mandeldask.dashboard import Plugin, hooks, panel
from mandeldask.dashboard.flight import Flight, in_flight
from mandeldask.dashboard.state import AGAIN, DONE, FAILED, MAX_JOBS, WAITING, Board
from mandeldask.job import Plan, TileDone, TileFailed
from mandeldask.job.broadcast import Broadcast
from mandeldask.job.events import Progress
from mandeldask.kernels import KERNELS
from mandeldask.messages import TILE, TOPIC, Grid, job_id, key_name, read, thumbnail, tile_of_key
from mandeldask.store import Description, Store, open_for_writing, place_of
from mandeldask.tile import Record, statistics
from mandeldask.view import View

VIEW = View(x=(-2, 1), y=(-1.5, 1.5), shape=(700, 1100))
DESCRIPTION = Description.of(VIEW, 300, ("escape_time",), (130, 170))
ROWS, COLUMNS = DESCRIPTION.tiles
GRID = Grid(DESCRIPTION.shape, DESCRIPTION.tile)
FIELD = KERNELS["numba"](300)(VIEW.block((0, 700), (0, 1100)))
TILES = [(i, j) for i in range(ROWS) for j in range(COLUMNS)]


def record(tile, worker="tcp://127.0.0.1:1"):
    rows, columns = DESCRIPTION.window(tile, (tile[0] + 1, tile[1] + 1))
    block = FIELD[slice(*rows), slice(*columns)]
    small = thumbnail(block, GRID, tile, 300)
    return Record(tile, 0.25, *statistics(block, 300), worker, 1.0, 2.0, small)


class Scheduler:
    """Keeps what a client logs, as it arrives: through Dask's own protocol."""

    def __init__(self):
        self.messages = []
        self.plugins = {}

    def log_event(self, topic, message):
        assert topic == TOPIC
        self.messages.append(loads(dumps(message)))

    def run_on_scheduler(self, function):
        return function(dask_scheduler=self)


def told(events, done=None, identity="a" * 32, error=None, name=None):
    """The messages of a run in which these events happened."""
    done = np.zeros(DESCRIPTION.tiles, bool) if done is None else done
    means = {(i, j): FIELD[slice(i * 130, i * 130 + 130), slice(j * 170, j * 170 + 170)] for i, j in TILES}
    columns = {name: np.zeros(DESCRIPTION.tiles) for name in ("seconds", "minimum", "maximum")}
    columns["iterations"] = np.array([[means[i, j].sum() for j in range(COLUMNS)] for i in range(ROWS)])
    store = Store(place_of("/tmp/a.zarr"), identity, DESCRIPTION)
    scheduler = Scheduler()
    plan = Plan(store, "numba", Size(1, 1, 2**30), int(done.sum()), int((~done).sum()), 1, bool(done.any()))
    with suppress(KeyboardInterrupt), Broadcast(scheduler, plan, columns, done, name) as broadcast:
        for event in events:
            broadcast(event)
        if error:
            raise error
    return scheduler.messages


def board(messages):
    """What a scheduler knows after these messages."""
    said = []
    board = Board(said.append)
    for message in messages:
        board.take(read(message))
    assert said == []
    return board


def only(board):
    (job,) = board.jobs.values()
    return job


PACE = Progress(len(TILES), 0, 0, 1e6, 1e8, 0.0, 1)
WHOLE = told([*(TileDone(record(tile)) for tile in TILES), PACE])


def test_a_whole_run_gives_the_preview_of_the_field_and_the_figures_of_its_tiles():
    job = only(board(WHOLE))
    assert np.array_equal(job.preview, FIELD[:: GRID.stride, :: GRID.stride])
    assert (job.state == DONE).all()
    assert (job.seconds == 0.25).all()
    assert job.mean[0, 0] == pytest.approx(FIELD[:130, :170].mean())
    assert job.mean[-1, -1] == pytest.approx(FIELD[130 * (ROWS - 1) :, 170 * (COLUMNS - 1) :].mean())
    assert (job.minimum[2, 3], job.workers, job.ended) == (FIELD[260:390, 510:680].min(), ["tcp://127.0.0.1:1"], "done")
    assert (job.pace.iterations_per_second, job.done) == (1e8, len(TILES))


@given(st.randoms(use_true_random=False))
def test_messages_in_any_order_and_twice_come_to_the_same(chance):
    parts = [*WHOLE, *told([TileDone(record(t, "tcp://127.0.0.1:2")) for t in TILES[:5]]), *WHOLE]
    chance.shuffle(parts)
    job = only(board(parts))
    assert np.array_equal(job.preview, FIELD[:: GRID.stride, :: GRID.stride])
    assert job.done == len(TILES)


def test_a_job_whose_first_messages_were_lost_is_known_from_the_later_ones():
    assert only(board(WHOLE[-1:])).ended == "done"
    assert only(board(WHOLE[1:])).done == len(TILES)


def test_a_resumed_job_keeps_what_is_known_and_shows_the_rest_in_its_mean():
    done = np.zeros(DESCRIPTION.tiles, bool)
    done[:3] = True
    fresh = only(board(told([], done)))
    assert (fresh.state[:3] == DONE).all()
    assert (fresh.state[3:] == WAITING).all()
    assert (fresh.preview[GRID.cells((0, 0))] == round(FIELD[:130, :170].mean())).all()
    both = only(board([*told([TileDone(record(t)) for t in TILES if t[0] < 3]), *told([], done)]))
    assert np.array_equal(both.preview[:130], FIELD[:: GRID.stride, :: GRID.stride][:130])
    assert (both.worker[:3] == 0).all()


def test_what_earlier_runs_have_done_is_read_from_the_store_in_the_meantime(tmp_path):
    store = open_for_writing(tmp_path / "a.zarr", DESCRIPTION)
    for i, j in TILES:
        rows, columns = DESCRIPTION.window((i, j), (i + 1, j + 1))
        store.write((i, j), FIELD[slice(*rows), slice(*columns)])
    (tmp_path / "a.zarr/0/escape_time/c/0/0").write_bytes(b"damaged")
    columns = store.read_tiles() | {"iterations": np.full(DESCRIPTION.tiles, 130 * 170 * 7)}
    plan = Plan(store, "numba", Size(1, 1, 2**30), len(TILES), 0, 1, True)
    scheduler = Scheduler()
    scheduler.plugins[TOPIC] = Plugin()
    with Broadcast(scheduler, plan, columns, np.ones(DESCRIPTION.tiles, bool)):
        poll(lambda: sum(len(m.get("tiles", b"")) for m in scheduler.messages) == (2 * len(TILES) - 1) * TILE.itemsize)
    job = only(board(scheduler.messages))
    expected = FIELD[:: GRID.stride, :: GRID.stride].copy()
    expected[GRID.cells((0, 0))] = 7  # the mean of a tile that cannot be read
    assert np.array_equal(job.preview, expected)
    assert (job.minimum[2, 3], job.maximum[2, 3]) == (FIELD[260:390, 510:680].min(), FIELD[260:390, 510:680].max())
    assert job.mean[2, 3] == pytest.approx(FIELD[260:390, 510:680].mean()), "the store's table had no figures"
    assert job.minimum[0, 0] == 0
    assert "<th>escape times</th><td>not known</td>" in panel.tile_facts(job, (0, 0), [])
    assert "not known" not in panel.tile_facts(only(board(WHOLE)), (0, 0), [])


def test_the_store_is_not_read_for_a_page_that_is_not_there(monkeypatch):
    monkeypatch.setattr("mandeldask.job.broadcast.ASK_SECONDS", 0)
    scheduler = Scheduler()
    asked = []
    monkeypatch.setattr(Store, "read", lambda store, tile: asked.append(tile))
    scheduler.plugins[TOPIC] = Plugin()
    scheduler.plugins[TOPIC].problem = "no Bokeh"
    looks = []

    def run_on_scheduler(function):
        looks.append(function(dask_scheduler=scheduler))
        return looks[-1]

    scheduler.run_on_scheduler = run_on_scheduler
    done = np.ones(DESCRIPTION.tiles, bool)
    plan = Plan(Store(place_of("/tmp/a.zarr"), "a", DESCRIPTION), "numba", Size(1, 1, 2**30), len(TILES), 0, 1, True)
    columns = {n: np.ones(done.shape) for n in ("seconds", "iterations", "minimum", "maximum")}
    with Broadcast(scheduler, plan, columns, done):
        poll(lambda: len(looks) >= 2, "two looks for a page")
    assert (set(looks), asked) == ({False}, [])


def test_failures_are_told_until_their_tile_is_done():
    failures = [TileFailed((0, 0), 1, "ValueError: <b>", False), TileFailed((1, 2), 3, "x" * 9999, True)]
    job = only(board(told(failures, error=KeyboardInterrupt())))
    assert (job.state[0, 0], job.state[1, 2], job.ended) == (AGAIN, FAILED, "stopped")
    assert job.failures[0, 0].error == "ValueError: <b>"
    assert len(job.failures[1, 2].error) == 500
    job = only(board(told([*failures, TileDone(record((0, 0)))])))
    assert set(job.failures) == {(1, 2)}
    late = only(board([*told([TileDone(record((0, 0)))]), *told([failures[0]])]))
    assert (late.state[0, 0], late.failures) == (DONE, {})


def test_of_two_runs_the_one_heard_of_last_is_the_newer_whatever_their_clocks_say():
    failures = [TileFailed((0, 0), 3, "ValueError: no", True), TileFailed((1, 2), 1, "ValueError: no", False)]
    first = told(failures, error=KeyboardInterrupt())
    second = told([TileDone(record((3, 3))), PACE])
    second = [message | {"job": message["job"] | {"started": 1.0}} for message in second]  # a clock that is behind
    state = board([*first, *second])
    job = only(state)
    assert (job.job.run, job.ended) == (second[0]["job"]["run"], "done")
    assert (job.state[0, 0], job.state[1, 2], job.failures) == (WAITING, WAITING, {}), "it tries them again"
    for late in first:
        state.take(read(late))
    assert (job.job.run, job.ended) == (second[0]["job"]["run"], "done")
    assert (job.state[0, 0], job.pace.done, job.failures) == (WAITING, len(TILES), {})


def test_the_job_whose_latest_run_was_heard_of_last_is_at_the_end():
    a, b, again = told([]), told([], identity="b" * 32), told([])
    ids = [messages[0]["job"]["id"] for messages in (a, b)]
    state = board([*a, *b, *a])
    assert list(state.jobs) == ids
    assert list(board([*a, *b, *again]).jobs) == ids[::-1]


def test_a_driver_that_falls_silent_is_said_to_be_so(monkeypatch):
    job = only(board(WHOLE[:-1]))
    job.ended = ""
    assert job.silent == 0
    job.heard = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: 1060.0)
    assert job.silent == 60


def test_the_oldest_jobs_are_forgotten():
    several = [message for n in range(MAX_JOBS + 5) for message in told([], identity=f"{n:032x}")]
    assert len(board(several).jobs) == MAX_JOBS


GOOD = told([TileDone(record((0, 0)))])[1]
BAD = {
    "nothing": None,
    "a text": "boo",
    "another version": GOOD | {"version": 2},
    "an unknown key": GOOD | {"hello": 1},
    "no job": {"version": 1},
    "an id that is none": GOOD | {"job": GOOD["job"] | {"id": "<script>"}},
    "too many tiles": GOOD | {"job": GOOD["job"] | {"shape": (2**31 - 1, 2**31 - 1), "tile": (1, 1)}},
    "no tile at all": GOOD | {"job": GOOD["job"] | {"tile": (0, 1)}},
    "not a number": GOOD | {"job": GOOD["job"] | {"started": float("nan")}},
    "a time no calendar has": GOOD | {"job": GOOD["job"] | {"started": 1e300}},
    "tiles cut off": GOOD | {"tiles": GOOD["tiles"][:-1]},
    "tiles outside": GOOD | {"tiles": b"\xff" * len(GOOD["tiles"])},
    "thumbnails too short": GOOD | {"thumbnails": GOOD["thumbnails"][1:]},
    "an unknown worker": GOOD | {"workers": ()},
    "a failure outside": GOOD | {"failures": [{"tile": (99, 0), "attempt": 1, "error": "", "final": True}]},
    "an error too long": GOOD | {"failures": [{"tile": (0, 0), "attempt": 1, "error": "x" * 501, "final": True}]},
}


def test_the_message_that_the_bad_ones_were_made_from_is_good():
    assert only(board([GOOD])).done == 1


def test_bad_messages_are_dropped_with_one_warning(caplog):
    plugin = Plugin()
    for message in BAD.values():
        plugin.log_event(TOPIC, message)
    assert plugin.board.jobs == {}
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    plugin.log_event("another-topic", BAD["a text"])
    plugin.log_event(TOPIC, GOOD)
    assert only(plugin.board).done == 1


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_message_is_refused_with_a_reason(bad):
    with pytest.raises(ValueError, match=r".+") as error:
        read(BAD[bad])
    assert "\n" not in str(error.value)


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.tuples(st.integers(1, 900), st.integers(1, 900)),
)
def test_thumbnails_tile_the_preview_without_seam(shape, tile):
    grid = Grid(shape, tile)
    assert max(grid.preview) <= 512
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
    assert (edges[0].start, edges[-1].stop) == (0, grid.preview[0])
    assert all(a.stop == b.start for a, b in pairwise(edges))
    assert columns == len({grid.cells((0, j))[1].start for j in range(columns)}) or grid.stride > tile[1]


def test_a_key_tells_its_job_and_tile():
    ours, other = job_id("a", "/x.zarr"), job_id("a", "/y.zarr")
    assert ours != other
    key = (key_name(ours, "run"), 18, 11)
    assert tile_of_key(key, ours) == (18, 11)
    assert tile_of_key(key, ours, "run") == (18, 11)
    assert tile_of_key(key, ours, "another") is None
    assert tile_of_key(key, other) is None
    for strange in ("a", ("a", 1, 2), (f"escape-time-tile-{ours}-x", "0", 0), (f"escape-time-tile-{ours}", 0, 0)):
        assert tile_of_key(strange, ours) is None


def test_tiles_in_flight_are_those_that_workers_hold():
    job = job_id("a", "/x.zarr")
    tasks = [Task(key=(key_name(job, "run"), 8, k)) for k in range(3)]
    foreign = Task(key=("sum", 0, 0))

    worker = SimpleNamespace(address="w", last_seen=time.time() - 2, processing=tasks[:2], executing={tasks[1]: 3.0})
    other = SimpleNamespace(address="v", last_seen=0, processing=[foreign], executing={foreign: 1.0})
    waiting, computing = in_flight(SimpleNamespace(workers={"w": worker, "v": other}), job)
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
    plugin.log_event(TOPIC, GOOD)
    assert only(plugin.board).done == 1


def test_without_bokeh_the_plugin_says_so(monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "bokeh.server.tornado", None)
    plugin = Plugin()
    asyncio.run(plugin.start(Without()))
    assert "no Bokeh" in plugin.problem


def test_what_goes_wrong_with_sending_costs_a_broadcast_one_warning(caplog):
    class Failing:
        status = "running"

        def log_event(self, topic, message):
            raise OSError("no")

    done = np.zeros(DESCRIPTION.tiles, bool)
    plan = Plan(Store(place_of("/tmp/a.zarr"), "a", DESCRIPTION), "numba", Size(1, 1, 2**30), 0, 40, 1, False)
    columns = {n: np.zeros(done.shape) for n in ("seconds", "iterations", "minimum", "maximum")}
    with Broadcast(Failing(), plan, columns, done) as broadcast:
        broadcast(TileDone(record((0, 0))))
    assert len(caplog.records) == 1


def test_the_states_add_up_and_texts_from_outside_are_escaped():
    messages = told([*(TileDone(record(t)) for t in TILES[:10]), TileFailed((5, 5), 1, "<b>", False)], name="<script>")
    job = only(board(messages))
    flights = [Flight((5, 5), "<i>", 1.0), Flight((5, 4), "w", None), Flight(TILES[0], "w", 2.0)]
    shown = panel.figures(job, flights)
    for sign, n in (("done", 10), ("on a worker", 2), ("waiting", len(TILES) - 12)):
        assert f"{sign} <b>{n}</b>" in shown
    assert "to be tried again <b>" not in shown, "it is on a worker"
    assert "&lt;script&gt;" in panel.heading(job)
    assert "&lt;b&gt;" in panel.failures(job)
    assert "&lt;i&gt;" in panel.tile_facts(job, (5, 5), flights)
    worker = SimpleNamespace(
        name="<img>", address='"><script>', nthreads=1, metrics={"cpu": 50, "memory": 2**29}, memory_limit=2**30
    )
    row = panel.workers(SimpleNamespace(workers={"w": worker}), job, flights, ["#000000"])
    assert "<img>" not in row
    assert "<script>" not in row
    assert "50%" in row
    assert "512 MiB" in row
