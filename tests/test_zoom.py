"""Films: what they need, what they show, and that they go on where they were interrupted."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import skip_or_fail
from hypothesis import given, settings
from hypothesis import strategies as st
from services import ENV, poll

from mandeldask import zoom
from mandeldask.cli import cli
from mandeldask.errors import ConfigError, StoreError
from mandeldask.image import PictureOptions, averaged, srgb_curve
from mandeldask.image.samples import computed
from mandeldask.store import Description, open_for_writing, open_store
from mandeldask.view import View
from mandeldask.zoom.film import Film
from mandeldask.zoom.painter import Painter, _atlas, _coloured

pytestmark = pytest.mark.once  # another Python and zarr change little here

SEAHORSE = ("-0.743643887037151", "0.131825904205330")
SMALL = Film(SEAHORSE, "3", "0.01", (160, 90), 6, 2, 300)
OPTIONS = ["--centre", *SEAHORSE, "--from", "3", "--to", "0.01", "--size", "160x90", "--fps", "6", "--seconds", "2"]
OPTIONS += ["--max-iter", "300"]


def call(*words, cwd, program=("-m", "mandeldask")):
    command = [sys.executable, *program, "zoom", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=ENV, capture_output=True, text=True, timeout=200, check=False)


def shards(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(Path(folder).glob("*.zarr/*/escape_time/c/*/*"))}


def decoded(path):
    try:
        import av
    except ImportError:
        skip_or_fail("needs av")
    with av.open(os.fspath(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        rate = stream.average_rate
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], rate


def direct(film, frame, picture, times=4):
    """A frame rendered by itself, with times x times samples a pixel."""
    width, height = film.size
    shape = times * height, times * width
    view = View.around(film.centre, film.span(frame), shape, "pixel")
    light = picture.like(computed(view, film.max_iter, 1)).light(slice(0, shape[0]), slice(0, shape[1]))
    return np.moveaxis(srgb_curve()[(averaged(light, times) * 65535).round().astype(np.uint16)], 0, -1)[::-1]


def psnr(a, b):
    return 10 * math.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a small film, made by the command."""
    folder = tmp_path_factory.mktemp("film")
    done = call(*OPTIONS, "--out", "film.mp4", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "12 frames of 160 x 90" in done.stderr
    assert "frames     0/12" in done.stderr
    assert done.stdout == ""
    return folder


@pytest.fixture(scope="module")
def picture(made):
    """Of the strip, in the colours of the film."""
    return _coloured(open_store(made / "film.zoom/strip.zarr"), PictureOptions())


def test_the_film_has_its_frames_and_the_first_and_last_are_what_they_should_be(made, picture):
    frames, rate = decoded(made / "film.mp4")
    assert (len(frames), rate, frames[0].shape) == (12, 6, (90, 160, 3))
    for n in (0, 6, 11):
        assert psnr(frames[n], direct(SMALL, n, picture)) > 24  # another span, by 2 %, makes less than 20
    assert psnr(frames[0], direct(SMALL, 1, picture)) < 20


def test_frames_are_nearer_to_a_supersampled_rendering_than_one_sample_a_pixel_is(made, picture):
    strip, core = (open_store(made / f"film.zoom/{name}.zarr") for name in ("strip", "core"))
    frames = list(zoom.paint(SMALL, strip, core, PictureOptions()))
    for n in (0, 5, 11):
        wanted = direct(SMALL, n, picture)
        assert psnr(frames[n], wanted) > psnr(direct(SMALL, n, picture, 1), wanted) + 3


def test_a_frame_does_not_depend_on_those_before_it(made):
    stores = [open_store(made / f"film.zoom/{name}.zarr") for name in ("strip", "core")]
    along = Painter(SMALL, *stores, PictureOptions())
    frames = [along.paint(SMALL.span(n)) for n in range(SMALL.frames)]
    alone = Painter(SMALL, *stores, PictureOptions())
    for n in (7, 2, 11):
        np.testing.assert_array_equal(alone.paint(SMALL.span(n)), frames[n])


def test_texels_are_means_in_linear_light(tmp_path):
    """Half black, half white gives the grey of half the light, 188."""
    store = open_for_writing(
        tmp_path / "a.zarr", Description.of(View((0, 1), (0, 1), (8, 8)), 50, ("escape_time",), (8, 8))
    )
    store.write((0, 0), np.where(np.indices((8, 8)).sum(axis=0) % 2, 50, 1).astype(np.int32))
    texels, table = _atlas(_coloured(store, PictureOptions(colormap="greys", interior="#ffffff", shade="counts")))
    assert set(srgb_curve()[texels[: table[1, 0]]].ravel().tolist()) == {0, 255}
    assert set(srgb_curve()[texels[table[1, 0] :]].ravel().tolist()) == {188}


@pytest.mark.parametrize("options", [{}, {"shade": "counts"}, {"shade": "distance"}, {"light": (300, 40)}], ids=str)
def test_a_film_is_shaded_and_lit_as_a_picture_is(made, options):
    strip, core = (open_store(made / f"film.zoom/{name}.zarr") for name in ("strip", "core"))
    options = PictureOptions(**options)
    picture = _coloured(strip, options)
    assert picture.shade == (options.shade or "smooth")
    frames = list(zoom.paint(SMALL, strip, core, options))
    for n in (2, 11):
        assert psnr(frames[n], direct(SMALL, n, picture)) > 23
    if options.light:  # from elsewhere it is another film
        other = _coloured(strip, PictureOptions(light=(120, 40)))
        assert psnr(frames[2], direct(SMALL, 2, other)) < 20


def test_other_colours_compute_nothing(made):
    before = shards(made / "film.zoom")
    done = call(*OPTIONS, "--out", "film.mkv", "--colormap", "viridis", "--json", cwd=made)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "path": "film.mkv",
        "frames": 12,
        "samples": SMALL.strip.size + SMALL.core.size,
        "failed": 0,
    }
    assert shards(made / "film.zoom") == before


