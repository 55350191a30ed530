import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mandeldask.errors import ConfigError
from mandeldask.view import MAX_SIDE, View
from mandeldask.view.rules import MIN_SPACING_ULPS

TINY = 5e-324  # the smallest denormal

# All magnitudes, and the denormals where a step underflows.
coordinates = (
    st.floats(-4, 4)
    | st.floats(-1e300, 1e300)
    | st.integers(-40, 40).map(lambda k: k * TINY)
    | st.floats(-1e-300, 1e-300)
)
bounds = st.tuples(coordinates, coordinates).map(sorted).filter(lambda b: b[0] < b[1])
sides = st.integers(1, 200)
registrations = st.sampled_from(["gridline", "pixel"])
decimals = st.decimals(-4, 4, places=25).map(str)
spans = st.builds("{}e{}".format, st.integers(1, 10**20), st.integers(-40, -19))


def bits(values):
    return values.view(np.int64)


@st.composite
def windows(draw, n):
    first = draw(st.integers(0, n))
    return first, draw(st.integers(first, n))


@given(bounds, bounds, sides, sides)
@example([0.0, TINY], [0.0, 3 * TINY], 5, 4)
@example([-2, 1], [-1.5, 1.5], 1000, 1000)
@example([0.1, 0.3], [0.1, 0.7], 1, 2)
def test_gridline_coordinates_have_the_bits_of_linspace(x, y, rows, columns):
    view = View(x, y, (rows, columns))
    np.testing.assert_array_equal(bits(view.axis("x")), bits(np.linspace(*view.x, columns)))
    np.testing.assert_array_equal(bits(view.axis("y")), bits(np.linspace(*view.y, rows)))


@given(bounds, st.integers(1, 3000), st.data())
def test_gridline_windows_have_the_bits_of_linspace(x, n, data):
    first, last = data.draw(windows(n))
    view = View(x, (0, 1), (1, n))  # in which a bound of -0.0 is 0.0
    np.testing.assert_array_equal(bits(view.axis("x", (first, last))), bits(np.linspace(*view.x, n)[first:last]))


@given(bounds, sides, registrations, st.data())
def test_any_window_of_an_axis_is_that_slice_of_the_whole(y, n, registration, data):
    view = View((0, 1), y, (n, 1), registration)
    first, last = data.draw(windows(n))
    np.testing.assert_array_equal(bits(view.axis("y", (first, last))), bits(view.axis("y")[first:last]))


@given(st.integers(0, MAX_SIDE - 50), registrations)
def test_a_window_far_out_on_a_huge_axis_is_near_its_exact_place(first, registration):
    window = View((-2, 1), (0, 1), (1, MAX_SIDE), registration).axis("x", (first, first + 50))
    cells, offset = (MAX_SIDE - 1, Fraction(0)) if registration == "gridline" else (MAX_SIDE, Fraction(1, 2))
    for i, value in enumerate(window, start=first):
        assert abs(Fraction(value) - (Fraction(3) * (i + offset) / cells - 2)) <= Fraction(np.spacing(4.0))


@given(st.floats(-4, 4), st.integers(-20, 1), st.integers(0, 8))
def test_pixels_lie_at_the_centres_of_cells(low, width, k):
    low, cell, n = round(low * 2**20) / 2**20, 2.0**width, 2**k  # every step of it exact
    x = View((low, low + n * cell), (0, 1), (1, n), "pixel").axis("x")
    np.testing.assert_array_equal(x, low + (np.arange(n) + 0.5) * cell)


@given(bounds, sides, registrations)
def test_resolved_coordinates_ascend_within_the_bounds(x, n, registration):
    view = View(x, (0, 1), (1, n), registration)
    try:
        view.check_resolved()
    except ConfigError:
        return
    axis = view.axis("x")
    assert np.all(np.diff(axis) > 0)
    assert x[0] <= axis[0]
    assert axis[-1] <= x[1]


@given(bounds, bounds, st.integers(1, 20), st.integers(1, 20), registrations, st.data())
def test_a_block_is_the_outer_sum_of_its_axes(x, y, rows, columns, registration, data):
    view = View(x, y, (rows, columns), registration)
    r, c = data.draw(windows(rows)), data.draw(windows(columns))
    block = view.block(r, c)
    assert block.dtype == np.complex128
    assert block.shape == (r[1] - r[0], c[1] - c[0])
    for i, j in np.ndindex(*block.shape):
        assert block[i, j].real == view.axis("x")[c[0] + j]
        assert block[i, j].imag == view.axis("y")[r[0] + i]


