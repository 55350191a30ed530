"""Views beyond binary64: offsets from an origin whose digits all count."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandeldask.errors import ConfigError
from mandeldask.field import escape_time
from mandeldask.grid import complex_grid
from mandeldask.view import Deep, View, frame_from_json

RE, IM = "-1.7598178" + "13" * 200, "-0.01259" + "70" * 200
CENTRE = RE, IM


@given(st.integers(14, 390), st.integers(2, 50), st.integers(2, 50), st.sampled_from(["gridline", "pixel"]))
def test_offsets_are_the_exact_ones_rounded_and_the_origin_keeps_its_digits(exponent, rows, columns, registration):
    span = Fraction(1, 10**exponent)
    view = View.around(CENTRE, f"1e-{exponent}", (rows, columns), registration, arithmetic="exact")
    assert isinstance(view.frame, Deep)
    unit = Fraction(2) ** view.frame.unit
    assert unit <= span < 2 * unit
    assert view.frame.exact_origin == (Fraction(RE), Fraction(IM))
    half = span / unit / 2
    assert view.x == (float(-half), float(half))
    c = view.block((0, rows), (0, columns))
    assert np.array_equal(c.real[0], view.axis("x")) and np.array_equal(c.imag[:, 0], view.axis("y"))
    again = View(view.x, view.y, view.shape, view.registration, frame_from_json(view.frame.to_json()))
    assert again == view and hash(again) == hash(view)


def test_a_view_is_deep_only_where_binary64_cannot_resolve_it_or_it_is_asked_for():
    assert View.around(CENTRE, "1e-9", (100, 100)).frame is None
    assert isinstance(View.around(CENTRE, "1e-15", (100, 100)).frame, Deep)
    assert isinstance(View.around(CENTRE, "1e-15", (10**5, 10**5)).frame, Deep)
    assert View.around(CENTRE, "1e-9", (100, 100), arithmetic="exact").frame.unit == -30
    View.around(CENTRE, "1e-400", (1000, 1000)).check_resolved()


def test_a_plain_or_a_turned_rectangle_has_the_same_place_in_exact_arithmetic():
    plain = View((-2, 1), (-1.5, 1.5), (7, 9))
    deep = plain.in_exact_arithmetic()
    c = complex(*map(float, deep.frame.exact_origin)) + deep.block((0, 7), (0, 9)) * 2.0**deep.frame.unit
    assert np.allclose(c, plain.block((0, 7), (0, 9)), atol=1e-15)
    assert deep.in_exact_arithmetic() is deep
    turned = View.around((-0.75, 0.1), 0.5, (7, 9), rotation=30)
    deep = turned.in_exact_arithmetic()
    c = complex(-0.75, 0.1) + deep.block((0, 7), (0, 9)) * 2.0**deep.frame.unit
    assert np.allclose(c, turned.block((0, 7), (0, 9)), atol=1e-15)
    assert deep == View.around((-0.75, 0.1), 0.5, (7, 9), rotation=30, arithmetic="exact")


@pytest.mark.parametrize(
    ("origin", "spelled"),
    [
        (("0", "-0.0"), ("0", "0")),
        (("1e3", "-2.50"), ("1000", "-2.5")),
        (("1e-30", 0.1), ("0." + "0" * 29 + "1", "0.1")),
    ],
)
def test_an_origin_has_one_spelling(origin, spelled):
    assert Deep(origin, -100).origin == spelled


def test_a_short_coordinate_is_exact_and_one_that_was_cut_off_is_refused():
    assert View.around((-2, 0.25), "1e-300", (9, 9)).frame.origin == ("-2", "0.25")
    View.around((-0.75, "0.131825904205330" + "0" * 16), "1e-30", (9, 9))
    with pytest.raises(ConfigError, match=r"centre\[1\] has 15 decimals, and a span of 1e-30 needs at least 31"):
        View.around((-0.75, "0.131825904205330"), "1e-30", (9, 9))


def test_a_small_number_of_many_digits_is_told_by_its_size():
    view = View.around(("0." + "0" * 40, "-1." + "25" * 30), "0." + "0" * 34 + "509459" * 5, (9, 9))
    assert str(view) == "centre [0, -1.252525252525252525...], span 5.09e-35, gridline"


def test_the_grid_of_a_deep_view_is_not_taken_for_numbers_c():
    view = View.around((0, 1), "1e-30", (20, 30))
    grid = complex_grid(view)
    with pytest.raises(ConfigError, match=r"holds offsets from its origin: give escape_time the view too"):
        escape_time(grid, 100)
    assert escape_time(grid, 100, view=view).dtype == np.int32
