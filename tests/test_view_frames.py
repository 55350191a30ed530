"""Turned rectangles and log-polar strips: samples beyond the upright rectangle, with the same promise of bits."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_contract import ON_CPU

import mandeldask as md
from mandeldask.config import parse
from mandeldask.errors import ConfigError, StoreError
from mandeldask.kernels import KERNELS
from mandeldask.store import Description, open_store
from mandeldask.view import LogPolar, Turned, View
from mandeldask.view.exact import BITS, FINE, PI, angles, cos_sin, radii

SEAHORSE = ("-0.743643887037151", "0.131825904205330")
STRIP = View.log_polar(SEAHORSE, ("1e-6", 2), 120)
TURNED = View.around(SEAHORSE, "1e-3", (130, 170), rotation="30")

decimals = st.decimals(-2, 2, places=15).map(str)
degrees = st.decimals(-360, 360, places=6).map(str)
turned = st.builds(
    View.around,
    st.tuples(decimals, decimals),
    st.floats(1e-6, 3),
    st.tuples(st.integers(2, 60), st.integers(2, 60)),
    st.sampled_from(["gridline", "pixel"]),
    degrees,
)


@st.composite
def strips(draw):
    outer = draw(st.floats(1e-6, 4))
    columns = draw(st.integers(8, 80))
    return View.log_polar((draw(decimals), draw(decimals)), (outer * draw(st.floats(1e-6, 0.4)), outer), columns)


views = turned | strips()


@st.composite
def windows(draw, n):
    first = draw(st.integers(0, n - 1))
    return first, draw(st.integers(first + 1, n))


def whole(view):
    return view.block((0, view.shape[0]), (0, view.shape[1]))


def machin():
    """Pi in units of 2^-BITS, by Machin's formula of 1706: 16 arctan(1/5) - 4 arctan(1/239)."""

    def arctan(inverse):
        total, power, k = 0, (1 << (BITS + 20)) // inverse, 1
        while power:
            total += power // k if k % 4 == 1 else -(power // k)
            power //= inverse * inverse
            k += 2
        return total

    return (16 * arctan(5) - 4 * arctan(239)) >> 20


def test_pi_is_pi():
    assert abs(PI * 2**BITS - machin()) < 2


@settings(deadline=None)
@given(st.integers(1, 2**31 - 1), st.data())
def test_cosines_and_sines_are_those_of_the_exact_angle_rounded_once(n, data):
    i = data.draw(st.integers(0, n - 1))
    (cos,), (sin,) = angles(n, i, i + 1)
    assert (cos, sin) == cos_sin(Fraction(i, n))  # one by a product of two factors, one by Taylor's series
    assert cos == pytest.approx(math.cos(2 * math.pi * i / n), abs=2e-15)  # the angle here is rounded
    assert sin == pytest.approx(math.sin(2 * math.pi * i / n), abs=2e-15)
    assert abs(cos * cos + sin * sin - 1) <= 4e-16


def test_quarters_of_a_turn_are_exact():
    cos, sin = angles(4 * FINE, 0, 4 * FINE, FINE)
    assert cos.tolist() == [1, 0, -1, 0]
    assert sin.tolist() == [0, 1, 0, -1]
    assert [cos_sin(Fraction(k, 4)) for k in (-1, 5)] == [(0, -1), (0, 1)]


@settings(deadline=None)
@given(st.floats(1e-14, 1), st.floats(1.5, 1e10), st.integers(2, 2**31 - 1), st.data())
def test_radii_begin_and_end_on_the_bounds_and_ascend_in_equal_ratios(inner, ratio, n, data):
    outer = inner * ratio
    assert radii(inner, outer, n, 0, 1)[0] == inner
    assert radii(inner, outer, n, n - 1, n)[0] == outer
    i = data.draw(st.integers(0, n - 1))
    expected = inner * (outer / inner) ** (i / (n - 1))
    assert radii(inner, outer, n, i, i + 1)[0] == pytest.approx(expected, rel=1e-13)


@settings(deadline=None, max_examples=60)
@given(views, st.data())
def test_any_window_has_the_bits_of_the_whole_and_so_has_every_stride(view, data):
    rows, columns = (data.draw(windows(n)) for n in view.shape)
    stride = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    part = whole(view)[rows[0] : rows[1] : stride[0], columns[0] : columns[1] : stride[1]]
    assert view.block(rows, columns, stride=stride).tobytes() == part.tobytes()
    buffer = np.empty(view.size + 5, np.complex128)
    assert view.block(rows, columns, buffer, stride).tobytes() == part.tobytes()


