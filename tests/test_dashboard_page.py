"""The page of the dashboard in a real browser, while real jobs run."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace

import faults
import numpy as np
import pytest
from browser import Visit, chromium
from services import DEADLINE, ENV, Processes, poll

import mandeldask as md
from mandeldask import cluster as clusters
from mandeldask import dashboard
from mandeldask.config import LocalCluster
from mandeldask.dashboard.page import _JobPage
from mandeldask.image import palette_index
from mandeldask.store import open_store
from mandeldask.telemetry import TOPIC, DriverEvent, JobInfo, Preview, TileEvent

pytestmark = pytest.mark.once  # another Python and zarr change little here

FIELD = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [900, 1100]}, "max_iter": 200, "tile": [150, 200]}
TILES = 36
UNIT = {"view": {"x": [0, 1], "y": [0, 1], "shape": [100, 120]}, "max_iter": 50, "tile": [25, 40], "kernel": "faulty"}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def client():
    """A cluster of its own: these tests look at all that a scheduler knows."""
    with clusters.connect(LocalCluster(workers=2, memory_limit="2GiB")) as client:
        client.wait_for_workers(2, timeout=60)
        assert dashboard.install(client) == ""
        yield client


@pytest.fixture
def visit(browser):
    """Open pages; nothing may have gone wrong in any of them."""
    visits = []

    def open_page(link, **options):
        visits.append(Visit(browser, link, **options))
        return visits[-1]

    yield open_page
    complaints = [complaint for visit in visits for complaint in visit.complaints]
    for visit in visits:
        visit.tab.close()
    assert complaints == []


@pytest.fixture
def kernel(request):
    """Install `before` as the kernel "faulty" of this process, for one test."""

    def install(before):
        faults.install("faulty", before)
        request.addfinalizer(lambda: faults.remove("faulty"))
        return "faulty"

    return install


class Job(threading.Thread):
    """md.run beside the test; ended by the test's end."""

    def __init__(self, *args, **options):
        super().__init__(daemon=True)
        self.call = partial(md.run, *args, **options)
        self.started = threading.Event()
        self.start()

    def run(self):
        self.summary = self.call(tell=self._tell)

    def _tell(self, event):
        if type(event).__name__ == "Started":
            self.started.set()


