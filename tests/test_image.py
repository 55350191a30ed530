import hashlib
import os
import sys
import tempfile
import tracemalloc
from pathlib import Path

import bokeh.palettes
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mandeldask.errors import ConfigError, StoreError
from mandeldask.image import COLORMAPS, GREY, SCALES, palette, palette_index, write_png
from mandeldask.kernels import KERNELS
from mandeldask.view import View

MAX_ITER = 50
NOT_COMPUTED, INTERIOR = 0, 255


def field(rows, columns, max_iter=MAX_ITER):
    """An asymmetric piece of the set, escape times of (rows, columns)."""
    return KERNELS["numpy"](max_iter)(View((-1.5, 0.5), (-0.2, 1.2), (rows, columns)).block((0, rows), (0, columns)))


def indices(path):
    with Image.open(path) as picture:
        assert picture.mode == "P"
        return np.array(picture)


def colours(path):
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


def sharded(path, counts, chunk, shard):
    array = zarr.create_array(
        str(path),
        shape=counts.shape,
        dtype="int32",
        chunks=(chunk, chunk),
        shards=(shard, shard),
        fill_value=0,
    )
    array[:] = counts
    return array


@pytest.fixture
def out(tmp_path):
    return tmp_path / "picture.png"


def test_the_picture_is_the_field_with_y_upwards(out):
    counts = field(40, 70)
    assert write_png(counts, MAX_ITER, out) == (40, 70)
    assert np.array_equal(indices(out), palette_index(counts.ravel(), MAX_ITER)(counts)[::-1])
    assert Image.open(out).size == (70, 40)


def test_each_class_has_its_colour(out):
    counts = field(40, 70)
    counts[:8] = 0
    write_png(counts, MAX_ITER, out, interior="#0a0B0c")
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
@given(data=st.data(), max_iter=st.sampled_from([1, 2, 3, 100, 2**20, 2**20 + 1, 2**31 - 1]))
def test_a_longer_escape_never_has_a_lower_index(scale, data, max_iter):
    """Over every scale, sample and max_iter, and the classes keep their own index."""
    count = st.integers(0, max_iter)
    sample = np.array(data.draw(st.lists(count, max_size=30)), np.int32)
    n = np.array(sorted({0, 1, max_iter, *data.draw(st.lists(count, max_size=30)), *sample.tolist()}), np.int32)
    index = palette_index(sample, max_iter, scale)(n)
    assert (np.diff(index.astype(int)) >= 0).all()
    assert np.array_equal(index == NOT_COMPUTED, n == 0)
    assert np.array_equal(index == INTERIOR, n == max_iter)


@pytest.mark.parametrize("scale", SCALES)
def test_table_and_search_agree(scale, monkeypatch):
    sample, n = field(60, 60, 300), np.arange(301, dtype=np.int32)
    by_table = palette_index(sample, 300, scale)(n)
    monkeypatch.setattr("mandeldask.image.TABLE_LIMIT", 1)
    assert np.array_equal(palette_index(sample, 300, scale)(n), by_table)


def test_scales_lay_out_the_tones():
    sample = np.repeat([1, 10, 100], [1, 1, 2])
    n = np.array([1, 10, 100])
    assert palette_index(sample, 1000, "linear")(n).tolist() == [1, 1 + 254 * 9 // 99, 254]
    assert palette_index(sample, 1000, "log")(n).tolist() == [1, 128, 254]
    assert palette_index(sample, 1000, "equalised")(n).tolist() == [1, 128, 254]
    assert palette_index(sample, 1000, "mix")(n).tolist() == [1, 128, 254]


GOLDEN = {
    "mix": "1158f75502c8678e",
    "log": "5804b2ff0dd2dac4",
    "equalised": "c57800708ee71f34",
    "linear": "8b2578c2fcab9bb2",
}


@pytest.mark.parametrize("scale", SCALES)
def test_golden_indices(scale):
    """SHA-256 of `field(64, 48)` and of its indices, laid out for all of it, as the first version gave them.

    A change here changes everyone's pictures.
    """
    counts = field(64, 48)
    assert hashlib.sha256(counts.astype("<i4").tobytes()).hexdigest()[:16] == "f4bbade6ad6caa94"
    index = palette_index(counts, MAX_ITER, scale)(counts)
    assert hashlib.sha256(index.tobytes()).hexdigest()[:16] == GOLDEN[scale]


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (37, 1), (3, 2000), (2000, 3)])
@pytest.mark.parametrize("value", [0, 1, 7, MAX_ITER])
def test_a_field_of_one_value_of_any_shape(out, shape, value):
    assert write_png(np.full(shape, value, np.int32), MAX_ITER, out) == shape
    index = indices(out)
    assert index.shape == shape
    assert (index == {0: NOT_COMPUTED, MAX_ITER: INTERIOR}.get(value, 1)).all()


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "u8", ">i4"])
def test_any_integers_will_do(out, dtype):
    counts = field(20, 30)
    write_png(counts, MAX_ITER, out)
    expected = out.read_bytes()
    write_png(counts.astype(dtype), np.int16(MAX_ITER), out)
    assert out.read_bytes() == expected