@settings(deadline=None, max_examples=20)
@given(views, st.data())
def test_any_chunks_of_the_grid_give_the_bits_of_the_whole_view(view, data):
    chunks = tuple(data.draw(st.integers(1, n)) for n in view.shape)
    grid = md.complex_grid(view, chunks).compute(scheduler="synchronous")
    assert grid.tobytes() == whole(view).tobytes()


@settings(deadline=None, max_examples=60)
@given(turned, st.data())
def test_a_turned_sample_is_the_offset_turned_about_the_centre(view, data):
    assume(isinstance(view.frame, Turned))
    i, j = (data.draw(st.integers(0, n - 1)) for n in view.shape)
    offset = complex(view.axis("x")[j], view.axis("y")[i])
    angle = math.radians(float(view.frame.rotation))
    expected = complex(*view.frame.centre) + offset * complex(math.cos(angle), math.sin(angle))
    found = view.block((i, i + 1), (j, j + 1))[0, 0]
    assert abs(found - expected) < 2e-15 * (1 + abs(offset))  # the angle here is rounded
    upright = View.around(view.given["centre"], view.given["span"][0], view.shape, view.registration)
    assert view.cell_area == pytest.approx(upright.cell_area, rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(strips(), st.data())
def test_a_strip_s_coordinates_are_angle_and_log_radius_of_its_samples(view, data):
    i, j = (data.draw(st.integers(0, n - 1)) for n in view.shape)
    angle, radius = view.axis("x")[j], math.exp(view.axis("y")[i])
    expected = complex(*view.frame.centre) + radius * complex(math.cos(angle), math.sin(angle))
    assert abs(view.block((i, i + 1), (j, j + 1))[0, 0] - expected) < 1e-14
    assert view.cell_area == 0


@settings(deadline=None)
@given(views)
def test_the_extent_holds_all_samples(view):
    (left, right), (bottom, top) = view.extent
    c = whole(view)
    slack = 1e-12
    assert left - slack <= c.real.min() and c.real.max() <= right + slack
    assert bottom - slack <= c.imag.min() and c.imag.max() <= top + slack


@settings(deadline=None)
@given(st.sampled_from(["90", "-270", 90, "90.0", "9e1"]))
def test_a_quarter_turn_is_exact_and_has_one_spelling(rotation):
    view = View.around((1, 0.5), 2, (3, 5), rotation=rotation)
    assert view.frame.rotation == "90"
    np.testing.assert_array_equal(whole(view).real, 1 - np.repeat([[-0.5], [0], [0.5]], 5, 1) * 1.0)
    np.testing.assert_array_equal(whole(view).imag, np.repeat([[-0.5, 0, 0.5, 1, 1.5]], 3, 0))


@pytest.mark.parametrize("rotation", [0, "0", "360", "-360.00", "-0"])
def test_a_full_turn_or_none_is_the_upright_view(rotation):
    assert View.around(SEAHORSE, "1e-3", (20, 30), rotation=rotation) == View.around(SEAHORSE, "1e-3", (20, 30))


@pytest.mark.parametrize(
    ("view", "digest"),
    [
        (STRIP, "475d63bdefff59bf702cb238dc649392508a1688a287f4b27ebc495edc86cec2"),
        (TURNED, "786bb4f0f9b2bebad4dc6877b30777e18c4d6622aa586e972c100125de996879"),
    ],
)
def test_samples_have_the_bits_they_have_on_every_machine(view, digest):
    """The bits of NumPy 2.4 and 2.5, on a CPU with AVX2 and FMA and on one without."""
    assert hashlib.sha256(whole(view).tobytes()).hexdigest() == digest


def test_steps_of_a_strip_are_as_long_outwards_as_around():
    rows, columns = STRIP.shape
    c = whole(STRIP)
    outwards, around = abs(np.diff(c, axis=0))[:, 7], abs(np.diff(c, axis=1))[: rows - 1, 7]
    np.testing.assert_allclose(outwards / around, 1, atol=1 / rows + 2 * math.pi / columns)


@pytest.mark.parametrize(
    ("radius", "columns", "rows", "message"),
    [
        ((0, 1), 100, None, "must ascend from above 0"),
        ((-1, 1), 100, None, "must ascend from above 0"),
        ((2, 1), 100, None, "must ascend from above 0"),
        ((1, "1e400"), 100, None, "radius is out of binary64's range"),
        ((1,), 100, None, "radius must be two numbers"),
        ((1, math.nan), 100, None, r"radius\[1\] must be finite"),
        ((1, 2), 100, 13, r"must have 12 rows, .*got \[13, 100\]"),
        ((1, "1.0001"), 100, None, "must have at least 31419 columns"),
        ((1, 2), 0, None, "shape must be two integers"),
        ((1, 2), 2.5, None, "shape must be two integers"),
    ],
)
def test_a_bad_strip_is_refused(radius, columns, rows, message):
    with pytest.raises(ConfigError, match=message):
        View.log_polar((0, 0), radius, columns, rows)


@pytest.mark.parametrize(
    ("rotation", "message"),
    [
        ("361", "from -360 to 360"),
        ("1e-21", "at most 20 decimals"),
        ("east", "must be a number"),
        (math.inf, "must be finite"),
        (True, "must be a number"),
    ],
)
def test_a_bad_rotation_is_refused(rotation, message):
    with pytest.raises(ConfigError, match=message):
        View.around((0, 0), 1, (10, 10), rotation=rotation)


def test_a_strip_at_the_end_of_binary64_is_refused_beyond_it():
    View.log_polar((0, 0), ("1e308", "1.7e308"), 100).check_resolved()
    with pytest.raises(ConfigError, match="reaches beyond binary64"):
        View.log_polar(("1e308", 0), ("1e308", "1.7e308"), 100)


def test_bounds_that_are_not_those_of_the_radius_are_refused():
    with pytest.raises(ConfigError, match=r"make it with View\.log_polar"):
        View((0, 1), (0, 1), (12, 100), frame=LogPolar((0, 0), (1, 2)))


@pytest.mark.parametrize("view", [TURNED, STRIP])
def test_a_view_survives_description_and_config(view):
    description = Description.of(view, 100, ("escape_time",), (64, 64))
    assert Description.from_json(description.to_json()) == description
    assert description.view == view
    config = parse({"view": view, "max_iter": 100})
    for again in (parse(config.model_dump()), parse({"view": description.view, "max_iter": 100})):
        assert parse(again.model_dump()).view == view


def test_an_upright_description_is_what_it_was():
    view = View.around(SEAHORSE, "1e-3", (20, 30))
    keys = ["x", "y", "shape", "registration", "max_iter", "fields", "tile", "format_version"]
    assert list(Description.of(view, 100, ("escape_time",), (64, 64)).to_json()) == keys


def test_a_view_is_described_in_a_config():
    view = {"centre": [*SEAHORSE], "span": "1e-3", "shape": [130, 170], "rotation": 30}
    assert parse({"view": view, "max_iter": 9}).view == TURNED
    strip = {"projection": "log-polar", "centre": [*SEAHORSE], "radius": ["1e-6", 2], "shape": [*STRIP.shape]}
    config = parse({"view": strip, "max_iter": 9})
    assert config.view == STRIP
    assert parse(config.model_dump(), overrides=["view.rotation=0", "view.span=1", "view.shape=[3, 3]"]).view == (
        View.around(SEAHORSE, 1, (3, 3))
    )


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (
            {"rotation": 5, "x": [0, 1], "y": [0, 1]},
            "needs .*centre and span, with rotation .* has x, y, rotation",
        ),
        ({"projection": "log-polar", "centre": [0, 0]}, "or projection, centre and radius for a log-polar strip"),
        ({"projection": "mercator", "centre": [0, 0]}, "view.projection must be 'log-polar'; got"),
        ({"projection": "log-polar", "centre": [0, 0], "radius": [1, 2], "registration": "pixel"}, "gridline"),
        (
            {"projection": "log-polar", "centre": [0, 0], "radius": [1, 2]},
            "view: shape of a log-polar .* must have 12 rows",
        ),
        ({"centre": [0, 0], "span": 1, "rotation": 400}, "view: rotation must be from -360 to 360"),
    ],
)
def test_a_bad_description_names_the_key_and_what_it_needs(view, message):
    with pytest.raises(ConfigError, match=message):
        parse({"view": {"shape": [13, 100]} | view, "max_iter": 9})