def stored(path):
    """The picture that a page is to show of a store: its samples at the stride, coloured."""
    store = open_store(path)
    grid = Preview(store.description.shape, store.description.tile, store.description.max_iter)
    samples = store.escape_time[:: grid.stride, :: grid.stride]
    known = samples[samples > 0]
    return palette_index(known[:: 1 + known.size // 2**15], store.description.max_iter)(samples)


def picture(page):
    shape, samples = page.tab.evaluate(IMAGE)
    return np.frombuffer(base64.b64decode(samples), np.uint8).reshape(shape)


IMAGE = """() => {
    const [image] = Bokeh.documents[0].get_model_by_name("image").data.image;
    const raw = new Uint8Array(image);
    let bytes = "";
    for (let i = 0; i < raw.length; i += 8192) bytes += String.fromCharCode(...raw.subarray(i, i + 8192));
    return [image.shape, btoa(bytes)];
}"""


def test_the_navigation_bar_links_the_page_and_the_page_waits_for_a_job(client, visit, browser):
    status = Visit(browser, str(client.dashboard_link))
    status.tab.get_by_role("link", name="Mandeldask").click()
    status.tab.wait_for_url("**/mandeldask")
    status.tab.close()
    page = visit(dashboard.page_of(client)[0])
    page.has("heading", "No job yet")
    fits(page)


def fits(page):
    """Nothing overlaps, is cut or leaves the window, at any width."""
    for width in (420, 768, 820, 1024, 1280, 1440, 1920, 2560):
        page.tab.set_viewport_size({"width": width, "height": 900})
        try:
            page.tab.wait_for_function(f"({MISFITS})().length == 0", timeout=10000)
        except Exception as error:
            raise AssertionError(f"at {width} pixels: {page.tab.evaluate(MISFITS)}") from error


MISFITS = """() => {
    const box = (element) => element.getBoundingClientRect();
    const meet = (a, b) => a.width * a.height * b.width * b.height > 0 && a.left < b.right - 1 &&
        b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
    const overlaps = (named) => named.flatMap(([name, a], k) =>
        named.slice(k + 1).filter(([, b]) => meet(box(a), box(b))).map(([other]) => `${name} on ${other}`));
    const inside = (root) => Array.from(root.querySelectorAll("*")).flatMap((element) =>
        [element, ...(element.shadowRoot ? inside(element.shadowRoot) : [])]);
    const view = (name) => Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name(name).id).el;
    const blocks = ["job", "view", "tile", "frame", "legend", "side"].map((name) => [name, view(name)]);
    blocks.push(["navigation", document.querySelector(".navbar")]);
    const elements = blocks.flatMap(([, block]) => [block, ...(block.shadowRoot ? inside(block.shadowRoot) : [])]);
    const label = (element) => `${element.tagName} ${element.textContent.trim().slice(0, 40)}`;
    const ticks = elements.filter((element) => element.matches(".tick span")).map((tick) => [label(tick), tick]);
    const pen = document.createElement("canvas").getContext("2d");
    const wide = (input) => {
        const { font, paddingLeft } = getComputedStyle(input);
        pen.font = font;
        return pen.measureText(input.placeholder).width + 2 * parseFloat(paddingLeft);
    };
    const texts = elements.filter((element) => (element.textContent.trim() || element.placeholder) &&
        !element.matches(".tick, select, style"));
    const cut = texts.filter((element) => box(element).width &&
        (box(element).right > innerWidth + 1 || element.scrollWidth > element.clientWidth + 1 && element.clientWidth ||
            element.placeholder && wide(element) > element.clientWidth));
    return [...overlaps(blocks), ...overlaps(ticks), ...cut.map(label)];
}"""


def heard(*jobs):
    """A page of a scheduler that was told of one tile of each job, a name and its worker."""
    plugin = dashboard.Plugin()
    for k, (name, worker) in enumerate(jobs):
        job = JobInfo(f"{k:08x}", name, "r", "numpy", k + 1, (100, 120), (100, 120), 50, (0.0, 1.0), (0.0, 1.0))
        plugin.log_event(TOPIC, asdict(DriverEvent(job)))
        tile = TileEvent(job.id, (0, 0), 0.1, 100 * 120, 1, 1, worker, bytes([1]) * 100 * 120)
        plugin.log_event(TOPIC, tile._asdict())
    page = _JobPage(SimpleNamespace(plugins={"mandeldask": plugin}, workers={}))
    page.update()
    return page, plugin.jobs


def test_hovering_names_the_workers_of_the_job_that_is_shown():
    page, jobs = heard(("first", "tcp://a:1"), ("second", "tcp://b:1"))
    assert page.field.hovers["@worker"].args["workers"] == ["tcp://b:1"]
    page.choice.value = next(iter(jobs))
    page.update()
    assert "first" in page.divs["heading"].text
    assert page.field.hovers["@worker"].args["workers"] == ["tcp://a:1"]


def test_a_job_is_seen_from_its_first_tile_to_the_picture_of_the_store(client, visit, tmp_path, kernel):
    name = kernel(partial(faults.count, path=str(tmp_path / "calls")))
    page = visit(dashboard.page_of(client)[0])
    with faults.held(tmp_path / "calls", after=8):
        job = Job(FIELD | {"kernel": name}, tmp_path / "a.zarr", client=client)
        page.has("heading", "a.zarr")
        page.has("figures", "running")
        page.tab.wait_for_function("Bokeh.documents[0].get_model_by_name('running').data.left.length > 0")
        page.shot("running")
        late = visit(dashboard.page_of(client)[0], theme="dark")
        late.has("heading", "a.zarr")
        late.has("figures", "running")
    job.join()
    for each in (page, late):
        each.has("figures", "finished")
        each.has("figures", f"{TILES} of {TILES}")
        poll(lambda each=each: np.array_equal(picture(each), stored(tmp_path / "a.zarr")), "the stored picture")
        assert each.column("running", "left") == []
    late.shot("finished-dark")
    after = visit(dashboard.page_of(client)[0])
    assert np.array_equal(picture(after), stored(tmp_path / "a.zarr"))
    done = after.column("tiles", "state")[0]
    assert (done["shape"], set(done["values"])) == ([6, 6], {3})
    assert after.column("tiles", "seconds")[0]["values"] == pytest.approx(
        open_store(tmp_path / "a.zarr").read_tiles()["seconds"].ravel(), rel=1e-6
    )


def test_every_view_shows_the_tiles_and_hover_and_click_tell_their_facts(client, visit, tmp_path):
    md.run(FIELD | {"kernel": "numba"}, tmp_path / "views.zarr", client=client)
    page = visit(dashboard.page_of(client)[0])
    page.has("heading", "views.zarr")
    for view, is_right in RIGHT.items():
        page.choose(view)
        page.has("legend", LEGENDS[view])
        poll(lambda is_right=is_right: is_right(picture(page), tmp_path / "views.zarr"), f"the {view}")
        page.shot(f"view-{view.replace(' ', '-')}")
    box = page.tab.evaluate(FRAME)
    at = {"x": box["x"] + 0.4 * box["width"], "y": box["y"] + 0.6 * box["height"]}
    page.tab.mouse.move(**at)
    told = poll(lambda: page.tab.evaluate(TOOLTIP), "the tooltip")
    assert "tile:2,2" in told
    assert "state:done" in told
    assert "custom" not in told
    page.shot("hover")
    fits(page)
    box = page.tab.evaluate(FRAME)
    at = {"x": box["x"] + 0.4 * box["width"], "y": box["y"] + 0.6 * box["height"]}
    page.tab.mouse.click(**at)
    page.has("facts", "Tile 2,2")
    page.has("facts", "rows 300 to 449, columns 400 to 599")
    page.tab.get_by_label("Look at tile").fill("5,0")
    page.tab.get_by_label("Look at tile").press("Enter")
    page.has("facts", "Tile 5,0")
    page.tab.get_by_label("Look at tile").fill("<b>6,6</b>")
    page.tab.get_by_label("Look at tile").press("Enter")
    page.has("facts", "There is no tile <b>6,6</b>")


def is_by_tile(shown, path):
    """One value a tile, and not the same for all; the stride is 3, tiles are 50 x 66 or 67 of the picture's samples."""
    by_tile = {(i, j): shown[Preview(*SHAPES, 200).cells((i, j))] for i in range(6) for j in range(6)}
    return all(part.min() == part.max() > 0 for part in by_tile.values()) and shown.min() < shown.max()


SHAPES = tuple(FIELD["view"]["shape"]), tuple(FIELD["tile"])
RIGHT = {
    "state": lambda shown, path: set(np.unique(shown)) == {3},
    "worker": lambda shown, path: set(np.unique(shown)) <= {1, 2},
    "seconds": is_by_tile,
    "mean escape time": is_by_tile,
    "picture": lambda shown, path: np.array_equal(shown, stored(path)),
}
LEGENDS = {
    "state": "by its state",
    "worker": "by the worker",
    "seconds": "kernel time of each tile",
    "mean escape time": "mean escape time of each tile",
    "picture": "not escaped within 200",
}
TOOLTIP = """() => {
    const found = (root) => Array.from(root.querySelectorAll("*")).flatMap((element) =>
        [...(element.matches(".bk-Tooltip, .bk-tooltip") ? [element] : []),
            ...(element.shadowRoot ? found(element.shadowRoot) : [])]);
    return found(document).map((element) => (element.shadowRoot ?? element).textContent).join("").replace(/\\s+/g, "");
}"""
FRAME = """() => {
    const view = Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name("frame").id);
    const place = view.el.getBoundingClientRect(), box = view.frame.bbox;
    const [x0, x1] = view.frame.x_scale.r_compute(0, 1100), [y0, y1] = view.frame.y_scale.r_compute(0, 900);
    return {x: place.x + x0, y: place.y + Math.min(y0, y1), width: x1 - x0, height: Math.abs(y1 - y0)};
}"""


def test_failed_tiles_are_marked_and_hostile_texts_are_text(client, visit, tmp_path, kernel):
    name = kernel(partial(faults.fail_first, path=str(tmp_path / "calls"), times=10**9))
    hostile = tmp_path / "<script>alert(1)<b>bold <img src=x onerror=alert(1)> $$x$$.zarr"
    summary = md.run(UNIT | {"kernel": name}, hostile, client=client)
    assert summary.failed == 1
    page = visit(dashboard.page_of(client)[0])
    page.has("heading", "<script>alert(1)<b>bold <img src=x onerror=alert(1)> $$x$$.zarr")
    page.has("failures", "ArithmeticError: the tile at the corner <b>failed</b>")
    page.has("figures", "incomplete: 1 tile failed")
    assert page.column("labels", "text") == ["✕"]
    assert page.tab.locator("mjx-container").count() == 0
    page.shot("failed")


def test_a_hostile_worker_name_is_text(visit, tmp_path):
    name = "<img src=x onerror=alert(1)><b>w</b>" + 3 * "-of-a-long-name"
    with Processes(tmp_path / "dask", workers=0) as dask:
        dask.start_worker("--no-nanny", "--name", name)
        dask.wait()
        with dask.client() as client:
            assert dashboard.install(client) == ""
            md.run(UNIT | {"kernel": "numpy"}, tmp_path / "a.zarr", client=client)
            page = visit(dashboard.page_of(client)[0])
            page.has("workers", name)
            fits(page)
            assert "Traceback" not in dask.log(dask.scheduler)


def test_a_worker_killed_in_mid_run_leaves_all_tiles_done(visit, tmp_path, kernel):
    """On a scheduler in a process of its own, where what the dead worker had in hand is computed again."""
    faulty = kernel(partial(faults.count, path=str(tmp_path / "calls")))
    with Processes(tmp_path / "dask", workers=3) as dask, dask.client() as client:
        assert dashboard.install(client) == ""
        page = visit(dashboard.page_of(client)[0])
        with faults.held(tmp_path / "calls", after=12):
            job = Job(FIELD | {"kernel": faulty}, tmp_path / "a.zarr", client=client)
            poll(lambda: len(faults.counted(tmp_path / "calls")) >= 15, "a tile in work on each worker")
            dask.workers[0].kill()
            poll(lambda: len(client.nthreads()) == 2, "the loss of the worker")
        job.join()
        assert job.summary.failed == 0
        page.has("figures", f"{TILES} of {TILES}")
        page.has("figures", "finished")
        page.has("workers", "1 worker of this job no longer connected")
        poll(lambda: np.array_equal(picture(page), stored(tmp_path / "a.zarr")), "the stored picture")
        page.shot("worker-killed")


def test_a_submitted_job_is_seen_under_its_name(visit, tmp_path):
    """Its driver is a task on a worker; the command that submitted it has printed the link, and is gone."""
    with Processes(tmp_path / "dask", workers=2) as dask:
        (tmp_path / "a.yaml").write_text(json.dumps(FIELD | {"kernel": "numpy"}))
        command = [sys.executable, "-m", "mandeldask", "submit", tmp_path / "a.yaml", "--out", tmp_path / "a.zarr"]
        command += ["--cluster", dask.address, "--name", "a-job", "--json"]
        done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=True)
        page = visit(json.loads(done.stdout)["dashboard"])
        page.has("heading", "a-job")
        page.has("figures", "finished")
        poll(lambda: np.array_equal(picture(page), stored(tmp_path / "a.zarr")), "the stored picture")


def test_of_two_jobs_at_once_each_is_shown_when_chosen(client, visit, tmp_path, kernel):
    faulty = kernel(partial(faults.count, path=str(tmp_path / "calls")))
    page = visit(dashboard.page_of(client)[0])
    with client.__class__(client.scheduler.address) as other:
        with faults.held(tmp_path / "calls"):
            jobs = [
                Job(FIELD | {"kernel": faulty, "max_iter": 100 + n}, tmp_path / f"two-{n}.zarr", client=c)
                for n, c in enumerate((client, other))
            ]
            assert all(job.started.wait(DEADLINE) for job in jobs)
        for job in jobs:
            job.join()
    for n in range(2):
        poll(lambda n=n: page.tab.evaluate(OPTION, f"two-{n}.zarr"), "the choice of jobs")
        page.tab.get_by_label("Job").select_option(label=page.tab.evaluate(OPTION, f"two-{n}.zarr"))
        page.has("heading", f"two-{n}.zarr")
        page.has("figures", f"{TILES} of {TILES}")
        poll(lambda n=n: np.array_equal(picture(page), stored(tmp_path / f"two-{n}.zarr")), "its picture")


OPTION = """(name) => {
    const options = Bokeh.documents[0].get_model_by_name("job").options;
    return options.find(([value, label]) => label.startsWith(name))?.[1];
}"""


def test_a_preloaded_scheduler_shows_a_resumed_job_whole(visit, tmp_path):
    """Tiles of an earlier run, elsewhere, are in their mean colour; those of this run sample by sample."""
    with clusters.connect(LocalCluster(workers=1)) as elsewhere:
        md.run(FIELD | {"kernel": "numba"}, tmp_path / "a.zarr", client=elsewhere)
    (tmp_path / "a.zarr/0/escape_time/c/1/1").unlink()
    with Processes(tmp_path / "dask", workers=0) as dask:
        preloaded = dask.start(
            "distributed.cli.dask_scheduler",
            *["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"],
            *["--scheduler-file", tmp_path / "preloaded.json", "--preload", "mandeldask.dashboard"],
        )
        poll((tmp_path / "preloaded.json").exists, dask.log(preloaded) or "the scheduler's file")
        dask.file = tmp_path / "preloaded.json"
        dask.start_worker("--no-nanny")
        dask.wait()
        with dask.client() as client:
            assert md.resume(tmp_path / "a.zarr", client=client).computed == 1
            page = visit(dashboard.page_of(client, add=False)[0])
            page.has("figures", f"{TILES} of {TILES}")
            state = page.column("tiles", "state")[0]["values"]
            assert state == [3] * TILES
            assert (picture(page) > 0).all()