LIMITS = ("BAND_BYTES", "BAND_ROWS", "BLOCK_SAMPLES")


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 90), columns=st.integers(1, 90), size=st.integers(1, 120))
def test_a_stride_draws_exact_samples(tmp_path_factory, rows, columns, size):
    """Every k-th sample from the first, k the whole number nearest to side / size, whatever the bands."""
    counts = field(rows, columns)
    k = max(1, int(max(rows, columns) / size + 0.5))
    out = tmp_path_factory.mktemp("stride") / "picture.png"
    expected = palette_index(counts, MAX_ITER)(counts[::k, ::k])[::-1]
    for limits in ((2**24, 2048, 2**20), (1000, 40, 300), (7, 5, 3)):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in zip(LIMITS, limits, strict=True):
                patch.setattr(f"mandeldask.image.{name}", value)
            assert write_png(counts, MAX_ITER, out, size=size) == expected.shape
        assert np.array_equal(indices(out), expected)


@pytest.mark.parametrize("size", [None, 40, 20, 7, 1])
def test_a_zarr_array_is_read_like_any_other(tmp_path, out, size, monkeypatch):
    monkeypatch.setattr("mandeldask.image.BAND_ROWS", 40)
    monkeypatch.setattr("mandeldask.image.BLOCK_SAMPLES", 1500)
    counts = field(90, 75)
    k = max(1, int(90 / (size or 90) + 0.5))
    write_png(sharded(tmp_path / "z", counts, 16, 32), MAX_ITER, out, size=size)
    assert np.array_equal(indices(out), palette_index(counts, MAX_ITER)(counts[::k, ::k])[::-1])


def test_the_same_field_gives_the_same_bytes(tmp_path):
    """Also in another store, and the same colours at another size."""
    counts = np.tile(field(500, 600), (3, 3))
    pictures = []
    for i, source in enumerate(
        [counts, sharded(tmp_path / "a", counts, 256, 512), sharded(tmp_path / "b", counts, 100, 1000)]
    ):
        write_png(source, MAX_ITER, tmp_path / f"{i}.png", description="a field")
        pictures.append((tmp_path / f"{i}.png").read_bytes())
    assert pictures[0] == pictures[1] == pictures[2]
    write_png(counts, MAX_ITER, tmp_path / "small.png", size=600)
    assert np.array_equal(indices(tmp_path / "small.png"), indices(tmp_path / "0.png")[::-1][::3, ::3][::-1])


