"""Finding places: nuclei, their periods, places and sizes."""

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from click.testing import CliRunner

from mandeldask.cli import cli
from mandeldask.config import load
from mandeldask.errors import ConfigError
from mandeldask.kernels.nuclei import find
from mandeldask.view import Deep, View

pytestmark = pytest.mark.once  # another Python and zarr change little here

# About a point of the seahorse valley; its nucleus of period 8007 has a size of 2^-106.5.
RE, IM = "-0.743643887037158704752191506114774", "0.131825904205311970493132056385139"
VALLEY = View((-0.5, 0.5), (-0.5, 0.5), (64, 64), "pixel", Deep((RE, IM), -98))


def orbit(centre, steps):
    """log2 |z| of the exact orbit's end, in 400 bits."""
    p = 400
    cx, cy = (int(Fraction(part) * 2**p) for part in centre)
    x = y = 0
    for _ in range(steps):
        x, y = (x * x - y * y >> p) + cx, (x * y >> p - 1) + cy
    return max(abs(x), abs(y)).bit_length() - p


def test_a_deep_nucleus_comes_back_to_zero_to_all_its_digits():
    (nucleus,) = find(VALLEY, 100_000, parts=1)
    assert (nucleus.kind, nucleus.period, f"{nucleus.size:.2e}") == ("copy", 8007, "8.95e-33")
    dz = orbit(nucleus.centre, 8007) - orbit((RE, IM), 8007)  # how much nearer to 0 than from the middle of the view
    assert dz < -10
    assert len(nucleus.centre[0]) > 38


def test_the_copies_on_the_needle():
    found = find(View.around((-1.76, 0.01), 0.1, (100, 100)), 100)
    assert [(nucleus.kind, nucleus.period) for nucleus in found][:2] == [("copy", 3), ("disc", 6)]
    assert Decimal(found[0].centre[0]).quantize(Decimal("1e-7")) == Decimal("-1.7548777")
    assert all(nucleus.size < 1 for nucleus in found)
    turned = find(View.around((-1.76, 0.01), 0.1, (100, 100), rotation=30), 100)
    assert turned[0] == found[0]


def test_what_cannot_be_looked_for_is_refused():
    with pytest.raises(ConfigError, match="parts must be from 1 to 100"):
        find(VALLEY, 10, parts=0)
    with pytest.raises(ConfigError, match="strip"):
        find(View.log_polar((0, 0), (1, 2), 100), 10)


def test_the_command_writes_a_description_around_a_nucleus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = ["find", "whole-set", "--set", 'view={centre: ["-1.76", "0.01"], span: 0.1, shape: [64, 64]}']
    done = CliRunner().invoke(cli, [*place, "--max-period", "50", "--period", "3", "-o", "copy.yaml"])
    assert done.exit_code == 0, done.output
    assert "period 3" in done.output
    config = load("copy.yaml")
    assert abs(Decimal(config.view.given["span"][0]) - Decimal("0.076142")) < Decimal("1e-6")
    nuclei = json.loads(CliRunner().invoke(cli, [*place, "--max-period", "50", "--json"]).stdout)["nuclei"]
    assert nuclei[0]["period"] == 3
    plain = CliRunner().invoke(cli, [*place, "--max-period", "50"]).output
    assert "--max-period 50 --period 3 -o copy.yaml    writes a run description around it" in plain
    picture = CliRunner().invoke(cli, [*place, "-o", "copy.png"])
    assert (picture.exit_code, "must end in .yaml, .yml" in picture.output) == (2, True), picture.output
    negative = CliRunner().invoke(cli, [*place, "--period", "-3"])
    assert (negative.exit_code, "period must be at least 1; got -3" in negative.output) == (2, True), negative.output
    none = CliRunner().invoke(cli, [*place, "--max-period", "2"])
    assert none.exit_code == 2
    assert "no nucleus of a period up to 2 was found there" in none.output
