"""Continuous escape time and distance against their definitions in decimal arithmetic of 60 digits."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from kernel_contract import ON_CPU

from mandeldask.kernels import KERNELS
from mandeldask.kernels.fields import Orbit, distance, smooth
from mandeldask.view import View

EVERY = ("escape_time", "smooth", "distance")


def exact(c: complex) -> tuple[float, float]:
    """log2(ln 2 / G(c)) and 2 |z| ln|z| / |dz/dc| far beyond any bailout that binary64 could hold."""
    with localcontext() as context:
        context.prec = 60
        cx, cy = Decimal(c.real), Decimal(c.imag)
        x, y, dx, dy, n = cx, cy, Decimal(1), Decimal(0), 1
        while x * x + y * y < Decimal(10) ** 60:
            dx, dy = 2 * (x * dx - y * dy) + 1, 2 * (x * dy + y * dx)
            x, y = x * x - y * y + cx, 2 * x * y + cy
            n += 1
        size = (x * x + y * y).sqrt()
        smooth = n - (size.ln() / Decimal(2).ln()).ln() / Decimal(2).ln()
        return float(smooth), float(2 * size * size.ln() / (dx * dx + dy * dy).sqrt())


@pytest.mark.parametrize("name", ON_CPU)
def test_smooth_is_right_to_a_step_of_2_to_the_minus_18_and_distance_to_float32(name):
    """At 300 samples of the lesson's view that escape within 40 steps: later ones feel the rounding of z itself."""
    view = View((-2.2, 1.1), (-1.5, 1.6), (41, 43))
    c = view.block((0, 41), (0, 43)).ravel()
    out = KERNELS[name](1000, EVERY)(c)
    chosen = np.flatnonzero(out["escape_time"] <= 40)[::5]
    steps, away = np.array([exact(v) for v in c[chosen]]).T
    np.testing.assert_allclose(out["smooth"][chosen], steps, rtol=0, atol=2.0**-19 + 1e-9)
    np.testing.assert_allclose(out["distance"][chosen], away, rtol=2e-6)


@pytest.mark.parametrize("name", ON_CPU)
def test_the_distance_brackets_the_true_one(name):
    """Left of the tip -2, the nearest point of the set. Koebe: the estimate is between once and four times that."""
    d = 10.0 ** -np.arange(2, 13)
    out = KERNELS[name](10_000, EVERY)(-2 - d + 0j)
    assert ((out["distance"] >= d * 0.999) & (out["distance"] <= 4 * d * 1.001)).all()


@pytest.mark.parametrize("name", ON_CPU)
def test_an_escape_just_before_max_iter_goes_on_past_it(name):
    c = np.array([-0.75 + 0.01j])  # escapes at step 315
    late, early = KERNELS[name](316, EVERY)(c)[0], KERNELS[name](10_000, EVERY)(c)[0]
    assert late == early and late["escape_time"] == 315
    assert np.isnan(KERNELS[name](315, EVERY)(c)[0]["smooth"])


@pytest.mark.parametrize("name", ON_CPU)
def test_large_samples_keep_their_meaning(name):
    """For large |c|, G(c) tends to ln|c| / 2: it is half the Green's function."""
    c = np.array([1e3, 1e7j, 1e150, -1e300 + 0j])
    out = KERNELS[name](50, EVERY)(c)
    np.testing.assert_allclose(out["smooth"], 1 - np.log2(np.log2(abs(c))), rtol=1e-4)


def test_smooth_keeps_its_fraction_beyond_a_million_steps():
    """Into the cusp, where float32 has steps of 1/4."""
    found = KERNELS["numba"](3_000_000, EVERY)(np.array([0.25 + 2e-12 + 0j]))[0]
    assert found["escape_time"] > 2_000_000
    assert 0 < found["escape_time"] - found["smooth"] < 1.5
    assert np.float32(found["smooth"]) != found["smooth"] == round(found["smooth"] * 2**18) / 2**18


def test_a_distance_below_what_rounding_does_to_c_is_not_told():
    """Near -2 and near i, both of the set: units in the last place are 4.4e-16 and 2.2e-16."""
    c = np.array([-2 - 1e-13 + 1e-16j, 1j + 1e-15, -2 + 1e-17j, 1j + 1e-16])
    for name in ON_CPU:
        found = KERNELS[name](10_000, EVERY)(c)
        assert np.isnan(found["distance"]).tolist() == [False, False, True, True]
        assert np.isfinite(found["smooth"]).all()


def test_all_kernels_give_the_same_fields():
    c = View((-2, 0.6), (-1.2, 1.3), (211, 307)).block((0, 211), (0, 307))
    first, *others = (KERNELS[name](700, EVERY)(c) for name in ON_CPU)
    for other in others:
        for name in EVERY:
            assert np.array_equal(other[name], first[name], equal_nan=True)


def test_a_derivative_that_overflows_means_no_distance():
    one = np.ones(1)
    orbit = Orbit(2.0**21 * one, 0 * one, np.inf * one, np.nan * one, np.array([1000]))
    assert np.isfinite(smooth(orbit)[0]) and distance(orbit)[0] == 0