class Recorder:
    """A field that counts how often each of its chunks is read."""

    dtype = np.dtype("int32")

    def __init__(self, shape, chunks):
        self.shape, self.chunks = shape, chunks
        self.reads = np.zeros([-(-n // c) for n, c in zip(shape, chunks, strict=True)], int)

    def __getitem__(self, key):
        ranges = [range(n)[s] for n, s in zip(self.shape, key, strict=True)]
        self.reads[np.ix_(*(sorted({i // c for i in r}) for r, c in zip(ranges, self.chunks, strict=True)))] += 1
        return np.ones([len(r) for r in ranges], np.int32)


@pytest.mark.parametrize("size", [None, 1500, 100])
@pytest.mark.parametrize("chunks", [(256, 256), (512, 512), (500, 300), (3000, 2000)])
def test_each_chunk_is_decoded_once_for_the_picture(out, chunks, size, monkeypatch):
    counts = Recorder((3000, 4000), chunks)
    monkeypatch.setattr("mandeldask.image._sample", lambda counts: np.ones(1, np.int32))
    monkeypatch.setattr("mandeldask.image.BAND_ROWS", 3000)
    monkeypatch.setattr("mandeldask.image.BLOCK_SAMPLES", 3000 * 2000)
    write_png(counts, MAX_ITER, out, size=size)
    assert counts.reads.max() == 1


def test_the_scale_reads_a_bounded_part_of_the_field(monkeypatch):
    from mandeldask.image import _sample

    counts = Recorder((200_000, 100_000), (512, 512))
    assert _sample(counts).size == (24 * 48) ** 2
    assert 24**2 <= counts.reads.sum() <= 4 * 24**2
    for side in (1, 1152, 1153, 1500):
        assert _sample(Recorder((side, side), (64, 64))).size == min(side, 1152) ** 2


def test_memory_does_not_grow_with_the_field(tmp_path, out):
    """256 MiB of escape times in shards of 16 MiB, within 64 MiB."""
    tile = np.tile(field(256, 256), (8, 8))
    array = zarr.create_array(
        str(tmp_path / "z"),
        shape=(8192, 8192),
        dtype="int32",
        chunks=(512, 512),
        shards=(2048, 2048),
        fill_value=0,
    )
    for y in range(0, 8192, 2048):
        for x in range(0, 8192, 2048):
            array[y : y + 2048, x : x + 2048] = tile
    tracemalloc.start()
    try:
        write_png(array, MAX_ITER, out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20, f"{peak / 2**20:.0f} MiB"


def test_progress_counts_the_rows(out, monkeypatch):
    monkeypatch.setattr("mandeldask.image.BAND_ROWS", 16)
    calls = []
    write_png(field(40, 30), MAX_ITER, out, progress=lambda done, rows: calls.append((done, rows)))
    assert calls == [(8, 40), (24, 40), (40, 40)]


def test_the_picture_says_where_it_comes_from(out):
    write_png(field(4, 4), MAX_ITER, out, description="x [-1.5, 0.5]\0 é ∞")
    assert Image.open(out).text == {"Software": "mandeldask", "Description": "x [-1.5, 0.5]  é ?"}


@pytest.mark.parametrize("name", COLORMAPS)
def test_every_colour_map_has_its_own_ends(name):
    colours = palette(name, "#FF0080")
    assert len(colours) == 256
    assert (colours[NOT_COMPUTED], colours[INTERIOR]) == (GREY, (255, 0, 128))
    assert all(type(v) is int and 0 <= v <= 255 for colour in colours for v in colour)
    assert GREY not in colours[1:] or name == "greys"
    if name != "classic":
        known = getattr(bokeh.palettes, name.capitalize() + "256")
        assert ["#{:02x}{:02x}{:02x}".format(*colours[i]) for i in (1, 254)] == [
            known[0].lower(),
            known[-1].lower(),
        ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"colormap": "Magma"}, "did you mean magma"),
        ({"colormap": "virdis"}, "one of classic, .*got 'virdis'; did you mean viridis"),
        ({"colormap": None}, "colormap"),
        ({"scale": "equalized"}, "scale .*did you mean equalised"),
        ({"interior": "black"}, "#rrggbb"),
        ({"interior": "#12345"}, "#rrggbb"),
        ({"interior": 0}, "#rrggbb"),
        ({"size": 0}, "size .*got 0"),
        ({"size": 1.5}, "size .*got 1.5"),
        ({"size": True}, "size .*got True"),
        ({"max_iter": 0}, "max_iter .*got 0"),
        ({"max_iter": 2**31}, "max_iter"),
        ({"max_iter": 10.0}, "max_iter"),
        ({"counts": np.zeros((2, 2))}, "integers .*float64"),
        ({"counts": np.zeros((2, 2), bool)}, "integers"),
        ({"counts": np.zeros(3, int)}, r"shape \(3,\)"),
        ({"counts": np.zeros((0, 3), int)}, r"shape \(0, 3\)"),
        ({"counts": [[1, 2]]}, "integers"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, out, bad, message):
    arguments = {"counts": np.ones((2, 2), int), "max_iter": MAX_ITER, "path": out} | bad
    with pytest.raises(ConfigError, match=message) as error:
        write_png(**arguments)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_side_beyond_png_is_refused(out):
    counts = np.broadcast_to(np.ones(1, np.int8), (1, 2**31))
    with pytest.raises(ConfigError, match="give a size"):
        write_png(counts, MAX_ITER, out)


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
        write_png(field(3, 3), MAX_ITER, tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_directory_that_may_not_be_written(request):
    folder = Path(tempfile.mkdtemp())  # where any user may look, unlike tmp_path
    request.addfinalizer(folder.rmdir)
    folder.chmod(0o555)
    if os.geteuid() == 0:  # root may write anywhere
        os.seteuid(65534)
        request.addfinalizer(lambda: os.seteuid(0))
    with pytest.raises(ConfigError, match="Permission denied"):
        write_png(field(3, 3), MAX_ITER, folder / "a.png")
    assert not list(folder.iterdir())


def test_a_name_too_long_for_the_file_system(tmp_path):
    with pytest.raises(ConfigError, match="cannot write"):
        write_png(field(3, 3), MAX_ITER, tmp_path / ("a" * 300 + ".png"))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_a_full_disk_leaves_the_old_picture(tmp_path, out, monkeypatch):
    write_png(field(3, 3), MAX_ITER, out)
    before = out.read_bytes()
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr("mandeldask.image.open", lambda *_: full, raising=False)
        with pytest.raises(StoreError, match="disk is full"):
            write_png(field(30, 30), MAX_ITER, out)
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interruption_leaves_the_old_picture(tmp_path, out, stop):
    write_png(field(3, 3), MAX_ITER, out)
    before = out.read_bytes()

    def interrupt(done, rows):
        raise stop

    with pytest.raises(stop):
        write_png(field(30, 30), MAX_ITER, out, progress=interrupt)
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_damaged_store_is_named_and_leaves_no_picture(tmp_path, out):
    array = sharded(tmp_path / "z", field(64, 64), 16, 32)
    shard = next(p for p in (tmp_path / "z").rglob("*") if p.is_file() and p.name != "zarr.json")
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    with pytest.raises(StoreError, match=r"cannot read rows .* columns .*: "):
        write_png(array, MAX_ITER, out)
    assert [p.name for p in tmp_path.iterdir()] == ["z"]
