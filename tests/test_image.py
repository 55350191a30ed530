import hashlib
import io
import os
import sys
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import bokeh.palettes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mandeldask.errors import ConfigError, DamagedError, StoreError
from mandeldask.image import PictureOptions, averaged, palette, palette_index, picture
from mandeldask.image.colour import GREY, SCALES, gradient
from mandeldask.kernels import KERNELS
from mandeldask.store import Description, open_for_writing, open_store
from mandeldask.view import View

MAX_ITER = 50
NOT_COMPUTED, INTERIOR = 0, 255
BOUNDS = ((-1.5, 0.5), (-0.2, 1.2))
ALL = ("escape_time", "smooth", "distance")
FLAT = {"shade": "counts", "supersample": 1}  # one sample a pixel, in a palette


def field(rows, columns, max_iter=MAX_ITER, fields=("escape_time",)):
    """An asymmetric piece of the set of (rows, columns): escape times, or a dict of fields."""
    block = KERNELS["numpy-compact"](max_iter, fields)(View(*BOUNDS, (rows, columns)).block((0, rows), (0, columns)))
    return {name: block[name] for name in fields} if block.dtype.names else block


def stored(path, shape, tile, fields=("escape_time",), leave_out=(), max_iter=MAX_ITER):
    """A store of `field(*shape)` with all its levels, but for some tiles of the field."""
    view = View(*BOUNDS, shape)
    store = open_for_writing(path, Description.of(view, max_iter, fields, tile))
    d = store.description
    compute = KERNELS["numpy-compact"](max_iter, fields)
    for t in np.ndindex(d.tiles):
        if t not in leave_out:
            store.write(t, compute(view.block(*d.levels[0].window(t))))
    for level in d.levels[d.fine + 1 :]:
        for t in np.ndindex(level.tiles):
            if all(store.done(level.number - 1)[child] for child in d.children(level.number, t)):
                store.write_level(level.number, t)
    return store


def save(thing, path, **options):
    """Draw a field of `MAX_ITER` to a file, and give the shape of the picture."""
    drawn = picture(thing, **{"max_iter": MAX_ITER} | options)
    drawn.save(path)
    return drawn.shape


def indices(path):
    with Image.open(path) as picture:
        assert picture.mode == "P"
        return np.array(picture)


def colours(path):
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "picture.png"


def test_the_picture_is_the_field_with_y_upwards(out):
    counts = field(40, 70)
    assert save(counts, out) == (40, 70)
    assert np.array_equal(indices(out), palette_index(counts.ravel(), MAX_ITER)(counts)[::-1])
    assert Image.open(out).size == (70, 40)


def test_each_class_has_its_colour(out):
    counts = field(40, 70)
    counts[:8] = 0
    save(counts, out, interior="#0a0B0c")
    picture = colours(out)[::-1]
    assert (picture[counts == 0] == GREY).all()
    assert (picture[counts == MAX_ITER] == (10, 11, 12)).all()
    escaped = (counts > 0) & (counts < MAX_ITER)
    known = palette()
    assert set(map(tuple, picture[escaped])) <= set(known[1:INTERIOR])
    assert tuple(picture[counts == counts[escaped].min()][0]) == known[1]
    assert tuple(picture[counts == counts[escaped].max()][0]) == known[INTERIOR - 1]


@pytest.mark.parametrize("scale", SCALES)
@settings(deadline=None, max_examples=60)
@given(data=st.data(), max_iter=st.sampled_from([1, 2, 3, 100, 2**17, 2**17 + 1, 2**31 - 1]))
def test_a_longer_escape_never_has_a_lower_index(scale, data, max_iter):
    """Over every scale, sample and max_iter, and the classes keep their own index."""
    count = st.integers(0, max_iter)
    sample = np.array(data.draw(st.lists(count, max_size=30)), np.int32)
    n = np.array(sorted({0, 1, max_iter, *data.draw(st.lists(count, max_size=30)), *sample.tolist()}), np.int32)
    index = palette_index(sample, max_iter, PictureOptions(scale=scale))(n)
    assert (np.diff(index.astype(int)) >= 0).all()
    assert np.array_equal(index == NOT_COMPUTED, n == 0)
    assert np.array_equal(index == INTERIOR, n == max_iter)