def test_another_film_does_not_replace_the_samples_unless_told_to(made, tmp_path):
    (tmp_path / "film.zoom").symlink_to(made / "film.zoom")
    other = ["--max-iter", "200", "--out", "film.mp4"]
    done = call(*OPTIONS, *other, cwd=tmp_path)
    assert done.returncode == 3
    assert "max_iter is 300 there, 200 here. Choose another path, or replace it with --overwrite" in done.stderr


def test_overwrite_replaces_the_samples_of_another_film(tmp_path, client):
    for max_iter in (20, 30):
        film = Film((-0.5, 0), 3, 1, (64, 64), 2, 1, max_iter)
        zoom.make(film, tmp_path / "film.mp4", client=client, overwrite=max_iter == 30)
    assert open_store(tmp_path / "film.zoom/core.zarr").description.max_iter == 30


def test_an_interrupted_film_goes_on_with_the_same_command(tmp_path):
    words = ["--centre", *SEAHORSE, "--from", "1e-3", "--to", "1e-4", "--size", "320x180", "--fps", "5", "--seconds"]
    words += ["1", "--max-iter", "1500", "--kernel", "numpy-compact", "--out", "film.mp4", "--cluster", "local"]
    command = [sys.executable, "-m", "mandeldask", "zoom", *words]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=ENV, stderr=log, start_new_session=True)
    try:
        poll(lambda: len(shards(tmp_path / "film.zoom")) > 0, "a shard", 120)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    said = (tmp_path / "log").read_text()
    assert "what was computed is kept; go on with:  " in said
    assert not (tmp_path / "film.mp4").exists()
    before = shards(tmp_path / "film.zoom")
    words[words.index("numpy-compact")] = "numba"  # the bits are the same
    done = call(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = shards(tmp_path / "film.zoom")
    assert before.items() <= after.items()
    assert len(after) > len(before)
    assert len(decoded(tmp_path / "film.mp4")[0]) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "film.zoom", "log"]


