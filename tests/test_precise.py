"""What rounding does to samples: found by arithmetic of enough digits, and explained by where c would have to lie."""

import json
import math
import re
import subprocess
import sys
from decimal import Decimal, localcontext

import numpy as np
import pytest
from services import ENV

import mandeldask as md
from mandeldask.kernels import KERNELS
from mandeldask.precise import other_counts, round_sample, round_samples
from mandeldask.store import open_store

pytestmark = pytest.mark.once  # another Python and zarr change little here

pytest.importorskip("gmpy2")
CENTRE = "-0.743643887037151", "0.131825904205330"
DEEP = {
    "view": {"centre": list(CENTRE), "span": "1e-12", "shape": [64, 64]},
    "max_iter": 5000,
    "tile": [32, 64],
    "fields": ["escape_time", "smooth", "distance"],
}


@pytest.fixture(scope="module")
def deep(client, tmp_path_factory):
    path, told = tmp_path_factory.mktemp("deep") / "a.zarr", []
    md.run(DEEP, path, client=client, tell=told.append)
    (notice,) = [event.text for event in told if getattr(event, "about", "") == "rounding"]
    assert re.match(r"rounding changes the counts of about \d\d% of the samples", notice)
    assert "--precise 1000" in notice
    return path


def test_a_view_that_binary64_resolves_well_foresees_no_other_counts():
    assert other_counts(md.View((-2, 1), (-1, 1), (100, 100)), 1000) == 0
    shallow, deep = (other_counts(md.View.around(CENTRE, span, (128, 128)), 5000) for span in ("1e-10", "1e-13"))
    assert 0.1 < shallow < 0.25 and 0.5 < deep < 0.7  # measured: 0.12 and 0.58
    assert other_counts(md.View.around(("-0.1528", "1.0397"), "1e-12", (128, 128)), 5000) < 1e-3


def in_decimal(c: complex, max_iter: int) -> int:
    with localcontext() as context:
        context.prec = 80
        cx, cy, x, y, n = Decimal(c.real), Decimal(c.imag), Decimal(0), Decimal(0), 0
        while n < max_iter and x * x + y * y <= 4:
            x, y, n = x * x - y * y + cx, 2 * x * y + cy, n + 1
        return n


def test_counts_are_those_of_decimal_arithmetic_and_samples_lie_as_if_displaced_by_two_units_at_most(deep):
    store = open_store(deep)
    places = [(row, column) for row in range(3, 64, 9) for column in range(5, 64, 11)]
    found = round_samples(places, store)
    for (row, column), sample in list(zip(places, found, strict=True))[:4]:
        c = complex(store.description.view.block((row, row + 1), (column, column + 1))[0, 0])
        assert sample.precise == in_decimal(c, 5000)
        assert sample.stored == store.escape_time[row : row + 1, column : column + 1].item()
    differ = [sample for sample in found if sample.stored != sample.precise]
    assert 0.1 < len(differ) / len(found) < 0.9
    assert all(sample.ulps < 3 for sample in found)
    assert np.mean([sample.explained for sample in differ]) > 0.8


def test_an_orbit_that_loses_more_digits_gets_more():
    """On the real axis near -2 each step loses a bit or two; in the cardioid no step is needed."""
    (count,) = KERNELS["numpy"](500)(np.array([-1.99 + 0j]))
    chaotic = round_sample(-1.99 + 0j, 500, {"escape_time": count})
    assert (chaotic.precise, chaotic.explained) == (500, True)
    assert chaotic.bits > 500
    inside = round_sample(-0.1 + 0.1j, 10**9, {"escape_time": 10**9})
    assert (inside.precise, inside.bits) == (10**9, 0) and math.isnan(inside.ulps)


@pytest.mark.parametrize("max_iter", [34, 100])
def test_smooth_and_distance_of_early_escapes_have_no_error_but_that_of_float32(max_iter):
    """The orbit of the last escapes with step 33, and is followed on past max_iter."""
    c = np.array([0.5 + 0.5j, -1 + 0.6j, -0.75 + 0.1j])
    found = KERNELS["numba"](max_iter, ("escape_time", "smooth", "distance"))(c)
    for sample, row in zip(c, found, strict=True):
        assert max(round_sample(complex(sample), max_iter, {n: row[n] for n in found.dtype.names}).errors) < 2e-6


def test_verify_tells_what_rounding_has_done_on_a_cluster_as_here(client, deep):
    told = []
    there = md.verify(deep, precise=60, seed=3, client=client, tell=told.append)
    here = md.verify(deep, precise=60, seed=3)
    assert there.precision == here.precision and there.seed == 3 and there.exit_code == 0
    p = here.precision
    assert p.samples == 60 and 0 < p.explained <= p.differ < 60
    assert p.by[0.5] <= p.by[0.99] <= p.by[1.0] and p.ulps[1.0] < 3
    assert p.smooth[0.5] < p.smooth[1.0] and p.distance[0.5] < p.distance[1.0]
    assert [event for event in told if getattr(event, "what", "") == "sample"][-1].done == 60


def test_the_command_tells_it_and_prints_json(deep):
    command = [sys.executable, "-m", "mandeldask", "verify", str(deep), "--precise=25", "--seed=3"]
    text = subprocess.run(command, env=ENV, capture_output=True, text=True, check=True).stdout
    for words in (" differ, by ", " for half of them, at most ", "units in the last place of c", "relative error"):
        assert words in text
    found = json.loads(subprocess.run([*command, "--json"], env=ENV, capture_output=True, check=True).stdout)
    assert found["precision"]["samples"] == 25


def test_a_machine_without_gmpy2_and_a_store_without_tiles_are_told_in_a_line(deep, tmp_path, monkeypatch):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "gmpy2", None)
        with pytest.raises(md.ConfigError, match=r"gmpy2, which cannot be .*pip install '.*\[deep\]'"):
            md.verify(deep, precise=3, tell=lambda _: pytest.fail("too late"))
    with pytest.raises(md.ConfigError, match="precise must be a number of samples"):
        md.verify(deep, precise=-1)