def test_views_too_deep_for_binary64_are_refused():
    View.around(SEAHORSE, "1e-10", (1000, 1000), rotation=45).check_resolved()
    with pytest.raises(ConfigError, match="too deep for binary64: x has samples"):
        View.around(SEAHORSE, "1e-13", (1000, 1000), "gridline", 45, "binary64").check_resolved()
    View.log_polar(SEAHORSE, ("1e-10", 1), 1000).check_resolved()
    with pytest.raises(ConfigError, match="too deep for binary64: the strip has samples"):
        View.log_polar(SEAHORSE, ("1e-14", 1), 1000, arithmetic="binary64").check_resolved()
    with pytest.raises(ConfigError, match="too deep for binary64: both bounds of the radius"):
        View.log_polar(SEAHORSE, ("1e-400", 1), 1000, arithmetic="binary64")


@settings(deadline=None, max_examples=200)
@given(strips(), st.integers(0, 44))
def test_all_samples_of_a_resolved_strip_are_apart(strip, halvings):
    inner = strip.frame.radius[0] * 2.0**-halvings
    view = View.log_polar(strip.frame.centre, (inner, inner * 30), strip.shape[1], arithmetic="binary64")
    try:
        view.check_resolved()
    except ConfigError:
        return
    c = whole(view)
    far = 4 * np.spacing(np.maximum(abs(c.real), abs(c.imag)))
    assert np.all(abs(np.diff(c, axis=1)) >= 0.5 * far[:, 1:])
    assert np.unique(c).size == c.size


