"""Films and strips beyond binary64: exact counts over hundreds of orders of magnitude, from one reference."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from services import ENV, poll
from test_zoom import SEAHORSE, decoded, psnr, shards

import mandeldask as md
from mandeldask import zoom
from mandeldask.config import parse
from mandeldask.errors import ConfigError
from mandeldask.field import escape_time
from mandeldask.grid import complex_grid
from mandeldask.image import PictureOptions, averaged, srgb_curve
from mandeldask.image.samples import samples_of
from mandeldask.job import Notice, Plan
from mandeldask.kernels import deep, orbit_of_its_own
from mandeldask.store import open_store
from mandeldask.view import Deep, LogPolar, View, frame_from_json
from mandeldask.zoom.film import Film
from mandeldask.zoom.painter import Painter, _coloured

pytestmark = pytest.mark.once  # another Python and zarr change little here

SPIRAL = "0", "1"  # its orbit ends in a cycle: counts grow with the depth alone, by 800 in 300 orders of magnitude
STRIP = View.log_polar(SPIRAL, ("1e-300", 3), 64)
MAX_ITER = 1500
FILM = Film(SPIRAL, "1e-299", "1e-304", (64, 64), 3, 1, MAX_ITER)


def rows_at(radius):
    """Two rows of STRIP about there."""
    row = round(float(Decimal(radius).ln() - Decimal("1e-300").ln()) * 64 / (2 * np.pi))
    return row, row + 2


def test_a_deep_strip_has_the_samples_of_a_plain_one_in_a_unit():
    plain, exact = (View.log_polar((0, 0), ("1e-9", 2), 60, arithmetic=a) for a in ("binary64", "exact"))
    assert isinstance(plain.frame, LogPolar) and isinstance(exact.frame, Deep)
    assert exact.shape == plain.shape
    c = exact.block((0, 205), (0, 60)) * 2.0**exact.frame.unit
    np.testing.assert_allclose(c, plain.block((0, 205), (0, 60)), rtol=3e-16)
    assert plain.in_exact_arithmetic() == exact.in_exact_arithmetic() == exact


def test_a_strip_is_deep_where_binary64_cannot_resolve_it_and_comes_back_from_json_and_a_description():
    assert isinstance(View.log_polar(SEAHORSE, ("1e-9", 2), 60).frame, LogPolar)
    assert isinstance(STRIP.frame, Deep)
    again = View(STRIP.x, STRIP.y, STRIP.shape, STRIP.registration, frame_from_json(STRIP.frame.to_json()))
    assert again == STRIP and hash(again) == hash(STRIP)
    assert str(again) == str(STRIP) == "log-polar around [0, 1], radius 1.00000e-300 to 3.00000"
    for view in (STRIP, again):
        config = parse({"view": view, "max_iter": 9})
        assert parse(config.model_dump()).view == STRIP
    assert STRIP.cell_area == 0


def test_a_strip_over_541_orders_is_made_and_one_over_more_is_told_of_both_numbers():
    for radius in (("1e-541", "1"), ("1.99e-541", "1.99"), ("3e-9000", "3e-8459")):
        assert View.log_polar(SPIRAL, radius, 64).shape[0] == 1 + round(541 * np.log(10) * 64 / (2 * np.pi))
    with pytest.raises(ConfigError, match=r"at most 541 orders .* this one goes over 541\.7: make two"):
        View.log_polar(SPIRAL, ("1e-541", "5"), 64)


@pytest.mark.parametrize("radius", ["2", "1e-5", "1e-40", "1e-280", "1e-300"])
def test_samples_of_all_depths_are_those_of_their_own_orbits(radius, monkeypatch):
    window = rows_at(radius), (0, 64)
    offsets = STRIP.block(*window)
    assert abs(offsets[0, 0]) * Fraction(2) ** STRIP.frame.unit == pytest.approx(Fraction(radius), rel=0.2)
    counts = escape_time(complex_grid(STRIP, window=window), MAX_ITER, view=STRIP).compute(scheduler="sync")
    wanted = [orbit_of_its_own(STRIP, c, MAX_ITER) for c in offsets.ravel().tolist()]
    assert list(zip(counts.ravel().tolist(), [True] * 128, strict=True)) == wanted
    assert deep.last_counts().unproven == 0
    monkeypatch.setattr(deep, "first_pass", lambda *given: given[-2].fill(True))
    again = escape_time(complex_grid(STRIP, window=window), MAX_ITER, view=STRIP).compute(scheduler="sync")
    assert np.array_equal(again, counts)
    assert deep.last_counts().second == 128
    assert deep.last_counts().third < 10


def test_the_second_pass_gives_the_same_ends_as_the_first(monkeypatch):
    grid = complex_grid(STRIP, window=(rows_at("1e-200"), (0, 64)))
    fields = "escape_time", "smooth", "distance"
    first = escape_time(grid, MAX_ITER, "auto", fields, view=STRIP).compute(scheduler="sync")
    monkeypatch.setattr(deep, "first_pass", lambda *given: given[-2].fill(True))
    second = escape_time(grid, MAX_ITER, "auto", fields, view=STRIP).compute(scheduler="sync")
    for name in ("smooth", "distance"):
        np.testing.assert_allclose(second[name], first[name], rtol=1e-6)


def test_what_surely_never_escapes_is_not_followed_and_nothing_else_is_taken_for_it(monkeypatch):
    t = np.exp(2j * np.pi * np.arange(400) / 400)
    edge = np.concatenate([t / 2 - t * t / 4, -1 + t / 4])
    middle = np.repeat([0, -1], 400)
    held = deep.Held(deep.reference_orbit((Fraction(-2), Fraction(0)), 0, 500))
    sizes, first_pass = [], deep.first_pass

    def counted(*given):
        sizes.append(given[2].size)
        first_pass(*given)

    monkeypatch.setattr(deep, "first_pass", counted)
    function = deep.DeepFunction(500, ("escape_time",), held)
    assert set(function(middle + (edge - middle) * (1 - 1e-5) + 2).tolist()) == {500}
    function(middle + (edge - middle) * (1 + 1e-12) + 2)
    assert sizes[0] < 20  # beside the cusp the cardioid is thinner than the margin
    assert sizes[1] == 800


@pytest.fixture(scope="module")
def made(client, tmp_path_factory):
    """A folder with a film to below 1e-300, and what was told."""
    folder, told = tmp_path_factory.mktemp("film"), []
    done = zoom.make(FILM, folder / "film.mp4", client=client, tell=told.append)
    assert (done.frames, done.failed) == (3, 0)
    return folder, told


def references(told):
    return sum(isinstance(event, Notice) and " made in " in event.text for event in told)


def test_the_reference_is_made_once_for_all_rows_and_the_counts_are_proven(made):
    folder, told = made
    assert references(told) == 2  # of the strip, and of its core
    for name, view in (("strip", FILM.strip), ("core", FILM.core)):
        path = folder / f"film.zoom/{name}.zarr"
        d = open_store(path).description
        assert (d.view, d.proof, d.fields) == (view, "double-double", ("escape_time", "smooth"))
        assert open_store(path).read_tiles()["unproven"].sum() == 0
        assert md.verify(path, recompute=1).exit_code == 0
    opened = md.open(folder / "film.zoom/strip.zarr")
    assert opened.y.attrs["long_name"] == f"natural logarithm of |c - centre| / 2^{FILM.strip.frame.unit}"
    assert md.picture(folder / "film.zoom/strip.zarr").shade == "smooth"


def test_the_same_checksum_from_another_tiling_and_after_a_tile_was_lost(made, client, tmp_path):
    folder, _ = made
    strip = open_store(folder / "film.zoom/strip.zarr")
    checksum = strip.checksum()
    md.run({"view": FILM.strip, "max_iter": MAX_ITER, "tile": [700, 512]}, tmp_path / "a.zarr", client=client)
    assert open_store(tmp_path / "a.zarr").checksum() == checksum
    lost, told = next(iter(shards(folder / "film.zoom"))), []
    assert "core" in str(lost)
    lost = next(path for path in shards(folder / "film.zoom") if "strip.zarr/0/" in str(path))
    lost.unlink()
    zoom.make(FILM, folder / "film.mp4", client=client, tell=told.append)
    assert lost.exists()
    assert references(told) == 0
    assert open_store(folder / "film.zoom/strip.zarr").checksum() == checksum


def test_a_tile_whose_proof_is_not_known_is_computed_again(made, client):
    folder, _ = made
    strip = open_store(folder / "film.zoom/strip.zarr")
    strip.place.delete("tiles/unproven/c/0/0")
    assert zoom.make(FILM, folder / "film.mp4", client=client).failed == 0
    assert (strip.read_tiles()["unproven"] == 0).all()


def test_a_frame_is_the_picture_of_its_view(made):
    folder, _ = made
    strip, core = (open_store(folder / f"film.zoom/{name}.zarr") for name in ("strip", "core"))
    picture = _coloured(strip, FILM.colours(PictureOptions()), core)
    frames, _ = decoded(folder / "film.mp4")
    assert len(np.unique(frames[2])) > 100
    for n in (1, 2):
        view = View.around(SPIRAL, FILM.span(n), (256, 256), "pixel")
        fields = "escape_time", "smooth"
        block = escape_time(complex_grid(view), MAX_ITER, "auto", fields, view=view).compute(scheduler="sync")
        samples = samples_of({name: np.ascontiguousarray(block[name]) for name in fields}, MAX_ITER)
        light = averaged(picture.like(samples).light(slice(0, 256), slice(0, 256)), 4)
        wanted = np.moveaxis(srgb_curve()[(light * 65535).round().astype(np.uint16)], 0, -1)[::-1]
        assert psnr(frames[n], wanted) > 20
        assert psnr(frames[n], wanted[::-1]) < 15


def test_a_film_does_not_depend_on_the_decimal_context_of_its_caller(made):
    folder, _ = made
    stores = [open_store(folder / f"film.zoom/{name}.zarr") for name in ("strip", "core")]
    painter, longer = Painter(FILM, *stores, PictureOptions()), replace(FILM, seconds=8)
    span, frame = longer.span(22), painter.paint(longer.span(22))
    with localcontext(prec=2):
        assert replace(FILM).strip == FILM.strip
        assert longer.span(22) == span
        assert np.array_equal(painter.paint(span), frame)


def test_options_that_a_deep_film_cannot_reuse_are_told(made, client):
    folder, _ = made
    other = Film(SPIRAL, "1e-299", "1e-304", (64, 64), 3, 1, MAX_ITER, "none")
    with pytest.raises(md.StoreError, match="proof is double-double there, none here"):
        zoom.make(other, folder / "film.mp4", client=client)
    with pytest.raises(md.StoreError, match=r"fields is .* there, \['escape_time', 'smooth', 'distance'\] here"):
        zoom.make(FILM, folder / "film.mp4", client=client, options=PictureOptions(shade="distance"))


def test_the_samples_of_a_shallow_film_are_what_they_were():
    shallow = Film(SEAHORSE, "3", "1.5e-5")
    assert shallow.arithmetic == "binary64"
    assert shallow.strip.frame == LogPolar(SEAHORSE, (4.21875e-06, 1.7388987966801743))
    assert shallow.described(None) == {"max_iter": 1000}
    assert shallow.colours(PictureOptions()) == PictureOptions()
    assert FILM.colours(PictureOptions()).repeat == pytest.approx(1.66, rel=0.01)
    assert FILM.colours(PictureOptions(period=9.0)) == PictureOptions(period=9.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"last": "1e-20"}, r"centre\[0\] has 15 decimals, and a last span of 1e-20 needs at least 21: give all"),
        (
            {"centre": SPIRAL, "last": "1e-600"},
            r"a strip goes over at most 541 orders .* over 600\.8: make two",
        ),
        ({"centre": SPIRAL, "last": "1e-20000"}, "to is out of range"),
        ({"centre": SPIRAL, "last": "1e-30", "proof": "some"}, "proof must be one of full, double-double, none; got"),
        ({"proof": "none"}, "proof is of exact arithmetic, and to 0.01 binary64 will do: leave it out"),
    ],
)
def test_a_bad_deep_film_is_refused_in_a_line(change, message):
    good = {"centre": SEAHORSE, "first": "3", "last": "0.01", "size": (160, 90), "fps": 6, "seconds": 2}
    with pytest.raises(ConfigError, match=message) as error:
        Film(**(good | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("centre", "message"),
    [
        (
            ("-0.75", "0.0100000000000000000000001"),
            "all samples of the last frame escape at step 315, far",
        ),
        (
            ("-0.75", "0.0001000000000000000000001"),
            "no sample of the last frame escapes within max_iter 1000: give",
        ),
    ],
)
def test_a_last_frame_of_one_colour_is_refused_before_the_strip_is_computed(centre, message, client, tmp_path):
    film = Film(centre, 3, "1e-24", (64, 64))
    with pytest.raises(ConfigError, match=message):
        zoom.make(film, tmp_path / "film.mp4", client=client)
    assert not (tmp_path / "film.zoom/strip.zarr").exists()


def test_the_remedy_for_a_last_frame_of_one_colour_makes_the_film(client, tmp_path):
    film = Film(SPIRAL, "1e-30", "1e-31", (64, 64), 2, 1, 50)
    with pytest.raises(ConfigError, match=r"max_iter 50: give more, or another centre, and --overwrite \(in Python"):
        zoom.make(film, tmp_path / "film.mp4", client=client)
    assert zoom.make(replace(film, max_iter=500), tmp_path / "film.mp4", client=client, overwrite=True).failed == 0


def test_a_deep_film_that_was_killed_goes_on_with_its_core_and_its_reference(client, tmp_path):
    words = ["--centre", *SPIRAL, "--from", "1e-20", "--to", "1e-50", "--size", "64x64", "--fps", "3", "--seconds"]
    words += ["1", "--max-iter", "500", "--out", "film.mp4", "--cluster", "one.yaml", "--quiet"]
    (tmp_path / "one.yaml").write_text("kind: local\nworkers: 1\n")
    command = [sys.executable, "-m", "mandeldask", "zoom", *words]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENV, start_new_session=True)
    try:
        poll((tmp_path / "film.zoom/strip.zarr/reference/zarr.json").exists, "the strip's reference", 120)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before, told = shards(tmp_path / "film.zoom"), []
    film = Film(SPIRAL, "1e-20", "1e-50", (64, 64), 3, 1, 500)
    assert zoom.make(film, tmp_path / "film.mp4", client=client, tell=told.append).failed == 0
    assert (sum(isinstance(event, Plan) for event in told), references(told)) == (1, 0)
    assert before.items() < shards(tmp_path / "film.zoom").items()
    assert md.verify(tmp_path / "film.zoom/strip.zarr", recompute=1).exit_code == 0
