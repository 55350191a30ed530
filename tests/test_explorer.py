"""`mandeldask explore` without a browser: its tiles, what it refuses, what it survives."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import shutil
import signal
import socket
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from explored import DEADLINE, PLACE, Explorer, Served, hold, read_tile, waiting_tiles, workers_held
from hypothesis import given
from hypothesis import strategies as st
from services import Processes, free_port, listening, poll

import mandeldask as md
from mandeldask.cli import cli
from mandeldask.config import LocalCluster, SchedulerAddress
from mandeldask.errors import ConfigError
from mandeldask.explorer import live as live_module
from mandeldask.explorer import open_scene, tiles
from mandeldask.explorer.deep import Origin, deep_tile
from mandeldask.explorer.live import LiveTiles
from mandeldask.explorer.tiles import SIDE, live_view
from mandeldask.kernels import KERNELS, deep
from mandeldask.store import open_store

FIELD = {
    "view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [700, 900]},
    "max_iter": 300,
    "fields": ["escape_time", "smooth"],
    "tile": [256, 256],
}
SEAHORSE = "8/-192/26"  # [-0.75, -0.74609375] x [0.1015625, 0.10546875]


@pytest.fixture(scope="module")
def store(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "whole.zarr"
    md.run(FIELD, path, client=client)
    return open_store(path)


@pytest.fixture(scope="module")
def explorer(client, store):
    with Served(open_scene(store.path), client.scheduler.address) as explorer:
        yield explorer


@pytest.fixture
def copy(store, tmp_path):
    """A copy of the store, to be harmed."""
    path = tmp_path / "copy.zarr"
    shutil.copytree(store.path, path)
    return path


def windows(level):
    return [(i, j) for i in range(-(-level.shape[0] // SIDE)) for j in range(-(-level.shape[1] // SIDE))]


# Addresses


@given(st.integers(0, 40), st.data())
def test_the_samples_of_a_live_tile_are_exact_at_any_level_that_binary64_resolves(level, data):
    bound = st.integers(-(2 ** (level + 1)), 2 ** (level + 1) - 1)
    column, row = data.draw(bound), data.draw(bound)
    view = live_view(level, column, row)
    for name, n in (("x", column), ("y", row)):
        cells = [Fraction(n * SIDE * 2 + 2 * i + 1, 2 ** (level + 9)) for i in (0, 100, SIDE - 1)]
        axis = view.axis(name)
        assert [Fraction(axis[i]) for i in (0, 100, SIDE - 1)] == cells


@given(st.integers(40, 4000), st.integers(-12, 24), st.data())
def test_the_offsets_of_a_deep_tile_are_exact(level, above, data):
    column, row = (data.draw(st.integers(-(2**level), 2**level)) for _ in "xy")
    x, y = (data.draw(st.integers(-(2**20), 2**20)) for _ in "xy")
    tile = deep_tile(level, column, row, f"{max(0, level + above)},{x},{y}", "none")
    point, unit, offsets = tile.origin.point, Fraction(2) ** tile.origin.unit, tile.offsets()
    for i in (0, 100, SIDE - 1):
        c = [Fraction(n * SIDE * 2 + 2 * i + 1, 2 ** (level + 9)) for n in (column, row)]
        assert point[0] + Fraction(offsets[0, i].real) * unit == c[0]
        assert point[1] + Fraction(offsets[i, 0].imag) * unit == c[1]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ((-9, 0, 0), "levels of live tiles go from -8"),
        ((1001, 0, 0), "levels of live tiles go from -8"),
        ((3, 2**13, 0), "within -1024 and 1024"),
        ((3, 0, -(2**13) - 1), "within -1024 and 1024"),
        ((60, 2**59, 2**59), "too deep for binary64"),
        ((1000, 2**999, 2**999), "too deep for binary64"),
    ],
)
def test_an_address_that_is_out_of_range_or_too_deep_is_refused(address, said):
    with pytest.raises(ConfigError, match=said):
        live_view(*address)


def test_the_fraction_is_the_smooth_escape_time_beyond_the_count():
    counts = np.array([3, 3, 7, 9, 5, 1], np.int32)
    smooth = np.array([2.25, 3.1, np.nan, -50, np.inf, 5.1], np.float32)
    found = tiles.fraction(counts, smooth)
    assert found[[2, 3, 4]].tolist() == [0, 1, 0]
    assert (tiles.LEAST + found[[0, 1, 5]] / tiles.STEPS).tolist() == pytest.approx([-0.75, 0.1, 4.1], abs=2e-4)


# Stored tiles


def test_stored_tiles_equal_the_store_at_every_level(explorer, store):
    for level in store.description.levels:
        whole = store.window(slice(None), slice(None), level.number)
        smooth = store.window(slice(None), slice(None), level.number, "smooth")
        for i, j in windows(level):
            part = slice(i * SIDE, (i + 1) * SIDE), slice(j * SIDE, (j + 1) * SIDE)
            path = f"/stored/{level.number}/{i}/{j}"
            counts, fraction = explorer.both(path)
            np.testing.assert_array_equal(counts, whole[part])
            np.testing.assert_array_equal(fraction, tiles.fraction(whole[part], smooth[part]))


def test_a_store_of_counts_alone_is_smooth_too_unless_that_takes_long(client, store, tmp_path, monkeypatch):
    md.run(FIELD | {"fields": ["escape_time"]}, tmp_path / "counts.zarr", client=client)
    bare = open_store(tmp_path / "counts.zarr")
    for level, row, column in ((0, 1, 2), (1, 0, 1)):
        both = [tiles.stored_tile(one, level, row, column) for one in (store, bare)]
        (counts, kept), (same, made) = (read_tile(headers_of(one), one.data) for one in both)
        np.testing.assert_array_equal(same, counts)
        assert np.abs(made.astype(int) - kept).max() <= 1  # the machine's logarithm
    monkeypatch.setattr(tiles, "MAX_STEPS", 1000)
    assert not tiles.stored_tile(bare, 0, 1, 2).smooth


def headers_of(packed):
    what = "smooth" if packed.smooth else "counts"
    encoding = "deflate" if packed.deflated else None
    return {"Tile": f"{packed.kind} {packed.shape[0]} {packed.shape[1]} {what}", "Content-Encoding": encoding}


def test_tiles_that_are_not_computed_are_zeros_and_live_ones_are_there(client, copy):
    shutil.rmtree(copy / "0/escape_time/c/1")
    with Served(open_scene(str(copy)), client.scheduler.address) as explorer:
        assert not explorer.tile("/stored/0/1/1").any()
        assert explorer.tile("/stored/0/0/1").all()
        poll(lambda: explorer.state()["cluster"]["state"] == "ready", "the cluster, which is wanted at once", DEADLINE)
        assert explorer.state()["store"]["done"] == explorer.state()["store"]["tiles"] - 4


def test_a_damaged_store_and_a_vanished_one_are_told_of_and_need_no_cluster(copy, tmp_path):
    shard = copy / "0/escape_time/c/0/0"
    shard.write_bytes(bytes(b ^ 0xFF for b in shard.read_bytes()))
    with Served(open_scene(str(copy)), f"tcp://127.0.0.1:{free_port()}") as explorer:
        status, said = explorer.error("/stored/0/0/0")
        assert (status, "is damaged: shard 0/escape_time/c/0/0" in said) == (409, True)
        assert explorer.tile("/stored/0/1/0").all()
        shutil.move(copy, tmp_path / "elsewhere.zarr")
        status, said = explorer.error("/stored/0/1/0")
        assert (status, "is gone, or another by now" in said) == (409, True)
        poll(lambda: "is gone" in explorer.state()["store"]["problem"], "word of the store")
        shutil.move(tmp_path / "elsewhere.zarr", copy)
        poll(lambda: not explorer.state()["store"]["problem"], "the store's return")
        assert explorer.tile("/stored/0/1/0").all()
        assert explorer.state()["cluster"]["state"] == "off"


# Live tiles


@pytest.mark.parametrize("address", ["0/-1/0", SEAHORSE, "40/-820338753536/120259084288", "-2/-1/-1"])
def test_the_numbers_of_a_live_tile_are_the_kernels(explorer, address):
    level, column, row = map(int, address.split("/"))
    step = Fraction(2) ** -(level + 8)
    x, y = (np.array([float((n * SIDE + i + Fraction(1, 2)) * step) for i in range(SIDE)]) for n in (column, row))
    c = np.empty((SIDE, SIDE), complex)
    c.real, c.imag = x, y[:, None]
    counts, found = explorer.both(f"/live/{address}?max_iter=700")
    both = KERNELS["numpy"](700, ("escape_time", "smooth"))(c)
    np.testing.assert_array_equal(counts, both["escape_time"])
    assert (
        np.abs(found.astype(int) - tiles.fraction(both["escape_time"], both["smooth"])).max() <= 1
    )  # the machine's logarithm


def test_a_tile_that_was_computed_is_kept(explorer):
    explorer.tile("/live/3/-5/2?max_iter=50")
    before = explorer.state()["tiles"]["computed"]
    explorer.tile("/live/3/-5/2?max_iter=50")
    assert explorer.state()["tiles"]["computed"] == before


def test_requests_that_nobody_waits_for_are_cancelled_on_the_scheduler(explorer, client):
    explorer.tile("/live/0/0/0")
    with workers_held(client):
        asked = [explorer.ask(f"/live/9/{n}/7?max_iter=90") for n in range(4)]
        poll(lambda: len(waiting_tiles(client)) == 4, "the tiles on the scheduler")
        cancelled = explorer.state()["tiles"]["cancelled"]
        for connection in asked[1:]:
            connection.close()
        poll(lambda: len(waiting_tiles(client)) == 1, "the end of three tiles")
        assert explorer.state()["tiles"]["cancelled"] == cancelled + 3
    answer = asked[0].getresponse()
    assert read_tile(answer.headers, answer.read())[0].shape == (SIDE, SIDE)
    asked[0].close()


def test_tiles_that_are_cancelled_take_no_others_with_them(explorer, monkeypatch):
    """Dask fetches the results for all who wait in one go: whoever cancels its wait must not cancel that."""
    explorer.tile("/live/0/0/0")
    fetch = explorer.live.client._gather_remote

    async def slowly(*args, **kwargs):
        await asyncio.sleep(0.3)
        return await fetch(*args, **kwargs)

    async def ask():
        asked = [asyncio.create_task(explorer.live.tile(live_view(9, n, 30), 60)) for n in range(24)]
        for unwanted in asked[::2]:
            await asyncio.sleep(0.1)
            unwanted.cancel()
        return await asyncio.gather(*asked[1::2])

    monkeypatch.setattr(explorer.live.client, "_gather_remote", slowly)
    packed = asyncio.run_coroutine_threadsafe(ask(), explorer.loop).result(DEADLINE)
    assert {one.shape for one in packed} == {(SIDE, SIDE)}


def test_a_cluster_that_dies_is_told_of_and_stored_tiles_go_on(store, tmp_path):
    with Processes(tmp_path, workers=1) as dask, Served(open_scene(store.path), dask.address) as explorer:
        explorer.tile("/live/2/1/1?max_iter=9")
        with dask.client() as client:
            held = client.submit(hold, pure=False)
            poll(lambda: any(client.processing().values()), "the worker's wait")
            asked = explorer.ask("/live/2/2/1")
            poll(lambda: len(waiting_tiles(client)) == 1, "the tile on the scheduler")
            dask.scheduler.kill()
            answer = asked.getresponse()
            assert (answer.status, "was lost" in json.loads(answer.read())["error"]) == (503, True)
            asked.close()
            del held
        assert explorer.state()["cluster"]["state"] == "lost"
        assert explorer.error("/live/2/3/1")[0] == 503
        assert explorer.tile("/stored/0/0/0").all()
        assert explorer.get("/start", method="POST")[0] == 200
        poll(
            lambda: "nothing is listening" in explorer.state()["cluster"]["words"],
            "word of the second attempt",
            DEADLINE,
        )


# Tiles beyond binary64


def test_a_deep_tile_is_the_kernels_and_its_reference_is_computed_once(explorer):
    level = 270
    point = [Fraction(part) for part in PLACE]
    column, row = (int(part * 2**level // 1) for part in point)
    found = [
        explorer.both(f"/live/{level}/{column + n}/{row}?max_iter=40000&origin={level},{-n},0&proof=double-double")
        for n in (0, 1)
    ]
    references = list(explorer.live.references.futures)
    assert references == [(Origin(level, column, row), 65536)]
    tile = deep_tile(level, column + 1, row, f"{level},5,-3", "none")  # from another origin
    reference = deep.reference_orbit(tile.origin.point, tile.origin.unit, 40000)
    offsets = tile.offsets()[::32, ::32]
    wanted = deep.DeepFunction(40000, ("escape_time",), deep.Held(reference))(offsets)
    np.testing.assert_array_equal(found[1][0][::32, ::32], wanted)
    assert len(np.unique(wanted)) > 10


# What is refused


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/stored/9/0/0", 400, "the store has the levels 0 to 2; got 9"),
        ("/stored/0/3/0", 400, "level 0 has 3 x 4 windows of 256; got row 3"),
        ("/stored/0/0/9999999999", 400, "level 0 has 3 x 4 windows"),
        ("/stored/0/-1/0", 404, "no such page"),
        ("/live/0/2000/0", 400, "live tiles lie within -1024 and 1024"),
        (f"/live/70/{2**69}/1", 400, "too deep for binary64"),
        ("/live/1001/1/1", 400, "levels of live tiles go from -8 to 1000"),
        ("/live/999/" + "9" * 400 + "/1", 400, "live tiles lie within"),
        ("/live/0/" + "9" * 4301 + "/1", 404, "no such page"),
        ("/live/14101/1/1?origin=14101,0,0&proof=none", 400, "levels of live tiles go from -8 to 14100"),
        ("/live/90/1/1?origin=90,0&proof=none", 400, "an origin LEVEL,X,Y"),
        ("/live/90/1/1?origin=90,0,0&proof=all", 400, "a proof of none, double-double"),
        ("/live/90/1/1?origin=9000,0,0&proof=none", 400, "within 64 levels of its tiles"),
        (f"/live/90/1/1?origin=90,{2**60},0&proof=none", 400, "within 2^52 half samples"),
        ("/live/0/0/0?max_iter=1000001", 400, "from 1 to 1000000; got '1000001'"),
        ("/live/0/0/0?max_iter=0", 400, "from 1 to 1000000"),
        ("/live/0/0/0?max_iter=1e3", 400, "from 1 to 1000000"),
        ("/live/0/0/0?max_iter=" + "9" * 900, 400, "from 1 to 1000000"),
        ("/live/a/0/0", 404, "no such page"),
        ("/../README.md", 404, "no such page"),
        ("/page/main.js", 404, "no such page"),
        ("/nothing.js", 404, "no such page"),
    ],
)
def test_a_request_that_makes_no_sense_gets_a_message(explorer, path, status, said):
    found, words = explorer.error(path)
    assert found == status
    assert said in words
    assert len(words) < 700


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Host": "evil.example"}, "/", 421),
        ({"Host": "evil.example:80"}, "/state", 421),
        ({"Origin": "http://evil.example"}, "/live/0/0/0", 403),
        ({"Origin": "null"}, "/state", 403),
        ({"Sec_Fetch_Site": "cross-site"}, "/live/0/0/0", 403),
        ({"Sec_Fetch_Site": "same-site"}, "/scene", 403),
        ({"Sec_Fetch_Site": "cross-site"}, "/", 200),
        ({"Sec_Fetch_Site": "same-origin"}, "/state", 200),
    ],
)
def test_pages_of_other_sites_and_other_names_are_refused(explorer, headers, path, status):
    assert explorer.get(path, **headers)[0] == status


def test_another_sites_page_starts_no_job(explorer):
    body = json.dumps({"name": "x", "description": {}})
    assert explorer.error("/render", method="POST", body=body, Content_Type="text/plain")[0] == 415
    refused = explorer.error("/render", method="POST", body=body, Content_Type="application/json", Origin="http://a.b")
    assert refused[0] == 403


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "no view to render"),
        ("[]", "no view to render"),
        ("[" * 60_000, "no view to render"),
        (json.dumps({"name": "../x", "description": {}}), "a store's name has letters"),
        (json.dumps({"name": "x", "description": {"max_iter": 5}}), "view is missing"),
        (
            json.dumps(
                {"name": "x", "description": {"max_iter": 5, "view": {"x": [0, 1], "y": [0, 1], "shape": [10**6] * 2}}}
            ),
            "up to 17179869184 samples",
        ),
    ],
)
def test_a_view_that_cannot_be_rendered_is_refused(explorer, body, said):
    status, words = explorer.error("/render", method="POST", body=body, Content_Type="application/json")
    assert status == 400
    assert said in words


def test_every_answer_carries_the_policy(explorer):
    for path in ("/", "/main.js", "/scene", "/stored/0/0/0", "/nowhere"):
        _, headers, _ = explorer.get(path)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Server" not in headers


def test_the_page_names_nothing_outside():
    page = Path(live_module.__file__).parent / "page"
    for path in page.iterdir():
        outside = re.findall(r"""["'(]((?:https?:)?//[^"')\s]+)""", path.read_text())
        assert set(outside) <= {"http://www.w3.org/2000/svg"}, path


# The queue


def test_the_cache_of_live_tiles_is_bounded(monkeypatch):
    monkeypatch.setattr(live_module, "CACHE_BYTES", 10)
    live = LiveTiles(LocalCluster(workers=1), "numpy")
    requests = [(live_view(0, n, 0), 10) for n in range(4)]
    for request in requests:
        live.cache[request] = tiles.PackedTile(b"1234", False, "uint8", (2, 2), False)
    assert list(live.cache) == requests[2:]


def test_while_the_workers_start_a_tile_at_a_time_is_computed_here():
    async def ask():
        live = LiveTiles(LocalCluster(workers=1), "numba")
        live.state = "starting"  # and never gets further
        return await asyncio.wait_for(live.tile(live_view(0, -1, 0), 50), DEADLINE), live.computed

    packed, computed = asyncio.run(ask())
    assert packed == tiles.compute_tile(live_view(0, -1, 0), 50, "numpy")
    assert computed == 0, "by no worker"


def test_a_cluster_that_cannot_be_started_says_so_and_may_be_tried_again():
    async def ask():
        live = LiveTiles(SchedulerAddress(kind="address", address="tcp://127.0.0.1:1"), "numpy")
        said = []
        for _ in range(2):
            with pytest.raises(md.ClusterError) as caught:
                await asyncio.wait_for(live.tile(live_view(0, 0, 0), 10), DEADLINE)
            said.append(str(caught.value))
            live.start()
            await asyncio.wait_for(live._starting, DEADLINE)
        await live.close()
        return said

    assert all("nothing is listening on tcp://127.0.0.1:1" in words for words in asyncio.run(ask()))


# The command


def test_a_run_description_is_shown_without_its_store_and_with_it(client, store, tmp_path):
    config = tmp_path / "field.yaml"
    config.write_text(json.dumps(FIELD | {"store": str(tmp_path / "there.zarr")}))
    with Served(open_scene(str(config)), client.scheduler.address) as explorer:
        scene = json.loads(explorer.get("/scene")[2])
        assert (scene["name"], scene["stored"], scene["x"]) == ("field.yaml", False, ["-2", "1"])
        assert explorer.error("/stored/0/0/0") == (400, "no store is shown")
        assert explorer.tile("/live/0/0/0?max_iter=10").shape == (SIDE, SIDE)
    (tmp_path / "there.zarr").symlink_to(store.path)
    assert open_scene(str(config)).tiles() == open_scene(store.path).tiles() == (17, 17)
    config.write_text(json.dumps(FIELD | {"max_iter": 7, "store": str(tmp_path / "there.zarr")}))
    other = open_scene(str(config))
    assert (other.store, other.max_iter, "max_iter is 300 there, 7 here. `mandeldask explore " in other.note) == (
        None,
        7,
        True,
    )


def call(*words):
    result = CliRunner().invoke(cli, ["explore", *map(str, words), "--no-browser"], prog_name="mandeldask")
    return result.exit_code, result.output


def test_what_cannot_be_shown_ends_with_a_line(tmp_path, copy, monkeypatch):
    monkeypatch.chdir(tmp_path)
    foreign = tmp_path / "foreign.zarr"
    foreign.mkdir()
    (foreign / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    assert call(foreign) == (
        3,
        f"mandeldask: {foreign} is not a store of mandeldask: its root carries no field description\n",
    )
    code, said = call(tmp_path / "none.zarr")
    assert (code, "no store at" in said) == (3, True)
    code, said = call(tmp_path / "none.yaml")
    assert (code, "no such file" in said) == (2, True)
    (tmp_path / "bad.yaml").write_text("max_iter: 5")
    code, said = call(tmp_path / "bad.yaml")
    assert (code, "view is missing" in said) == (2, True)
    (tmp_path / "turned.yaml").write_text(
        json.dumps({"view": {"centre": [0, 0], "span": 3, "rotation": 30, "shape": [30, 30]}, "max_iter": 7})
    )
    code, said = call(tmp_path / "turned.yaml")
    assert (code, "shows upright rectangles" in said, "turned by 30 degrees" in said) == (2, True, True)
    assert call(copy, "--workers", "0", "--cluster", "local")[0] == 2
    assert call("a" * 5000)[0] == 3


def test_a_port_that_is_taken_is_named(store):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = call(store.path, "--port", port)
    assert (code, f"cannot listen on port {port}: Address already in use" in said) == (2, True)


def test_ctrl_c_ends_the_explorer_and_its_workers(store, tmp_path):
    with Explorer(store.path, tmp_path, "--workers", "1") as explorer:
        view = live_view(*map(int, SEAHORSE.split("/")))
        c = view.block((0, SIDE), (0, SIDE))
        np.testing.assert_array_equal(explorer.tile(f"/live/{SEAHORSE}?max_iter=60"), KERNELS["numpy"](60)(c))
        family = psutil.Process(explorer.process.pid).children(recursive=True)
        assert family
        assert set(listening([explorer.process.pid])) == {"127.0.0.1"}
        explorer.process.send_signal(signal.SIGINT)
        assert explorer.process.wait(timeout=DEADLINE) == 0
        assert psutil.wait_procs(family, timeout=DEADLINE)[1] == []
        assert "Traceback" not in explorer.log.read_text()


def test_connections_beyond_the_file_descriptors_are_one_line_and_are_served_later(store, tmp_path):
    with Explorer(store.path, tmp_path, "--cluster", f"tcp://127.0.0.1:{free_port()}") as explorer:
        before = psutil.Process(explorer.process.pid).num_fds()
        resource.prlimit(explorer.process.pid, resource.RLIMIT_NOFILE, (before + 8, before + 8))
        taken = [socket.create_connection(("127.0.0.1", explorer.port)) for _ in range(40)]
        poll(lambda: "no file descriptor is left" in explorer.log.read_text(), "the line", DEADLINE)
        for connection in taken:
            connection.close()
        assert explorer.get("/")[0] == 200
    assert explorer.log.read_text().count("mandeldask: no file descriptor is left") == 1
    assert "Traceback" not in explorer.log.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explore", "lesson", "--workers", "100000"], "100000 workers need .* and this machine has .*: use at most"),
        (["run", "lesson", "--set", "cluster.workers=100000"], "100000 workers need .*: use at most"),
        (["explore", "small.yaml"], "a tile of 256 x 256 needs about .* Use fewer workers with more memory each"),
    ],
)
def test_workers_without_enough_memory_are_refused_before_they_start(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mandeldask.explorer.serve", lambda *_: pytest.fail("it is served"))
    (tmp_path / "small.yaml").write_text(json.dumps(FIELD | {"cluster": {"workers": 1, "memory_limit": "100MiB"}}))
    result = CliRunner().invoke(cli, words, prog_name="mandeldask")
    assert (result.exit_code, bool(re.search(message, result.output))) == (5, True), result.output
    assert result.output.splitlines()[-1].startswith("mandeldask: ")


def executing(dask_worker):
    """On a worker: how many tasks it is at; one that has begun is finished, though its job was stopped."""
    return len(dask_worker.state.executing)


def test_a_rendering_that_is_stopped_says_so_and_keeps_what_is_done(client, store, tmp_path):
    config = tmp_path / "field.yaml"
    config.write_text(json.dumps(FIELD | {"store": str(tmp_path / "none.zarr")}))
    body = json.dumps({"name": "made", "description": {key: FIELD[key] for key in ("view", "max_iter", "tile")}})
    with Served(open_scene(str(config)), client.scheduler.address) as explorer:
        with workers_held(client):
            assert explorer.get("/render", method="POST", body=body, Content_Type="application/json")[0] == 200
            poll(lambda: explorer.state()["rendering"]["words"] == "computing", "the job", DEADLINE)
            status, said = explorer.error("/render", method="POST", body=body, Content_Type="application/json")
            assert (status, "is being rendered already" in said) == (400, True)
            assert explorer.get("/render", method="DELETE")[0] == 200
            assert explorer.state()["rendering"]["words"] == "stopping with the tiles at work"
        poll(lambda: explorer.state()["rendering"]["state"] == "failed", "the end of the job", DEADLINE)
        assert "stopped; what is done is in" in explorer.state()["rendering"]["words"]
    poll(lambda: not any(client.run(executing).values()), "the end of the tiles that workers had begun", DEADLINE)
    left = open_store(tmp_path / "made.zarr")
    done = int(left.done().sum())
    summary = md.resume(left.path, client=client)
    assert (done + summary.computed, left.done().all()) == (left.done().size, True)