def nearest(value: Fraction) -> float:
    return value.numerator / value.denominator  # Python divides integers to the nearest float


@given(decimals, decimals, spans, st.integers(2, 5000), st.integers(2, 5000), registrations)
@example("-0.743643887037151", "0.131825904205330", "1e-5", 3072, 4096, "gridline")
def test_around_rounds_the_exact_bounds_once(re, im, span, rows, columns, registration):
    cells = (columns - 1, rows - 1) if registration == "gridline" else (columns, rows)
    spacing = Fraction(span) / cells[0]
    exact = [
        (Fraction(mid) - n * spacing / 2, Fraction(mid) + n * spacing / 2)
        for mid, n in zip((re, im), cells, strict=True)
    ]
    rounded = [(nearest(low), nearest(high)) for low, high in exact]
    assume(all(low < high for low, high in rounded))
    view = View.around((re, im), span, (rows, columns), registration, arithmetic="binary64")
    assert [view.x, view.y] == rounded
    assert view.given == {"centre": [re, im], "span": [span]}


@given(st.integers(2, 3000), st.integers(2, 3000), registrations, st.floats(-2, 2), st.floats(-2, 2))
def test_around_has_equal_spacing_in_both_directions(rows, columns, registration, re, im):
    view = View.around((re, im), "0.01", (rows, columns), registration)
    less = 1 if registration == "gridline" else 0
    dx, dy = ((view.x[1] - view.x[0]) / (columns - less), (view.y[1] - view.y[0]) / (rows - less))
    assert math.isclose(dx, dy, abs_tol=4 * np.spacing(4.0))


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.001, 3))
def test_a_float_means_the_digits_it_is_printed_with(re, im, span):
    """So that 0.1 is "0.1", in Python as in a YAML file, and np.float64(0.1) is 0.1."""
    view = View.around((repr(re), repr(im)), repr(span), (20, 30))
    assert View.around((re, im), span, (20, 30)) == view
    assert View.around((np.float64(re), np.float64(im)), np.float64(span), (20, 30)) == view
    assert View.around((Decimal(repr(re)), Decimal(repr(im))), Decimal(repr(span)), (20, 30)) == view


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.001, 3))
def test_what_a_view_was_given_makes_the_same_view_again(re, im, span):
    around = View.around((re, im), span, (20, 30))
    assert View.around(around.given["centre"], around.given["span"][0], (20, 30)) == around
    view = View((re, re + span), (im, im + span), (20, 30))
    assert View(**{name: tuple(digits) for name, digits in view.given.items()}, shape=(20, 30)) == view


def test_a_single_row_lies_on_the_centre():
    view = View.around(("-0.5", "0.25"), 1, (1, 5))
    assert view.y == (0.25, 0.25)
    assert view.axis("y").tolist() == [0.25]


def test_views_compare_by_their_samples_and_take_lists():
    view = View((-2, 1), (-1.5, 1.5), (3, 4))
    assert view == View(["-2.0", "1"], [Decimal("-1.5"), "1.5"], [np.int64(3), 4])
    assert hash(view) == hash(View(["-2.0", "1"], [Decimal("-1.5"), "1.5"], [3, 4]))
    assert view != View((-2, 1), (-1.5, 1.5), (3, 4), "pixel")
    assert (view.size, view.shape) == (12, (3, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": (1, 1)}, r"x must ascend, low < high; got \[1, 1\]"),
        ({"x": ("1", "1.00000000000000000001")}, "too deep for binary64"),
        ({"y": (1, -1)}, "y must ascend"),
        ({"x": (0, math.inf)}, "must be finite"),
        ({"x": (math.nan, 1)}, "must be finite"),
        ({"x": ("-inf", 1)}, "must be finite"),
        ({"x": (0, True)}, "must be a number or a decimal string"),
        ({"x": (0, "one")}, "must be a number or a decimal string"),
        ({"x": (0, None)}, "must be a number or a decimal string"),
        ({"x": (0, 1j)}, "must be a number or a decimal string"),
        ({"x": (0, (0, (1, 2), 3))}, "must be a number or a decimal string"),
        ({"x": (0, 1, 2)}, "x must be two numbers"),
        ({"x": 5}, "x must be two numbers"),
        ({"x": "01"}, "x must be two numbers"),
        ({"x": (-1.7e308, 1.7e308)}, "too wide for binary64"),
        ({"x": (0, "1e400")}, "x"),
        ({"x": ("-1e400", 0)}, "x"),
        ({"x": (0, "1e99999")}, "out of range"),
        ({"shape": (0, 5)}, "shape must be two integers from 1"),
        ({"shape": (5, MAX_SIDE + 1)}, "shape must be two integers from 1"),
        ({"shape": (5.0, 5)}, "shape must be two integers"),
        ({"shape": (True, 5)}, "shape must be two integers"),
        ({"shape": (5,)}, r"shape must be two integers .*\[rows, columns\]"),
        ({"shape": 5}, "shape must be two integers"),
        ({"registration": "cell"}, "registration must be gridline or pixel; got 'cell'"),
        ({"registration": None}, "registration must be gridline or pixel"),
    ],
)
def test_bad_bounds_shape_or_registration_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        View(**({"x": (-2, 1), "y": (-1.5, 1.5), "shape": (5, 5)} | change))