@pytest.mark.parametrize("scale", SCALES)
def test_table_and_search_agree(scale, monkeypatch):
    sample, n = field(60, 60, 300), np.arange(301, dtype=np.int32)
    by_table = palette_index(sample, 300, PictureOptions(scale=scale))(n)
    monkeypatch.setattr("mandeldask.image.colour.TABLE_LIMIT", 1)
    assert np.array_equal(palette_index(sample, 300, PictureOptions(scale=scale))(n), by_table)


def test_scales_lay_out_the_tones():
    sample = np.repeat([1, 10, 100], [1, 1, 2])
    n = np.array([1, 10, 100])
    assert palette_index(sample, 1000, PictureOptions(scale="linear"))(n).tolist() == [1, 1 + 254 * 9 // 99, 254]
    assert palette_index(sample, 1000, PictureOptions(scale="log"))(n).tolist() == [1, 128, 254]
    assert palette_index(sample, 1000, PictureOptions(scale="equalised"))(n).tolist() == [1, 128, 254]
    assert palette_index(sample, 1000, PictureOptions(scale="mix"))(n).tolist() == [1, 128, 254]


@pytest.mark.parametrize("scale", ["log", "root", "linear"])
def test_between_limits_a_value_has_one_colour_whatever_the_field(scale):
    options = PictureOptions(scale=scale, limits=(1, 500), repeat=3)
    n = np.arange(1, 500)
    few, many = (palette_index(np.array(sample), 500, options)(n) for sample in ([3, 4], [100, 400]))
    assert np.array_equal(few, many)
    curve = options.tones(np.array([7.0]), interpolated=True)
    assert np.allclose(curve(n), options.tones(np.array([7.0]))(n), atol=1e-4)


GOLDEN = {
    "mix": "1158f75502c8678e",
    "log": "5804b2ff0dd2dac4",
    "equalised": "c57800708ee71f34",
    "root": "d77f9aa6a05d7d8c",
    "linear": "8b2578c2fcab9bb2",
}


@pytest.mark.parametrize("scale", SCALES)
def test_golden_indices(scale):
    """SHA-256 of `field(64, 48)` and of its indices, laid out for all of it, as the first version gave them.

    A change here changes everyone's pictures.
    """
    counts = field(64, 48)
    assert hashlib.sha256(counts.astype("<i4").tobytes()).hexdigest()[:16] == "f4bbade6ad6caa94"
    index = palette_index(counts, MAX_ITER, PictureOptions(scale=scale))(counts)
    assert hashlib.sha256(index.tobytes()).hexdigest()[:16] == GOLDEN[scale]


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (37, 1), (3, 2000), (2000, 3)])
@pytest.mark.parametrize("value", [0, 1, 7, MAX_ITER])
def test_a_field_of_one_value_of_any_shape(out, shape, value):
    assert save(np.full(shape, value, np.int32), out) == shape
    index = indices(out)
    assert index.shape == shape
    assert (index == {0: NOT_COMPUTED, MAX_ITER: INTERIOR}.get(value, 1)).all()


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "u8", ">i4"])
def test_any_integers_will_do(out, dtype):
    counts = field(20, 30)
    save(counts, out)
    expected = out.read_bytes()
    save(counts.astype(dtype), out, max_iter=np.int16(MAX_ITER))
    assert out.read_bytes() == expected


def test_a_round_goes_there_and_back():
    n = np.arange(1, 100)
    sample = np.arange(1, 101)
    there = PictureOptions(scale="linear").tones(sample)(n)
    both = PictureOptions(scale="linear", repeat=1).tones(sample)(n)
    assert both[:49] == pytest.approx(2 * there[:49])
    assert both[51:] == pytest.approx(2 - 2 * there[51:])
    assert PictureOptions(scale="linear", repeat=1, phase=0.5).tones(sample)(n) == pytest.approx(1 - both)


def test_a_period_is_counted_in_iterations_whatever_the_sample():
    n = np.arange(1, 500)
    index = palette_index(np.arange(1, 30), 1000, PictureOptions(period=20))(n)
    assert np.array_equal(index[:-20], index[20:])
    assert index[9] == INTERIOR - 1 and index[19] == 1


@given(values=st.lists(st.floats(-3, 1e6), min_size=1, max_size=40), scale=st.sampled_from(SCALES))
def test_the_quick_curve_stays_by_the_scale(values, scale):
    """For values that are not whole, below 1 too: tones from 0 to 1 that never descend."""
    sample, v = np.array(values), np.sort([*values, -10.0, 0.0, 1e9])
    tone = PictureOptions(scale=scale).tones(sample, interpolated=True)(v)
    assert (np.diff(tone) >= 0).all() and tone.min() >= 0 and tone.max() <= 1
    if scale in ("log", "linear"):
        assert tone == pytest.approx(PictureOptions(scale=scale).tones(sample)(v), abs=2e-3)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 90), columns=st.integers(1, 90), size=st.integers(1, 120))