def test_a_description_in_a_file_and_options_over_it(tmp_path):
    (tmp_path / "film.yaml").write_text(
        'centre: ["-0.5", 0]\nfrom: 3\nto: "1"\nsize: [64, 64]\nfps: 2\nseconds: 5\nmax_iter: 1e2\nout: a.mp4\n'
        "cluster: {kind: local, workers: 1}\nkernel: numpy\n"
    )
    done = call("film.yaml", "--seconds", "1", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(decoded(tmp_path / "a.mp4")[0]) == 2
    assert open_store(tmp_path / "a.zoom/strip.zarr").description.max_iter == 100


@pytest.mark.parametrize(("name", "arithmetic"), [("seahorse-valley", "binary64"), ("leaves", "exact")])
def test_the_films_in_configs_are_whole(name, arithmetic):
    film = zoom.Film.of(zoom.read_film(Path(__file__).parent.parent / f"configs/films/{name}.yaml"))
    assert film.arithmetic == arithmetic
    assert film.frames >= 300
    assert film.samples_a_pixel < 0.35


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    st.floats(1e-3, 4),
    st.floats(1.01, 1e4),
    st.tuples(st.integers(32, 500), st.integers(32, 500)),
)
def test_strip_and_core_hold_every_pixel_of_every_frame(centre, first, ratio, half):
    film = Film(centre, first, first / ratio, (2 * half[0], 2 * half[1]), 30, 1)
    inner, outer = film.strip.frame.radius
    width, height = film.size
    spans = [float(film.span(n)) for n in range(film.frames)]
    assert outer >= spans[0] / width * film.corner
    assert inner <= spans[29] / width * min(film.size) / 2
    assert film.columns >= 2 * math.pi * film.corner  # at least a sample a pixel in the corner
    assert film.core.extent[0][1] - film.core.extent[0][0] == pytest.approx(spans[29], rel=1e-6)
    assert film.core.shape == (2 * height, 2 * width)
    assert (spans[0], spans[-1]) == (first, first / ratio)
    np.testing.assert_allclose(np.diff(np.log(spans)), -math.log(ratio) / 29, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": "1e-5"}, "from must be wider than to, .* got 1e-5 and 0.01"),
        ({"last": 0}, "both above 0"),
        ({"last": "-1"}, "both above 0"),
        ({"last": "deep"}, "to must be a number"),
        ({"size": (161, 90)}, "even and from 64 to 8192, such as 1280x720; got 161x90"),
        ({"size": (160, 62)}, "got 160x62"),
        ({"size": (160, 8194)}, "got 160x8194"),
        ({"size": 160}, "size must be"),
        ({"fps": 0}, "fps must be above 0"),
        ({"fps": 1000}, "at most 240"),
        ({"seconds": -1}, "seconds must be above 0"),
        ({"seconds": "long"}, "seconds must be a number"),
        ({"seconds": "0.1"}, "2 to 1000000 frames; fps times seconds make 1"),
        ({"max_iter": 0}, "max_iter must be an integer"),
        ({"max_iter": 1.5}, "max_iter must be an integer"),
        ({"centre": (1,)}, "centre must be two numbers"),
        ({"centre": ("here", 1)}, r"centre\[0\] must be a number"),
    ],
)
def test_a_bad_film_is_refused_with_what_would_do(change, message):
    good = {"centre": SEAHORSE, "first": "3", "last": "0.01", "size": (160, 90), "fps": 6, "seconds": 2}
    with pytest.raises(ConfigError, match=message):
        Film(**(good | change))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "film.gif"], "a film's name must end in .mp4, .mkv, .mov; got film.gif"),
        (["--out", "nowhere/film.mp4"], "there is no directory nowhere"),
        ([], "no film named: give --out FILM.mp4"),
        (["--out", "film.mp4", "--colormap", "virids"], "did you mean viridis?"),
        (["--out", "film.mp4", "--size", "640x"], "such as 1280x720; got 640x"),
        (["--out", "film.mp4", "--size", "641x360"], "even and from 64 to 8192"),
        (["nothing.yaml"], "nothing.yaml: cannot be read"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_in_a_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["zoom", *OPTIONS, *words])
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [["--size", "1920", "1080"], ["--size", "1920x1080"], ["--size=1920,1080"]])
@pytest.mark.parametrize("centre", [["--centre", "-0.75", "-.1"], ["--centre=-0.75", "-.1"], ["--centre", "-0.75,-.1"]])
def test_a_pair_is_two_words_or_one(size, centre):
    given = cli.commands["zoom"].make_context("zoom", [*size, *centre, "a.yaml", "--fps", "9"]).params
    assert (given["size"], given["centre"]) == (("1920", "1080"), ("-0.75", "-.1"))
    assert (given["config"], given["fps"]) == ("a.yaml", "9")


def test_the_size_of_a_film_may_be_one_word():
    values = {"centre": (0, 0), "from": 3, "to": 1}
    assert zoom.Film.of(values | {"size": "160x90"}).size == zoom.Film.of(values | {"size": [160, 90]}).size


def test_an_unknown_key_is_told_with_what_was_meant(tmp_path):
    (tmp_path / "film.yaml").write_text("centre: [0, 0]\nform: 3\n")
    with pytest.raises(ConfigError, match=r"film.yaml: unknown key `form`; did you mean `from`\? Permitted: centre"):
        zoom.read_film(tmp_path / "film.yaml")
    (tmp_path / "film.yaml").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="a film's description is a mapping"):
        zoom.read_film(tmp_path / "film.yaml")
    with pytest.raises(ConfigError, match="from, to is missing"):
        zoom.Film.of({"centre": [0, 0]})


def test_without_av_the_command_says_what_to_install(tmp_path):
    program = ("-c", "import sys; sys.modules['av'] = None; from mandeldask.cli import main; main()")
    done = call(*OPTIONS, "--out", "film.mp4", cwd=tmp_path, program=program)
    assert done.returncode == 2
    assert "[zoom]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_samples_should_go_is_left_alone(tmp_path, client):
    (tmp_path / "film.zoom").write_text("mine")
    film = Film((-0.5, 0), 3, 1, (64, 64), 2, 1, 20)
    with pytest.raises(StoreError, match=r"cannot make .*film\.zoom"):
        zoom.make(film, tmp_path / "film.mp4", client=client)
    assert (tmp_path / "film.zoom").read_text() == "mine"
