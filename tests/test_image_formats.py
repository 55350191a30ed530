"""Every format, as readers other than ours see it."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image
from test_image import ALL, colours, field, indices, stored

from mandeldask.config import load
from mandeldask.errors import ConfigError, StoreError
from mandeldask.image import PictureOptions, is_ours, picture

SHAPE = (700, 1300)
OPTIONS = {"palette": {"shade": "counts"}, "colours": {"shade": "smooth", "light": (315, 45)}}
Image.MAX_IMAGE_PIXELS = None


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("store") / "a.zarr", SHAPE, (256, 512), ALL)


def rgb(drawn, folder):
    """The picture as a PNG has it."""
    drawn.save(folder / "expected.png")
    return colours(folder / "expected.png")


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("ending", ["tif", "TIFF"])
def test_a_tiff_is_a_pyramid_that_tifffile_and_pillow_open(store, tmp_path, name, ending):
    drawn = picture(store, **OPTIONS[name])
    drawn.save(tmp_path / f"a.{ending}")
    with tifffile.TiffFile(tmp_path / f"a.{ending}") as tiff:
        assert tiff.is_bigtiff
        assert tiff.pages[0].software == "mandeldask"
        assert tiff.pages[0].description == store_text(store)
        levels = tiff.series[0].levels
        assert [level.shape[:2] for level in levels] == [(700, 1300), (350, 650), (175, 325)]
        assert all(level.pages[0].tile == (512, 512) for level in levels)
        for k, level in enumerate(levels):
            pixels = level.asarray()
            if name == "palette":
                pixels = (level.pages[0].colormap.T // 257).astype(np.uint8)[pixels]
            assert np.array_equal(pixels, rgb(drawn.pyramid(1)[k], tmp_path))
    assert np.array_equal(colours(tmp_path / f"a.{ending}"), rgb(drawn, tmp_path))


def store_text(store):
    d = store.description
    return f"Mandelbrot escape times, x {list(d.x)}, y {list(d.y)}, {d.registration}, max_iter {d.max_iter}"


@pytest.mark.parametrize("name", OPTIONS)
def test_a_deep_zoom_image_is_an_xml_file_and_tiles_of_every_level(store, tmp_path, name):
    drawn = picture(store, **OPTIONS[name])
    calls = []
    drawn.save(tmp_path / "a.dzi", lambda done, all_: calls.append((done, all_)))
    root = ElementTree.parse(tmp_path / "a.dzi").getroot()
    space = "{http://schemas.microsoft.com/deepzoom/2008}"
    side = int(root.get("TileSize"))
    assert (root.tag, root.get("Format"), root.get("Overlap")) == (f"{space}Image", "png", "0")
    size = root.find(f"{space}Size")
    height, width = int(size.get("Height")), int(size.get("Width"))
    assert (height, width) == SHAPE
    numbers = sorted(int(p.name) for p in (tmp_path / "a_files").iterdir())
    assert numbers == list(range((max(SHAPE) - 1).bit_length() + 1))
    for number in numbers:
        k = numbers[-1] - number
        whole = np.zeros((-(-height // 2**k), -(-width // 2**k), 3), np.uint8)
        for tile in (tmp_path / "a_files" / str(number)).iterdir():
            column, row = map(int, tile.stem.split("_"))
            part = colours(tile)
            assert max(part.shape) <= side
            whole[row * side : row * side + part.shape[0], column * side : column * side + part.shape[1]] = part
        assert np.array_equal(whole, rgb(drawn.pyramid(1)[k], tmp_path))
    assert calls[-1][0] == calls[-1][1]


@pytest.mark.parametrize("shape", [(13, 2100), (1045, 40)])
def test_the_levels_of_an_averaged_deep_zoom_image_are_halves_rounded_up(tmp_path, shape):
    drawn = picture(field(*shape), supersample=4)
    drawn.save(tmp_path / "a.dzi")
    rows, columns = drawn.shape
    for folder in sorted((tmp_path / "a_files").iterdir(), key=lambda path: -int(path.name)):
        sizes = {path.stem: Image.open(path).size for path in folder.iterdir()}
        assert (
            sum(sizes[name][0] for name in sizes if name.endswith("_0")),
            sum(sizes[name][1] for name in sizes if name.startswith("0_")),
        ) == (columns, rows)
        rows, columns = -(-rows // 2), -(-columns // 2)


def test_a_deep_zoom_image_replaces_its_own_and_nothing_from_elsewhere(tmp_path):
    (tmp_path / "a_files").mkdir()
    (tmp_path / "a_files" / "mine").touch()
    with pytest.raises(ConfigError, match="a_files is there already, from elsewhere"):
        picture(field(30, 30)).save(tmp_path / "a.dzi")
    assert [p.name for p in tmp_path.rglob("*")] == ["a_files", "mine"]
    (tmp_path / "a_files" / "mine").unlink()
    (tmp_path / "a_files").rmdir()
    picture(field(1000, 30)).save(tmp_path / "a.dzi")
    assert is_ours(tmp_path / "a.dzi")
    picture(field(30, 30)).save(tmp_path / "a.dzi")
    assert len(list((tmp_path / "a_files").iterdir())) == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.dzi", "a_files"]


@pytest.mark.parametrize("name", ["a.tif", "a.dzi"])
def test_an_interruption_leaves_nothing(tmp_path, name):
    def interrupt(done, all_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        picture(field(30, 30)).save(tmp_path / name, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_without_tifffile_the_package_to_install_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ConfigError, match=r"pip install '.*\[pictures\]'"):
        picture(field(30, 30)).save(tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_a_full_disk_is_told(tmp_path, name, monkeypatch):
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr("mandeldask.image.files.open", lambda *_: full, raising=False)
        with pytest.raises(StoreError, match="disk is full"):
            picture(field(300, 300)).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_tiles_not_computed_are_grey_in_every_format(tmp_path):
    half = stored(tmp_path / "half.zarr", (600, 600), (300, 300), leave_out={(1, 0)})
    drawn = picture(half, shade="counts")
    assert drawn.missing == 1
    drawn.save(tmp_path / "a.png")
    assert (indices(tmp_path / "a.png")[:300, :300] == 0).all()
    drawn.save(tmp_path / "a.tif")
    assert (colours(tmp_path / "a.tif")[:300, :300] == 128).all()
    picture(half, supersample=2).save(tmp_path / "b.png")
    assert (colours(tmp_path / "b.png")[:150, :150] == 128).all()


def test_the_command_draws_every_format_and_tells_of_missing_tiles(tmp_path):
    stored(tmp_path / "half.zarr", (600, 600), (300, 300), ALL, leave_out={(1, 0)})
    for name, options in {
        "a.png": ["--shade", "smooth", "--light", "315", "45", "--supersample", "2", "--colormap", "cmocean:ice"],
        "a.tif": ["--repeat", "3", "--phase", "0.5", "--reverse"],
        "a.dzi": ["--period", "20", "--interior", "#ffffff"],
    }.items():
        command = [sys.executable, "-m", "mandeldask", "image", "half.zarr", name, *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"{name}: {300 if name == 'a.png' else 600} x" in done.stderr
        assert "1 tile not computed yet: grey" in done.stderr
    assert colours(tmp_path / "a.png").shape == (300, 300, 3)


CONFIGS = Path(__file__).parent.parent / "configs"
GALLERY = [file for room in ("gallery", "deep") for file in sorted((CONFIGS / room).glob("*.yaml"))]


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_each_picture_of_the_gallery_has_a_config_that_holds_all_that_it_takes(path):
    config = load(path)
    config.view.check_resolved()
    PictureOptions.of(config.picture.model_dump(exclude_none=True)).check(config.view.shape)
    assert path.read_text().startswith("# yaml-language-server: $schema=../schema.json\n")
    drawn = path.parent.parent.parent / f".github/{path.parent.name}/{path.stem}.jpg"
    with Image.open(drawn) as picture:
        assert max(picture.size) == 1200 and drawn.stat().st_size <= 300_000


CONFIG = """
view: {x: [-1.5, 0.5], y: [-0.2, 1.2], shape: [70, 100]}
max_iter: 50
kernel: numpy-compact
fields: [escape_time, smooth]
picture: {shade: smooth, colormap: magma, supersample: 2}
cluster: {kind: local, workers: 1}
"""


def test_one_command_computes_and_draws_what_a_description_says(tmp_path):
    (tmp_path / "a.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "mandeldask", "run", "a.yaml", "--out", "a.zarr", "--image", "b.png"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = rgb(picture(tmp_path / "a.zarr", shade="smooth", colormap="magma", supersample=2), tmp_path)
    assert np.array_equal(colours(tmp_path / "b.png"), expected) and expected.shape == (35, 50, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("picture.colormap=magmma", "did you mean magma"),
        ("picture.supersample=9", "supersample must be from 1 to 8"),
        ("picture.colour=red", "unknown key `picture.colour`; did you mean"),
        ("picture.light=[1]", "picture.light"),
    ],
)
def test_a_look_that_cannot_be_drawn_is_told_before_anything_is_computed(tmp_path, change, message):
    (tmp_path / "a.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "mandeldask", "run", "a.yaml", "--out", "a.zarr", "--set", change]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.yaml"]


def environment():
    return os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
