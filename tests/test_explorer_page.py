"""The explorer in a real browser: what is seen, what is asked for, what is said when things go wrong."""

from __future__ import annotations

import base64
import io
import shutil
from fractions import Fraction
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import Tab, chromium
from explored import DEADLINE, PLACE, Served, waiting_tiles, workers_held
from PIL import Image
from services import free_port, poll

import mandeldask as md
from mandeldask import config as configs
from mandeldask.explorer import open_scene, tiles
from mandeldask.explorer.deep import deep_tile
from mandeldask.explorer.tiles import SIDE, live_view
from mandeldask.kernels import KERNELS, deep
from mandeldask.store import open_store

pytestmark = pytest.mark.once  # another Python and zarr change little here

FIELD = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [2000, 2000]}, "max_iter": 250, "tile": [512, 512]}
SMALL = {"width": 700, "height": 500}
SEAHORSES = "#re=-0.7463&im=0.1102&span=0.005&n=400"


@pytest.fixture(scope="module")
def store(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "set.zarr"
    md.run(FIELD | {"kernel": "numpy-compact"}, path, client=client)
    return open_store(path)


@pytest.fixture(scope="module")
def explorer(client, store):
    with Served(open_scene(store.path), client.scheduler.address, "numpy-compact") as explorer:
        yield explorer


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


class Visit(Tab):
    """The explorer's page; `asked` are the paths of the tiles that it asked for."""

    def __init__(self, browser, link, **options):
        self.asked = []
        super().__init__(browser, link, **options)
        poll(lambda: self.tab.evaluate("Boolean(window.explorer)"), "the page", DEADLINE)

    def _request(self, request):
        super()._request(request)
        path = urlsplit(request.url).path
        if path.startswith(("/stored", "/live")):
            self.asked.append(path)

    def sharp(self):
        """Wait until every tile is there, the colours are laid out and the link is written."""
        poll(lambda: self.tab.evaluate(SHARP), "a sharp view", DEADLINE)
        return self

    def refined(self):
        """Wait until the view has rested, and is drawn from tiles a level deeper."""
        poll(lambda: self.tab.evaluate("explorer.refined && explorer.finer.length > 0"), "a refined view", DEADLINE)
        return self

    def go(self, fragment):
        self.tab.evaluate("(to) => { location.hash = to; }", fragment)
        poll(lambda: self.tab.evaluate("location.hash") != fragment, "the view of the link", DEADLINE)
        return self.sharp()

    def view(self):
        """Centre and width, as numbers."""
        return [float(text) for text in self.tab.evaluate("explorer.view.toText()")]

    def says(self, words):
        poll(lambda: words in self.tab.inner_text("#messages"), words, DEADLINE)

    def pixels(self):
        """The canvas, rows from the top."""
        url = self.tab.evaluate("document.getElementById('plane').toDataURL()")
        return rgba(io.BytesIO(base64.b64decode(url.partition(",")[2])))

    def counts(self, select, most=100):
        """Tiles that the page holds whose keys hold a text, the latest: key -> samples."""
        found = {}
        for key, rows, data in self.tab.evaluate(COUNTS, [select, most]):
            found[key] = np.frombuffer(base64.b64decode(data), "<u4").reshape(rows, -1)
        return found


SHARP = """async () => {
    const steady = () => explorer.sharp() && location.hash.includes("re=");
    if (!steady()) return false;
    const was = location.hash;
    await new Promise((done) => setTimeout(done, 300));  // the link is written 250 ms after the last frame
    return steady() && was === location.hash;
}"""
COUNTS = """([select, most]) => [...explorer.tiles.cache].filter(([key]) => key.includes(select)).slice(-most)
    .map(([key, tile]) => {
        const bytes = new Uint8Array(new Uint32Array(tile.counts).buffer);
        let text = "";
        for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
        return [key, tile.rows, btoa(text)];
    })"""


@pytest.fixture
def visit(browser, explorer):
    """Open pages; nothing may have gone wrong in any of them."""
    visits = []

    def open_page(fragment="", link=None, **options):
        visits.append(Visit(browser, (link or explorer.link) + fragment, **options))
        return visits[-1]

    yield open_page
    complaints = [complaint for visit in visits for complaint in visit.complaints]
    for visit in visits:
        visit.tab.close()
    assert complaints == []


def rgba(file):
    """The pixels of a PNG."""
    return np.asarray(Image.open(file).convert("RGBA")).view("<u4")[..., 0]


def kernel_at(path, max_iter):
    """The numbers of a live tile, by the reference kernel."""
    view = live_view(*map(int, path.split("/")[1:]))
    return KERNELS["numpy"](max_iter)(view.block((0, SIDE), (0, SIDE)))


def test_a_whole_store_is_shown_from_its_levels_and_wakes_nobody(browser, store, visit, client):
    with Served(open_scene(store.path), client.scheduler.address) as asleep:
        page = visit(link=asleep.link).sharp().refined()
        page.shot("explorer-home")
        assert page.asked and {path[:10] for path in page.asked} <= {"/stored/1/", "/stored/0/"}  # 0: at rest
        assert page.asked[0].startswith("/stored/1/")
        assert asleep.state()["cluster"]["state"] == "off"
        assert page.tab.inner_text("#cluster-words") == "not started"
    for key, counts in page.counts("stored").items():
        level, i, j = map(int, key.split("/")[1:])
        window = store.window(slice(i * SIDE, (i + 1) * SIDE), slice(j * SIDE, (j + 1) * SIDE), level)
        np.testing.assert_array_equal(counts, window)


def test_the_wheel_zooms_at_the_pointer_and_deeper_tiles_are_the_kernels_numbers(visit):
    page = visit("#re=-0.5&im=0&span=3&n=250").sharp()
    page.tab.mouse.move(500, 420)
    before, span = page.tab.evaluate("explorer.view.at(500, 420).map(explorer.number)"), page.view()[2]
    for _ in range(14):
        page.tab.mouse.wheel(0, -120)
    page.sharp()
    after = page.tab.evaluate("explorer.view.at(500, 420).map(explorer.number)")
    assert page.view()[2] < span / 10
    assert np.abs(np.subtract(before, after)).max() < 2 * page.view()[2] / 1000
    found = page.counts("live", 2)
    assert len(found) == 2
    for path, counts in found.items():
        np.testing.assert_array_equal(counts, kernel_at(path, 250))
    shown = page.tab.inner_text("#count").replace(",", "")
    re, im = page.tab.evaluate("explorer.view.at(500, 420).map(explorer.number)")
    side = 2.0 ** -max(int(key.split("/")[1]) for key in page.counts("live")) / SIDE  # of a sample's cell
    sample = complex((np.floor(re / side) + 0.5) * side, (np.floor(im / side) + 0.5) * side)
    count = KERNELS["numpy"](250)(np.array([[sample]])).item()
    assert shown == ("≥ 250 not escaped" if count == 250 else str(count))
    assert page.tab.inner_text("#kind") == "live"


def test_a_drag_moves_the_plane_with_the_pointer(visit):
    page = visit().sharp()
    before = page.tab.evaluate("explorer.view.at(600, 500).map(explorer.number)")
    page.tab.mouse.move(600, 500)
    page.tab.mouse.down()
    page.tab.mouse.move(640, 460, steps=4)
    page.tab.mouse.up()
    after = page.tab.evaluate("explorer.view.at(640, 460).map(explorer.number)")
    np.testing.assert_allclose(before, after, atol=1e-9)


def test_keys_move_and_zoom_and_lead_home(visit):
    page = visit().sharp()
    re, im, span = page.view()
    page.tab.keyboard.press("ArrowRight")
    page.tab.keyboard.press("ArrowUp")
    page.sharp()
    assert page.view() == pytest.approx([re + span / 8, im + span * 900 / 1400 / 8, span], rel=1e-4)
    page.tab.keyboard.press("+")
    page.sharp()
    assert page.view()[2] == pytest.approx(span / np.exp(0.5), rel=1e-3)
    page.tab.keyboard.press("-")
    page.tab.keyboard.press("0")
    page.sharp()
    assert page.view() == pytest.approx([re, im, span], abs=1e-6)
    page.tab.keyboard.press("o")
    assert page.tab.is_checked("#outlines")
    page.tab.keyboard.press("Tab")
    assert page.tab.evaluate("document.activeElement.tagName") in ("BUTTON", "SELECT")


def test_fingers_pinch_and_the_page_is_readable_on_a_phone(visit):
    page = visit(viewport={"width": 390, "height": 780}, device_scale_factor=3, has_touch=True, is_mobile=True).sharp()
    page.shot("explorer-phone")
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.tab.is_hidden("#panel")
    span = page.view()[2]
    touch = page.tab.context.new_cdp_session(page.tab)
    for kind, reach in (("touchStart", 30), ("touchMove", 60), ("touchMove", 120), ("touchEnd", None)):
        points = [] if reach is None else [{"x": 195 - reach, "y": 390, "id": 0}, {"x": 195 + reach, "y": 390, "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.sharp()
    assert page.view()[2] == pytest.approx(span / 4, rel=0.01)
    page.tab.tap("#toggle")
    page.shot("explorer-phone-panel")
    assert page.tab.is_visible("#map")


def test_colours_change_at_once_and_without_a_request(visit):
    page = visit().sharp().refined()
    asked, before = len(page.asked), page.pixels()
    changes = [
        ("#map", "viridis", "select"),
        ("#scale", "root", "select"),
        ("#phase", "70", "input"),
        ("#density", "50", "input"),
        ("#interior", "#204060", "input"),
    ]
    for selector, value, kind in changes:
        if kind == "select":
            page.tab.select_option(selector, value)
        else:
            page.tab.fill(selector, value)
        poll(lambda before=before: not np.array_equal(page.pixels(), before), f"a change by {selector}", DEADLINE)
        before = page.pixels()
    page.sharp()
    assert 0xFF604020 in page.pixels()
    assert len(page.asked) == asked


def test_the_first_view_is_smooth_and_bands_are_a_click_away(visit):
    page = visit("#re=-0.5&im=0.4&span=1.6", viewport=SMALL).refined()  # from level 0: no worker is needed
    smooth, asked = page.pixels(), len(page.asked)
    page.tab.uncheck("#smooth")
    poll(lambda: not np.array_equal(page.refined().pixels(), smooth), "another picture")
    bands = page.pixels()
    flat = [(pixels[:, 1:] == pixels[:, :-1]).mean() for pixels in (smooth, bands)]
    assert flat[0] + 0.05 < flat[1]
    page.tab.check("#smooth")
    poll(lambda: np.array_equal(page.pixels(), smooth), "the smooth colours")
    assert len(page.asked) == asked


def test_a_store_whose_orbits_are_too_long_to_follow_again_says_what_smooth_needs(visit, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_STEPS", 10)
    page = visit("#re=-0.5&im=0.5&span=1", viewport=SMALL).sharp()
    assert "Needs the field smooth, which this store lacks" in page.tab.inner_text("#smooth-note")


def test_a_view_that_rests_is_refined_until_it_is_moved(visit, explorer, client):
    page = visit("#re=-1.3&im=0.05&span=1", viewport=SMALL).sharp()  # the store's finest level
    assert explorer.get("/start", method="POST")[0] == 200
    poll(lambda: page.tab.evaluate("explorer.tiles.clusterOn"), "word of the workers", DEADLINE)
    with workers_held(client):
        page.go("#re=-1.2&im=0.05&span=1")
        poll(lambda: waiting_tiles(client), "finer tiles on the scheduler")
        coarse, cancelled = page.pixels(), explorer.state()["tiles"]["cancelled"]
        page.tab.keyboard.press("ArrowRight")
        page.tab.keyboard.press("ArrowLeft")
        poll(lambda: explorer.state()["tiles"]["cancelled"] > cancelled, "their end")
    page.refined()
    assert page.tab.evaluate("explorer.targets.every((t) => t.kind === 'stored')")
    assert page.tab.evaluate("explorer.finer.every((t) => t.kind === 'live' && t.level > explorer.view.level)")
    fine = page.pixels()
    assert not np.array_equal(fine, coarse)
    assert roughness(fine) < roughness(coarse)


def roughness(pixels):
    """How much neighbouring pixels differ, in the mean."""
    return np.abs(np.diff(pixels.view(np.uint8).reshape(*pixels.shape, 4).astype(int), axis=1)).mean()


def test_iterations_follow_the_depth_unless_they_are_fixed(visit):
    page = visit("#re=-1.4011552&im=0&span=3e-3", viewport=SMALL)  # deeper than the store
    page.sharp()
    followed = int(page.tab.input_value("#max-iter"))
    assert followed > 1000
    assert "&n=" not in page.tab.evaluate("location.hash")
    page.tab.fill("#max-iter", "300")
    page.tab.keyboard.press("Enter")
    page.sharp()
    assert not page.tab.is_checked("#automatic")
    assert "&n=300" in page.tab.evaluate("location.hash")
    page.tab.keyboard.press("Escape")
    page.tab.keyboard.press("0")
    page.sharp()
    assert page.tab.input_value("#max-iter") == "300"
    page.tab.check("#automatic")
    page.sharp()
    assert page.tab.input_value("#max-iter") == "250"  # the store's: its tiles serve
    assert page.tab.evaluate("explorer.targets.some((t) => t.kind === 'stored')")


def test_keys_work_after_a_click_on_any_control_but_are_typed_in_text(visit):
    page = visit().sharp()
    for control in ("#fit", "#smooth", "#density", "#outlines", "#max-iter-slider", "#map"):
        before = page.view()
        page.tab.dispatch_event(control, "pointerdown")
        page.tab.focus(control)
        page.tab.keyboard.press("ArrowRight")
        poll(lambda before=before: page.view() != before, f"the move after {control}", DEADLINE)
    page.sharp()
    before = page.view()
    page.tab.click("#render-name")
    page.tab.keyboard.type("f0-")
    assert page.tab.input_value("#render-name").count("f0-") == 1
    assert page.sharp().view() == before


def test_tiles_that_scroll_out_of_sight_are_cancelled_on_the_scheduler(visit, explorer, client):
    page = visit(SEAHORSES).sharp()
    with workers_held(client):
        page.tab.fill("#max-iter", "401")
        page.tab.keyboard.press("Enter")
        tiles = poll(lambda: waiting_tiles(client), "tiles on the scheduler")
        page.tab.evaluate("(to) => { location.hash = to; }", "#re=-0.5&im=0&span=2.4&n=250")
        # others follow: what rests is refined
        poll(lambda: not tiles & waiting_tiles(client), "the end of all of them")
    page.sharp()
    assert all(tile.startswith("stored") for tile in page.tab.evaluate("explorer.targets.map((t) => t.key)"))


def test_tiles_of_iterations_that_are_no_longer_wanted_are_cancelled(visit, explorer, client):
    page = visit(SEAHORSES).sharp()
    with workers_held(client):
        for max_iter in ("500000", "402"):
            cancelled = explorer.state()["tiles"]["cancelled"]
            page.tab.fill("#max-iter", max_iter)
            page.tab.keyboard.press("Enter")
            poll(lambda: waiting_tiles(client), "tiles on the scheduler")
        poll(lambda: explorer.state()["tiles"]["cancelled"] >= cancelled + 6, "the end of the dear ones")
    page.sharp()
    assert page.tab.evaluate("explorer.targets.every((t) => explorer.tiles.here(t).maxIter === 402)")


def test_a_link_restores_the_view_its_iterations_and_its_colours(visit):
    page = visit(SEAHORSES, viewport=SMALL).sharp()
    page.tab.select_option("#map", "magma")
    page.tab.mouse.wheel(0, -200)
    page.sharp().refined()
    link, picture = page.tab.evaluate("location.hash"), page.pixels()
    assert "map=magma" in link and "n=400" in link
    other = visit(link, viewport=SMALL).sharp().refined()
    assert other.tab.evaluate("location.hash") == link
    np.testing.assert_array_equal(other.pixels(), picture)
    page.shot("explorer-seahorses")


@pytest.mark.parametrize(
    "fragment", ["#re=x&im=1&span=1", "#re=1&im=1&span=0", "#n=-5&density=1e9&map=<b>", "#map=constructor", "#%%%"]
)
def test_a_link_that_makes_no_sense_shows_the_whole(visit, fragment):
    page = visit(fragment).sharp()
    assert page.view() == pytest.approx([-0.5, 0, 3.18 * 1400 / 900], rel=1e-3)
    assert page.tab.input_value("#max-iter") == "250"


def test_the_saved_config_has_the_numbers_of_the_view_to_the_bit(visit, tmp_path):
    page = visit(SEAHORSES).sharp()
    page.tab.select_option("#finer", "0")
    with page.tab.expect_download() as saved:
        page.tab.click("#save-config")
    path = tmp_path / saved.value.suggested_filename
    saved.value.save_as(path)
    config = configs.load(path)
    rows, columns = config.view.shape
    whole = KERNELS["numpy-compact"](config.max_iter)(config.view.block((0, rows), (0, columns)))
    compared = 0
    level = page.tab.evaluate("explorer.view.level")
    for key, counts in page.counts(f"live/{level}/").items():
        tile = live_view(*map(int, key.split("/")[1:]))
        (i, in_rows), (j, in_columns) = (places(config.view.axis(name), tile.axis(name)) for name in "yx")
        np.testing.assert_array_equal(whole[np.ix_(i, j)], counts[np.ix_(in_rows, in_columns)])
        compared += i.size * j.size
    assert compared == rows * columns


def places(axis, other):
    """Where the samples that two axes share are in each of them."""
    _, here, there = np.intersect1d(axis, other, assume_unique=True, return_indices=True)
    return here, there


def test_a_finer_config_has_its_samples_at_the_same_places(visit):
    page = visit(SEAHORSES).sharp()
    coarse, fine = (configs.parse(page.tab.evaluate(f"explorer.description({k})")).view for k in (0, 2))
    steps = [np.diff(view.axis("x")[:2])[0] for view in (coarse, fine)]
    assert steps[0] == 4 * steps[1]
    assert coarse.x[0] <= fine.x[0] < coarse.x[0] + steps[0]
    assert coarse.y[1] - steps[0] < fine.y[1] <= coarse.y[1]


def test_the_picture_that_is_saved_is_the_canvas(visit, tmp_path):
    page = visit(SEAHORSES, viewport=SMALL).sharp().refined()
    with page.tab.expect_download() as saved:
        page.tab.click("#save-picture")
    saved.value.save_as(tmp_path / "view.png")
    np.testing.assert_array_equal(rgba(tmp_path / "view.png"), page.pixels())


def test_a_view_within_the_set_is_said_to_be_so_until_that_is_closed(visit):
    page = visit("#re=-0.1&im=0&span=0.01&n=300", viewport={"width": 1280, "height": 800}).sharp()
    page.says("No sample in view escapes within 300 iterations")
    page.shot("explorer-inside")
    page.tab.click("#messages .close")
    page.tab.keyboard.press("ArrowRight")
    page.sharp()
    assert not page.tab.inner_text("#messages")
    panel = "(({ scrollHeight, clientHeight }) => scrollHeight <= clientHeight)(document.getElementById('panel'))"
    assert page.tab.evaluate(panel), "all controls are in sight"


@pytest.mark.parametrize("more", ["", "&scale=root&density=2.5", "&scale=linear&density=7", "&smooth=false"])
def test_the_saved_config_has_the_colours_on_screen(visit, tmp_path, more):
    page = visit(f"{SEAHORSES}&map=magma&phase=0.3{more}", viewport=SMALL).sharp()
    look = page.tab.evaluate("explorer.description().picture")
    path, shown = page.tab.evaluate(COLOURED)
    md.picture(live_view(*map(int, path.split("/")[1:])), max_iter=400, **look).save(tmp_path / "tile.png")
    drawn = rgba(tmp_path / "tile.png").view(np.uint8).reshape(SIDE, SIDE, 4)[..., :3]
    shown = np.frombuffer(base64.b64decode(shown), np.uint8).reshape(SIDE, SIDE, 4)[..., :3]
    differ = np.abs(drawn.astype(int) - shown).max(axis=2)
    assert differ.mean() < 1 and np.quantile(differ, 0.999) < 8  # of 255: a picture of counts has 254 colours


COLOURED = """() => {
    const tile = explorer.tiles.here(explorer.targets.find((t) => t.kind === "live"));
    const canvas = explorer.colours.picture(tile);
    const { data } = canvas.getContext("2d").getImageData(0, 0, tile.columns, tile.rows);
    let text = "";
    for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
    return [tile.key, btoa(text)];
}"""


def test_the_last_level_of_binary64_has_the_kernels_numbers(visit):
    page = visit("#re=-0.7436438870371587&im=0.1318259042053120&span=6e-13&n=300").sharp()
    level = page.tab.evaluate("explorer.view.level")
    assert level == page.tab.evaluate("explorer.view.deepest") == 43
    for path, counts in page.counts("live/43/", 2).items():
        np.testing.assert_array_equal(counts, kernel_at(path, 300))


def test_the_page_goes_from_the_whole_set_to_spans_of_1e100th_and_back(visit, explorer, client):
    """Around the point i, which has few decimals at any depth."""
    page = visit("#re=0&im=1&span=4", viewport=SMALL, reduced_motion="reduce").sharp()
    page.tab.mouse.move(350, 250)
    with workers_held(client):
        wheel(page, -3000, lambda span: span < 1e-100)
        page.says("Computing a reference orbit of ")
        assert page.tab.inner_text("#count") == "…", "of this point there is a coarse tile alone"
    page.sharp().refined()
    page.shot("explorer-deep")
    re, im, span = page.tab.evaluate("explorer.view.toText()")
    assert float(span) < 1e-100 and (re, im) == ("0", "1"), "the digits of the link"
    assert f"im={im}&span={span}" in page.tab.evaluate("location.hash")
    assert page.tab.inner_text("#kind") == "live, proven"
    level = page.tab.evaluate("explorer.view.level")
    found = page.counts(f"live/{level}/", 2)
    for path, counts in found.items():
        tile = deep_tile(*map(int, path.split("/")[1:]), f"{level},40,3", "none")  # from another origin
        reference = deep.reference_orbit(tile.origin.point, tile.origin.unit, 5000)
        kernel = deep.DeepFunction(5000, ("escape_time",), deep.Held(reference))
        np.testing.assert_array_equal(counts[::16, ::16], kernel(tile.offsets()[::16, ::16]))
    assert len(found) == 2 and np.unique(counts).size > 10
    view = configs.parse(page.tab.evaluate("explorer.description(0)")).view
    one = Fraction(2) ** view.frame.unit
    for origin, name in zip(view.frame.exact_origin, "xy", strict=True):
        at = [(origin + Fraction(v) * one) * 2 ** (level + 9) for v in view.axis(name)[:2]]
        assert abs(at[1] - at[0] - 2) < 1e-3 and abs(at[0] % 2 - 1) < 0.04  # the samples are those of the tiles
    assert len(page.tab.evaluate("explorer.description(0).view.span")) < 16
    wheel(page, 3000, lambda span: span > 3)
    page.sharp()
    assert page.tab.evaluate("explorer.targets.every((t) => !t.deep)")
    assert [float(text) for text in page.tab.evaluate("explorer.view.toText()")][:2] == [0, 1]


def test_a_deep_store_is_shown_and_beyond_its_samples_tiles_are_computed(browser, client, tmp_path):
    deep_view = {"centre": PLACE, "span": "1e-80", "shape": [480, 680], "registration": "pixel"}
    md.run({"view": deep_view, "max_iter": 40000, "fields": ["escape_time", "smooth"]}, tmp_path / "s", client=client)
    store = open_store(tmp_path / "s")
    with Served(open_scene(store.path), client.scheduler.address) as explorer:
        page = Visit(browser, explorer.link, viewport=SMALL).sharp()
        page.shot("explorer-deep-store")
        for key, counts in page.counts("stored/0/").items():
            i, j = (slice(int(n) * SIDE, (int(n) + 1) * SIDE) for n in key.split("/")[2:])
            np.testing.assert_array_equal(counts, store.window(i, j))
        assert page.tab.evaluate("explorer.targets.every(({kind}) => kind === 'stored')")
        assert 1e-80 < page.view()[2] < 2e-80
        page.tab.keyboard.press("+")
        page.tab.keyboard.press("+")
        page.sharp()
        assert page.tab.evaluate("explorer.targets.every(({deep}) => deep)")
        assert page.complaints == []
        page.tab.close()


def test_the_digits_of_a_link_are_kept_until_the_centre_moves(visit):
    digits = "-0." + "7463" * 30
    page = visit(f"#re={digits}&im=0.1102&span=0.005&n=400", viewport=SMALL).sharp()
    assert f"re={digits}&im=0.1102&" in page.tab.evaluate("location.hash")
    page.tab.evaluate("for (let i = 0; i < 300; i++) explorer.view.zoom(1.5)")
    assert page.tab.evaluate("explorer.view.toText()")[0] == digits
    page.tab.evaluate("explorer.view.span = 0.005, explorer.view.pan(1, 0)")
    assert page.tab.evaluate("explorer.view.toText()")[0] != digits


@pytest.mark.parametrize("link", ["#re=abc&im=0&span=4", "#re=0&im=0&span=-4", "#im=0&span=4", "#re=0&im=0&span=0"])
def test_a_link_to_no_view_shows_the_whole_and_says_so(visit, link):
    page = visit(link, viewport=SMALL)
    page.says("The link's re, im and span name no view")
    assert page.sharp().view() == pytest.approx([-0.5, 0, 4.452], rel=1e-3)
    page.go("#re=-0.5&im=0&span=3")
    assert not page.tab.inner_text("#messages")


def wheel(page, pixels, until):
    """Turn the wheel until the span is right."""
    for _ in range(100):
        if until(page.view()[2]):
            return
        page.tab.mouse.wheel(0, pixels)
        page.tab.evaluate("new Promise(requestAnimationFrame)")
    pytest.fail(f"the wheel led to a span of {page.view()[2]}")


@pytest.mark.parametrize("scale", ["log", "root", "linear"])
def test_a_view_is_rendered_to_a_store_and_a_picture_and_followed(visit, explorer, scale):
    page = visit(f"{SEAHORSES}&scale={scale}&map=magma", viewport={"width": 1280, "height": 800}).sharp().refined()
    canvas = page.pixels()
    page.tab.select_option("#finer", "0")
    wanted = configs.parse(page.tab.evaluate("explorer.description()"))
    page.tab.fill("#render-name", "seahorses")
    page.tab.click("#render-start")
    page.tab.wait_for_selector("#rendering", state="visible")
    box = page.tab.locator("#rendering").bounding_box()
    assert box["x"] >= 0 and box["y"] >= 0 and box["x"] + box["width"] <= 1280 and box["y"] + box["height"] <= 800
    poll(lambda: "mandeldask explore" in page.tab.inner_text("#render-words"), "the end of the job", DEADLINE)
    rendered = open_store(explorer.state()["rendering"]["store"])
    rows, columns = wanted.view.shape
    np.testing.assert_array_equal(
        rendered.window(slice(None), slice(None)),
        KERNELS["numpy-compact"](400)(wanted.view.block((0, rows), (0, columns))),
    )
    page.shot("explorer-rendered")
    with Image.open(rendered.path.replace(".zarr", ".png")) as picture:
        small = np.asarray(picture.convert("RGB").resize((16, 10), Image.Resampling.BOX), int)
    shown = Image.fromarray(canvas.view(np.uint8).reshape(*canvas.shape, 4)).convert("RGB")
    assert np.abs(small - np.asarray(shown.resize((16, 10), Image.Resampling.BOX), int)).mean() < 8
    page.tab.fill("#render-name", "no/name")
    page.tab.click("#render-start")
    page.says("letters, digits, dots and dashes, no more; got 'no/name'")
    assert "400 (Bad Request)" in page.complaints.pop()  # what Chromium says of every refusal
    page.tab.click("#messages .close")
    assert not page.tab.inner_text("#messages")
    page.tab.fill("#render-name", "set")
    page.tab.click("#render-start")
    page.says("set.zarr exists, and holds something else: choose another name")
    page.complaints.pop()


def test_a_store_that_vanishes_and_a_cluster_that_is_not_there_are_told_of(browser, store, tmp_path):
    path = tmp_path / "there.zarr"
    shutil.copytree(store.path, path)
    with Served(open_scene(str(path)), f"tcp://127.0.0.1:{free_port()}") as explorer:
        page = Visit(browser, explorer.link).sharp().refined()
        picture = page.pixels()
        shutil.move(path, tmp_path / "gone.zarr")
        page.says("is gone, or another by now")
        page.tab.click("#start")
        page.says("No live tiles: nothing is listening")
        page.says("Stored tiles go on")
        np.testing.assert_array_equal(page.pixels(), picture)
        page.shot("explorer-alone")
        shutil.move(tmp_path / "gone.zarr", path)
        poll(lambda: "is gone" not in page.tab.inner_text("#messages"), "the store's return", DEADLINE)
        page.tab.close()