@pytest.mark.parametrize("kernel", ON_CPU)
@pytest.mark.parametrize("view", [TURNED, STRIP])
def test_every_kernel_gives_the_same_bits(kernel, view):
    wanted = KERNELS["numpy"](500)(whole(view))
    np.testing.assert_array_equal(KERNELS[kernel](500, view=view)(whole(view)), wanted)


@pytest.mark.parametrize("view", [TURNED, STRIP])
def test_a_store_is_written_resumed_and_read(view, client, tmp_path):
    path = tmp_path / "field.zarr"
    config = {"view": view, "max_iter": 300, "tile": [64, 64]}
    md.run(config, path, client=client)
    store = open_store(path)
    wanted = KERNELS["numpy"](300)(whole(view))
    np.testing.assert_array_equal(store.escape_time[:], wanted)
    checksum = store.checksum()
    for shard in sorted((path / "0/escape_time/c").glob("*/*"))[::2]:
        shard.unlink()
    assert md.resume(path, client=client).computed > 0
    assert open_store(path).checksum() == checksum
    for level in store.description.levels:
        k = level.stride
        opened = md.open(path, level=level.number)
        np.testing.assert_array_equal(opened["escape_time"].values, wanted[::k, ::k])
        np.testing.assert_array_equal(opened["x"].values, view.axis("x")[::k])
        np.testing.assert_array_equal(opened["y"].values, view.axis("y")[::k])
    names = [opened[name].attrs["long_name"] for name in ("x", "y")]
    assert names == (
        ["angle about the centre, anticlockwise from the real axis", "natural logarithm of |c - centre|"]
        if view is STRIP
        else ["Re((c - centre) exp(-i rotation))", "Im((c - centre) exp(-i rotation))"]
    )
    assert zarr.open_group(path, mode="r").attrs["mandeldask"]["field"]["frame"] == view.frame.to_json()


def test_another_frame_is_another_field(client, tmp_path):
    path = tmp_path / "field.zarr"
    config = {"max_iter": 50, "tile": [64, 64]}
    md.run({"view": TURNED, **config}, path, client=client)
    other = View.around(SEAHORSE, "1e-3", (130, 170), rotation="31")
    with pytest.raises(StoreError, match=r"holds another field: rotation is 30 there, 31 here"):
        md.run({"view": other, **config}, path, client=client)
    with pytest.raises(
        StoreError, match=r"field: another view: x .* turned by 30 degrees there, x .*, gridline here\. "
    ):
        md.run({"view": View(TURNED.x, TURNED.y, TURNED.shape), **config}, path, client=client)


def test_the_command_line_shows_what_view_it_computes(tmp_path):
    (tmp_path / "strip.yaml").write_text(
        "view: {projection: log-polar, centre: [-0.75, 0.1], radius: [1e-3, 2], shape: [122, 100]}\n"
        "max_iter: 50\ncluster: {kind: local, workers: 1}\nkernel: numpy\n"
    )
    command = [sys.executable, "-m", "mandeldask", "run", "strip.yaml", "--out", "strip.zarr"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert "log-polar around [-0.75, 0.1], radius 0.001 to 2.0" in done.stderr
    assert "area" not in done.stderr
    assert (tmp_path / "strip.png").exists()