def test_a_view_is_told_as_it_was_given():
    view = View.around(("-0.743643887037151", "0.13"), "3e-3", (20, 30), "pixel")
    assert str(view) == "centre [-0.743643887037151, 0.13], span 3e-3, pixel"
    turned = View.around((0, "1" * 99), 1, (20, 30), rotation=30)
    assert str(turned) == f"centre [0, {'1' * 21}...], span 1, turned by 30 degrees, gridline"
    assert str(View((-2, 1), (0, "1e-3"), (20, 30))) == "x [-2.0, 1.0], y [0.0, 0.001], gridline"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"span": 0}, "span must be positive; got 0"),
        ({"span": "-1"}, "span must be positive"),
        ({"span": math.nan}, "span must be finite"),
        ({"span": "wide"}, "span must be a number"),
        ({"span": "1e-20000"}, "span is out of range: .* an exponent of at most 10000"),
        ({"span": "1e-400", "arithmetic": "binary64"}, "too deep for binary64: both bounds"),
        ({"centre": ("-0.743643887037151", 0), "span": "1e-30"}, r"centre\[0\] has 15 decimals, .* at least 31"),
        ({"span": "1e400"}, "x"),
        ({"centre": ("1e400", 0)}, "x"),
        ({"centre": (0, "-1e400")}, "y"),
        ({"centre": (0, 0, 0)}, "centre must be two numbers"),
        ({"centre": 0}, "centre must be two numbers"),
        ({"centre": (0, "i")}, r"centre\[1\] must be a number"),
        ({"shape": (5, 1)}, "at least 2 columns"),
        ({"registration": "cell"}, "registration must be gridline or pixel"),
    ],
)
def test_a_bad_centre_or_span_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        View.around(**({"centre": (0, 0), "span": 1, "shape": (5, 5)} | change))


@pytest.mark.parametrize("registration", ["gridline", "pixel"])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_view_is_resolved_down_to_four_ulps_between_samples(registration, axis):
    ulp = np.spacing(1.0)
    cells = 64
    n = cells + (registration == "gridline")

    def view(spacing_in_ulps):
        deep = (1.0, 1.0 + cells * spacing_in_ulps * ulp)
        if axis == "x":
            return View(deep, (0, 1), (5, n), registration)
        return View((0, 1), deep, (n, 5), registration)

    view(MIN_SPACING_ULPS).check_resolved()
    with pytest.raises(ConfigError, match=f"{axis} has samples .* need at least 8.88e-16 .* coordinates of 54 bits"):
        view(MIN_SPACING_ULPS - 1).check_resolved()


@given(decimals, decimals, st.integers(-30, 0), st.integers(2, 300), st.integers(2, 300), registrations)
def test_a_resolved_view_places_every_sample_within_an_eighth_of_a_spacing_of_its_own(
    re, im, exponent, rows, columns, registration
):
    try:
        view = View.around((re, im), f"1e{exponent}", (rows, columns), registration)
        view.check_resolved()
    except ConfigError:
        return
    for name, (low, high), n in (("x", view.x, columns), ("y", view.y, rows)):
        cells, offset = (n - 1, 0) if registration == "gridline" else (n, Fraction(1, 2))
        spacing = (Fraction(high) - Fraction(low)) / cells
        for i, value in enumerate(view.axis(name)):
            assert abs(Fraction(value) - Fraction(low) - (i + offset) * spacing) <= spacing / 4  # product and sum round
        assert np.all(np.diff(view.axis(name)) > 0)


def test_one_sample_is_always_resolved_and_a_vanishing_spacing_never():
    View((0, 1), (0.3, 0.3), (1, 2)).check_resolved()
    with pytest.raises(ConfigError, match="many more bits"):
        View((0, TINY), (0, 1), (2, 1000)).check_resolved()