@example(rows=1, columns=17, size=2)  # 8.5: 8, for 10 is the nearest of 9
def test_a_size_draws_exact_samples(tmp_path_factory, rows, columns, size):
    """Every k-th sample from the first, whatever the blocks; k = m 2^n with m below 8 is near side / size."""
    counts = field(rows, columns)
    side = max(rows, columns)
    k = picture(counts, size=size, **FLAT).samples.stride
    assert k >> max(0, k.bit_length() - 3) << max(0, k.bit_length() - 3) == k
    assert abs(k - max(1, side / size)) <= max(0.5, side / size / 8)
    out = tmp_path_factory.mktemp("stride") / "picture.png"
    expected = palette_index(counts, MAX_ITER)(counts[::k, ::k])[::-1]
    for band, block in ((2**24, 1024), (1000, 17), (7, 2)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mandeldask.image.BAND_BYTES", band)
            patch.setattr("mandeldask.image.BLOCK_SIDE", {True: block, False: block})
            assert save(counts, out, size=size, **FLAT) == expected.shape
        assert np.array_equal(indices(out), expected)


OPTIONS = {
    "flat": FLAT,
    "averaged": {"shade": "counts", "supersample": 2},
    "smooth": {"shade": "smooth", "scale": "log"},
    "distance under a light": {"shade": "distance", "light": (315, 45), "supersample": 4},
    "counts under a light": {"shade": "counts", "light": (90, 30), "repeat": 3, "colormap": "magma", "reverse": True},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("size", [None, 300, 77])
def test_a_store_is_drawn_as_its_field_is(tmp_path, out, name, size, monkeypatch):
    """From any level, in any blocks."""
    shape = (700, 900)
    save(field(*shape, fields=ALL), out, size=size, **OPTIONS[name])
    expected = out.read_bytes()
    store = stored(tmp_path / "a.zarr", shape, (256, 300), ALL)
    monkeypatch.setattr("mandeldask.image.BLOCK_SIDE", {True: 140, False: 140})
    monkeypatch.setattr("mandeldask.image.BAND_BYTES", 100_000)
    picture(store, size=size, **OPTIONS[name]).save(out)
    assert len(store.description.levels) == 3
    drawn, wanted = colours(out), np.array(Image.open(io.BytesIO(expected)).convert("RGB"))
    assert np.array_equal(drawn, wanted)


LOOKS = {
    "smooth": {"shade": "smooth", "scale": "equalised"},
    "distance": {"shade": "distance"},
    "counts under a light": {"shade": "counts", "light": (315, 45)},
    "smooth under a light": {"shade": "smooth", "light": (315, 45), "supersample": 2},
}


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("few", [0, 2**40], ids=["numba", "numpy"])
def test_what_a_store_does_not_keep_is_worked_out_from_its_counts(tmp_path, name, few, monkeypatch):
    """The picture is that of a store which keeps it; tiles that are not computed are grey."""
    monkeypatch.setattr("mandeldask.image.samples.FEW", few)
    monkeypatch.delitem(sys.modules, "numba") if few else None
    for i, fields in enumerate([("escape_time",), ALL]):
        store = stored(tmp_path / f"{i}.zarr", (300, 430), (100, 150), fields, leave_out={(1, 1)})
        picture(store, size=215, **{"supersample": 1} | LOOKS[name]).save(tmp_path / f"{i}.png")
    worked_out, kept = (colours(tmp_path / f"{i}.png").astype(int) for i in range(2))
    assert (worked_out != GREY).any() and (kept == GREY).all(axis=-1).any()
    # the scale is laid out for a quarter of the samples
    assert np.abs(worked_out - kept).mean() < 2


def test_a_picture_is_smooth_and_averaged_where_nothing_else_is_asked_for(tmp_path, monkeypatch):
    store = stored(tmp_path / "a.zarr", (300, 400), (300, 400))
    drawn = picture(store, size=200)
    assert (drawn.shade, drawn.box, drawn.shape, drawn.palette) == ("smooth", 2, (150, 200), None)
    assert picture(store).shape == (300, 400)
    assert picture(store.escape_time[:], max_iter=MAX_ITER).shade == "counts"
    assert picture(View(*BOUNDS, (300, 400)), max_iter=MAX_ITER).shade == "smooth"
    monkeypatch.setattr("mandeldask.image.AFFORDABLE", drawn.samples.cost / 2)
    assert picture(store, size=200).shade == "counts"
    assert picture(stored(tmp_path / "b.zarr", (300, 400), (300, 400), ALL)).shade == "smooth"


@given(side=st.integers(1, 10**7), size=st.integers(1, 10**4))
def test_all_samples_that_a_level_has_are_averaged_but_no_more_than_nine_a_pixel(side, size):
    stride, k = PictureOptions(size=size).sampling((side, 1))
    assert k <= 3 and (k > 1) == (side >= 1.5 * size)
    assert abs(stride * k - max(1, side / size)) <= max(1.5, side / size / 8)


def reads(monkeypatch):
    """(level, samples) of what a picture reads of its store."""
    from mandeldask.store import Store

    seen, window = [], Store.window

    def count(self, rows, columns, level=0, name="escape_time"):
        block = window(self, rows, columns, level, name)
        seen.append((level, block.size))
        return block

    monkeypatch.setattr(Store, "window", count)
    return seen


def test_a_small_picture_is_read_from_a_coarse_level_and_so_is_the_scale(tmp_path, out, monkeypatch):
    store = stored(tmp_path / "a.zarr", (2048, 2048), (512, 512))
    seen = reads(monkeypatch)
    picture(store, size=256, **FLAT).save(out)
    assert sorted(seen) == [(1, 1024**2), (2, 511**2)]
    seen.clear()
    picture(store, **FLAT).save(out)
    assert sum(size for level, size in seen if level == 0) == 2048**2


def test_an_averaged_picture_decodes_each_chunk_once(tmp_path, out, monkeypatch):
    store = stored(tmp_path / "a.zarr", (2048, 2048), (512, 512))
    seen = reads(monkeypatch)
    picture(store, shade="counts", supersample=2).save(out)
    assert [size for level, size in seen if level == 0] == [512**2] * 16


def test_of_a_field_in_the_making_the_levels_are_read_that_its_own_tiles_write(tmp_path, out, monkeypatch):
    left_out = {(1, 1)}
    store = stored(tmp_path / "a.zarr", (2048, 2048), (512, 512), leave_out=left_out)
    assert store.description.fine == 1 and not store.done(2).all()
    seen = reads(monkeypatch)
    drawn = picture(store, size=256, **FLAT)
    drawn.save(out)
    assert {level for level, _ in seen} == {1}
    assert drawn.missing == 1
    missing = indices(out)[::-1] == NOT_COMPUTED
    assert missing[64:128, 64:128].all() and missing.sum() == 64**2


def test_a_level_that_lost_a_shard_is_not_read(tmp_path, out, monkeypatch):
    store = stored(tmp_path / "a.zarr", (2048, 2048), (512, 512))
    picture(store, size=256, **FLAT).save(out)
    expected = out.read_bytes()
    (tmp_path / "a.zarr/2/escape_time/c/0/0").unlink()
    seen = reads(monkeypatch)
    picture(store, size=256, **FLAT).save(out)
    assert out.read_bytes() == expected
    assert {level for level, _ in seen} == {1}


def test_a_store_is_drawn_as_it_notes_unless_options_say_otherwise(tmp_path):
    store = stored(tmp_path / "a.zarr", (40, 50), (40, 50))
    store.write_notes(picture={"scale": "log", "limits": [1, 50], "light": [315, 45], "size": 7, "supersample": 2})
    assert picture(store).shape == (40, 50), "size and supersample are of one file"
    log = PictureOptions(scale="log", limits=(1, 50), light=(315, 45), supersample=1)
    assert picture(store).options == log
    assert picture(store, scale="root", light=None).options == replace(log, scale="root", light=None)
    assert picture(store, period=9).options == PictureOptions(period=9, light=(315, 45), supersample=1)


@pytest.mark.parametrize(
    "note", [7, "x", [1], {"scale": {}}, {"light": [1e999, 2]}, {"x": 1}, {"period": "1"}, {"phase": None}]
)
def test_what_a_stranger_notes_of_a_picture_is_left_out_where_it_breaks_a_rule(tmp_path, note):
    store = stored(tmp_path / "a.zarr", (40, 50), (40, 50))
    store.write_notes(picture=note)
    assert picture(store).options == PictureOptions(supersample=1)


def test_the_same_field_gives_the_same_bytes(tmp_path):
    """In any tiles, and the same colours at another size."""
    counts = field(1400, 1500)
    stores = [
        stored(tmp_path / "a.zarr", (1400, 1500), (512, 512)),
        stored(tmp_path / "b.zarr", (1400, 1500), (100, 900)),
    ]
    for i, source in enumerate(stores):
        picture(source, **FLAT).save(tmp_path / f"{i}.png")
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    save(counts, tmp_path / "2.png")
    assert np.array_equal(indices(tmp_path / "0.png"), indices(tmp_path / "2.png"))
    picture(stores[0], size=500, **FLAT).save(tmp_path / "small.png")
    assert np.array_equal(indices(tmp_path / "small.png"), indices(tmp_path / "0.png")[::-1][::3, ::3][::-1])


def test_a_pixel_is_the_mean_of_its_samples_in_linear_light(out):
    """Half black, half white gives the grey of half the light, 188, not of half the number."""
    counts = np.tile(np.array([[1, 1, MAX_ITER, MAX_ITER], [MAX_ITER, MAX_ITER, 1, 1]], np.int32), (3, 5))
    save(counts, out, supersample=2, colormap="greys", reverse=True, interior="#000000")
    assert colours(out).shape == (3, 10, 3)
    assert set(colours(out).ravel().tolist()) == {188}


def test_a_pixel_at_the_edge_is_the_mean_of_the_samples_that_are_left_for_it(out):
    counts = np.full((5, 9), 1, np.int32)
    counts[4], counts[:, 8] = MAX_ITER, MAX_ITER
    save(counts, out, supersample=4, colormap="greys", reverse=True, interior="#000000")
    drawn = colours(out)[..., 0]
    assert drawn.tolist() == [[0, 0, 0], [255, 255, 0]]


@pytest.mark.parametrize(("rows", "columns", "box"), [(1, 1, 1), (2, 4, 2), (5, 7, 4), (3, 16, 8)])
def test_planes_are_averaged_in_boxes_of_what_there_is(rows, columns, box):
    planes = np.arange(3 * rows * columns, dtype=np.uint8).reshape(3, rows, columns)
    wanted = [
        [[plane[i : i + box, j : j + box].mean() for j in range(0, columns, box)] for i in range(0, rows, box)]
        for plane in planes
    ]
    np.testing.assert_allclose(averaged(planes, box), wanted, rtol=1e-6)


def test_a_turned_view_and_a_strip_are_drawn_as_their_fields_are(out):
    """Without a store: every k-th of the view's own samples is computed."""
    centre = ("-0.745", "0.112")
    for view in (View.around(centre, "0.1", (90, 170), rotation=30), View.log_polar(centre, ("1e-4", 1), 200)):
        counts = KERNELS["numpy-compact"](MAX_ITER)(view.block((0, view.shape[0]), (0, view.shape[1])))
        for size in (None, 60):
            k = 1 if size is None else -(-max(view.shape) // size)
            drawn = picture(view, size=size, max_iter=MAX_ITER, **FLAT)
            drawn.save(out)
            wanted = palette_index(counts[::k, ::k], MAX_ITER)(counts[::k, ::k])[::-1]
            np.testing.assert_array_equal(indices(out), wanted)
        assert Image.open(out).text["Description"] == f"Mandelbrot escape times, {view}, max_iter {MAX_ITER}"


@pytest.mark.parametrize("bad", [{"size": 0}, {"size": "a"}, {"supersample": 9}])
def test_a_view_is_drawn_at_no_size_that_a_field_is_not(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        picture(View(*BOUNDS, (20, 20)), **bad)


def test_a_light_falls_on_the_side_that_faces_it(out):
    """A hill that rises towards the set, which here lies to the right: lit from the left, dark from the right."""
    x = np.mgrid[:20, :30][1]
    hill = {"escape_time": np.full((20, 30), 7, np.int32), "smooth": (5 + 0.01 * x).astype(np.float32)}
    brightness = {}
    for azimuth in (0, 90, 180, 270):
        save(hill, out, light=(azimuth, 45), colormap="viridis")
        brightness[azimuth] = int(colours(out).sum())
    assert brightness[90] < brightness[0] == brightness[180] < brightness[270]


GOLDEN_RGB = {
    "averaged": [66.93, 70.79, 84.55],
    "smooth": [48.9, 63.82, 92.32],
    "distance under a light": [69.91, 80.11, 102.12],
    "counts under a light": [75.1, 35.26, 46.51],
}


@pytest.mark.parametrize("name", GOLDEN_RGB)
def test_golden_colours(name, out):
    """The mean colour; of what needs no logarithm of a machine's own, the SHA-256 of the pixels too."""
    save(field(64, 48, fields=ALL), out, **OPTIONS[name])
    mean = colours(out).reshape(-1, 3).mean(axis=0)
    assert mean == pytest.approx(GOLDEN_RGB[name], abs=0.05)
    if name == "averaged":
        assert hashlib.sha256(colours(out).tobytes()).hexdigest()[:16] == "2f1a117cec43eb7c"


def test_memory_does_not_grow_with_the_field(tmp_path, out):
    """256 MiB of escape times in shards of 16 MiB, within 96 MiB, of which 12 lay out the scale."""
    store = open_for_writing(
        tmp_path / "a.zarr", Description.of(View(*BOUNDS, (8192, 8192)), MAX_ITER, ("escape_time",), (2048, 2048))
    )
    tile = np.tile(field(256, 256), (8, 8))
    for t in np.ndindex(4, 4):
        store.write(t, tile)
    store.write_level(2, (0, 0))
    tracemalloc.start()
    try:
        picture(store, **FLAT).save(out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 96 * 2**20, f"{peak / 2**20:.0f} MiB"


def test_progress_counts_the_pixels(out, monkeypatch):
    monkeypatch.setattr("mandeldask.image.BAND_BYTES", 16 * 30)
    calls = []
    picture(field(40, 30)).save(out, lambda done, all_: calls.append((done, all_)))
    assert calls == [(240, 1200), (720, 1200), (1200, 1200)]


def test_the_picture_says_where_it_comes_from(tmp_path, out):
    picture(stored(tmp_path / "a.zarr", (20, 30), (20, 30))).save(out)
    text = "Mandelbrot escape times, x [-1.5, 0.5], y [-0.2, 1.2], gridline, max_iter 50"
    assert Image.open(out).text == {"Software": "mandeldask", "Description": text}


@pytest.mark.parametrize("name", ["classic", "magma", "greys", "turbo", "oranges", "cmocean:thermal", "twilight"])
def test_every_colour_map_has_its_own_ends(name):
    colours = palette(name, "#FF0080")
    assert len(colours) == 256
    assert (colours[NOT_COMPUTED], colours[INTERIOR]) == (GREY, (255, 0, 128))
    assert all(type(v) is int and 0 <= v <= 255 for colour in colours for v in colour)
    assert palette(name, "#FF0080", reverse=True)[1:255] == colours[254:0:-1]
    known = getattr(bokeh.palettes, name.capitalize() + "256", None)
    if known:
        assert ["#{:02x}{:02x}{:02x}".format(*colours[i]) for i in (1, 254)] == [known[0].lower(), known[-1].lower()]


def test_without_cmap_its_maps_are_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr("mandeldask.image.colour._cmap", lambda: None)
    with pytest.raises(ConfigError, match=r"pip install '.*\[pictures\]'.*got 'cmocean:ice'"):
        gradient("cmocean:ice", 5)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"colormap": "Magma"}, None),
        ({"colormap": "virdis"}, "one of classic, .*got 'virdis'; did you mean viridis"),
        ({"colormap": "cmocean:icy"}, "did you mean cmocean:ice"),
        ({"colormap": None}, "colormap"),
        ({"colormap": ["magma"]}, "colormap must be a name"),
        ({"scale": "equalise"}, "scale .*did you mean equalised"),
        ({"scale": "log", "limits": (5, 5)}, "limits must be two escape times, .* ascending; got \\(5, 5\\)"),
        ({"scale": "mix", "limits": (1, 5)}, "limits go with a scale of root, log, linear"),
        ({"shade": "smoth"}, "shade .*did you mean smooth"),
        ({"shade": "smooth"}, "shade smooth needs the field smooth.*Draw a store or a view, or a dataset with smooth"),
        ({"light": (315, 45)}, "light needs the field smooth"),
        ({"light": (315, 0)}, "light must be azimuth and height"),
        ({"light": 3}, "light must be azimuth and height"),
        ({"interior": "black"}, "#rrggbb"),
        ({"interior": "#12345"}, "#rrggbb"),
        ({"interior": 0}, "#rrggbb"),
        ({"period": 0}, "period must be a number above 0; got 0"),
        ({"repeat": float("nan")}, "repeat must be"),
        ({"repeat": 2, "period": 3}, "exclude each other"),
        ({"phase": 0.5}, "phase is where"),
        ({"colour": "red"}, "unknown option of a picture: colour; known are colormap, "),
        ({"reverse": 1}, "reverse must be"),
        ({"supersample": 9}, "supersample must be from 1 to 8; got 9"),
        ({"supersample": True}, "supersample .*got True"),
        ({"supersample": 4}, "as many samples a side"),
        ({"size": 0}, "size .*got 0"),
        ({"size": 1.5}, "size .*got 1.5"),
        ({"size": True}, "size .*got True"),
        ({"max_iter": 0}, "max_iter .*got 0"),
        ({"max_iter": 2**31}, "max_iter"),
        ({"max_iter": 10.0}, "max_iter"),
        ({"field": np.zeros((2, 2))}, "integers .*float64"),
        ({"field": np.zeros((2, 2), bool)}, "integers"),
        ({"field": np.zeros(3, int)}, r"shape \(3,\)"),
        ({"field": np.zeros((0, 3), int)}, r"shape \(0, 3\)"),
        ({"field": [[1, 2]]}, "integers"),
        ({"field": {"smooth": np.zeros((2, 2))}}, "must have the field escape_time; got smooth"),
        ({"field": np.broadcast_to(np.ones(1, np.int8), (2**16, 2**16))}, "too large to be held in memory"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, bad, message):
    arguments = {"field": np.ones((2, 2), int), "max_iter": MAX_ITER} | bad
    if message is None:
        pytest.importorskip("cmap")
        picture(**arguments)  # by any name that cmap takes
        return
    with pytest.raises(ConfigError, match=message) as error:
        picture(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.jpg", ".png"),
        ("png", ".png"),
        ("no/a.png", "no directory"),
        ("d.png", "is a directory"),
        ("f/a.png", "no directory"),
    ],
)
def test_a_bad_path_is_refused(tmp_path, name, message):
    (tmp_path / "d.png").mkdir()
    (tmp_path / "f").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        save(field(3, 3), tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_directory_that_may_not_be_written(request):
    folder = Path(tempfile.mkdtemp())  # where any user may look, unlike tmp_path
    request.addfinalizer(folder.rmdir)
    folder.chmod(0o555)
    if os.geteuid() == 0:  # root may write anywhere
        os.seteuid(65534)
        request.addfinalizer(lambda: os.seteuid(0))
    with pytest.raises(ConfigError, match="Permission denied"):
        save(field(3, 3), folder / "a.png")
    assert not list(folder.iterdir())


def test_a_name_too_long_for_the_file_system(tmp_path):
    with pytest.raises(ConfigError, match="cannot write"):
        save(field(3, 3), tmp_path / ("a" * 300 + ".png"))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_a_full_disk_leaves_the_old_picture(tmp_path, out, monkeypatch):
    save(field(3, 3), out)
    before = out.read_bytes()
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr("mandeldask.image.files.open", lambda *_: full, raising=False)
        with pytest.raises(StoreError, match="disk is full"):
            save(field(30, 30), out)
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interruption_leaves_the_old_picture(tmp_path, out, stop):
    save(field(3, 3), out)
    before = out.read_bytes()

    def interrupt(done, rows):
        raise stop

    with pytest.raises(stop):
        picture(field(30, 30)).save(out, interrupt)
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("kind", ["png", "tif", "dzi"])
def test_a_damaged_store_is_named_and_leaves_no_picture(tmp_path, kind):
    store = stored(tmp_path / "a.zarr", (600, 600), (300, 300))
    shard = tmp_path / "a.zarr/0/escape_time/c/1/0"
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    with pytest.raises(DamagedError, match="is damaged: shard 0/escape_time/c/1/0"):
        picture(store).save(tmp_path / f"a.{kind}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_no_store_is_told(tmp_path):
    with pytest.raises(StoreError, match="no store at"):
        picture(tmp_path / "none.zarr")
    stored(tmp_path / "a.zarr", (20, 20), (20, 20))
    assert picture(str(tmp_path / "a.zarr")).shape == picture(open_store(tmp_path / "a.zarr")).shape == (20, 20)
