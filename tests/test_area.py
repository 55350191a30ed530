"""The area of the set with an error to be believed: known areas, and the same digits however often it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from services import ENV, poll

import mandeldask as md
from mandeldask.measure.estimate import FOERSTEMANN, LEMNISCATE_AREA, Estimate, grids_needed

pytestmark = pytest.mark.once  # another Python and zarr change little here

SMALL = {"n": 1100, "grids": 3, "max_iter": 4096}


def digits(found):
    """All but what depends on when and where it was counted."""
    return asdict(replace(found, seconds=0, samples_per_second=0))


@pytest.fixture(scope="module")
def whole(client):
    return md.area(**SMALL, client=client)


def test_the_area_of_the_set_and_of_the_fourth_lemniscate_lie_within_their_errors(whole):
    assert abs(whole.area - FOERSTEMANN[0]) < 4 * whole.error < 2e-3
    assert abs(whole.lemniscate[0] - LEMNISCATE_AREA) < 5 * whole.lemniscate[1] < 2e-3
    assert list(whole.areas) == sorted(whole.areas, reverse=True)
    assert whole.max_iter == (64, 128, 256, 512, 1024, 2048, 4096)
    assert (whole.samples, whole.grids, whole.seed) == (3 * 1100**2, 3, 1)


def test_it_counts_what_the_kernel_gives_for_the_shifted_grids(client):
    """The counts of two grids, from blocks of one row of tiles, against whole fields."""
    found = md.area(
        x=(-0.8, -0.7), y=(0.05, 0.15), n=1030, grids=2, max_iter=512, kernel="numpy-compact", client=client
    )
    counted = []
    for grid in range(2):
        down, right = np.random.default_rng([1, grid]).random(2) - 0.5
        step = 0.1 / 1030
        view = md.View(
            (-0.8 + right * step, -0.7 + right * step), (0.05 + down * step, 0.15 + down * step), (1030, 1030), "pixel"
        )
        times = md.escape_time(md.complex_grid(view), 512).compute()
        counted.append([np.count_nonzero(times >= limit) for limit in found.max_iter])
    assert np.allclose(np.mean(counted, 0) * (0.1 / 1030) ** 2, found.areas, rtol=1e-12)
    assert found.lemniscate is None


def test_killed_and_gone_on_with_it_gives_the_same_digits(client, tmp_path, whole):
    out = tmp_path / "area.jsonl"
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "-m", "mandeldask", "area", *words, "--out", str(out), "--workers", "1", "--quiet"]
    with subprocess.Popen(command, env=ENV, start_new_session=True) as process:
        poll(lambda: out.exists() and out.read_bytes().count(b"\n") >= 2, "a row")
        os.killpg(process.pid, signal.SIGKILL)
    lines = out.read_bytes().splitlines(keepends=True)[:2]  # on a busy machine there may be more
    out.write_bytes(b"".join(lines) + b'{"grid": 2, "ro')  # the power failed within a line
    there = out.read_bytes().count(b"\n")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            md.area(**SMALL, out=out, client=client, tell=interrupt)
    assert there + 2 == out.read_bytes().count(b"\n") < 7
    assert digits(md.area(**SMALL, out=out, client=client)) == digits(whole)
    assert digits(md.area(**SMALL, out=out)) == digits(whole)  # with no worker: all is counted


def interrupt(event):
    raise KeyboardInterrupt


def test_until_adds_grids_and_says_where_more_of_them_do_not_help(client, tmp_path):
    told = []
    wanted = {"n": 256, "grids": 4, "max_iter": 4096, "client": client, "out": tmp_path / "a.jsonl"}
    found = md.area(**wanted, until=2e-4, tell=told.append)
    assert found.grids > 8 and found.error <= 2e-4
    assert any("going on with" in str(event) for event in told)
    with pytest.raises(md.ConfigError, match="Take a larger --max-iter"):
        md.area(**wanted, until=1e-9)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert len(lines) == 1 + found.grids


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n": 0}, "n must be an integer from 2"),
        ({"grids": 0}, "grids must be an integer from 2"),
        ({"grids": 1}, "grids must be an integer from 2"),
        ({"max_iter": 10}, "max_iter must be an integer from 256"),
        ({"seed": -1}, "seed must be"),
        ({"until": 0.0}, "until must be an error above 0"),
        ({"x": (1, 0)}, "x must ascend"),
        ({"x": (-0.5, -0.5 + 1e-14)}, "too deep for binary64"),
        ({"kernel": "numbo"}, "did you mean numba"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line_before_anything_starts(wrong, says):
    with pytest.raises(md.ConfigError, match=says):
        md.area(**SMALL | wrong)


def test_a_file_of_other_parameters_or_of_something_else_stays_as_it_is(client, tmp_path):
    out = tmp_path / "a.jsonl"
    small = {"n": 64, "grids": 2, "max_iter": 256, "client": client, "out": out}
    md.area(**small)
    before = out.read_bytes()
    with pytest.raises(md.ConfigError, match=r"holds counts of seed 1, not 2: give the same"):
        md.area(**small | {"seed": 2})
    assert out.read_bytes() == before
    for text in ("notes", "{}", "notes\n", "[1]\n", '{"x": 1}\n{"grid": 0}\n'):
        out.write_text(text)
        with pytest.raises(md.ConfigError, match=r"holds (no )?counts of"):
            md.area(**small)
        assert out.read_text() == text


def test_the_command_prints_json(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mandeldask",
        "area",
        "--n=64",
        "--grids=2",
        "--max-iter=256",
        "--workers=1",
        "--json",
    ]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["interval"][0] < found["area"] < found["interval"][1]
    assert os.listdir(tmp_path) == []


def test_a_power_law_is_extrapolated_to_its_end():
    limits = 2.0 ** np.arange(12, 19)
    for power in (1.0, 1.05):
        areas = np.array([[1.5 + noise + 3 * limits**-power] for noise in (-1e-5, 1e-5)])[:, 0]
        estimate = Estimate.of(areas)
        assert estimate.area == pytest.approx(1.5, abs=1e-12)
        assert estimate.standard_error == pytest.approx(1e-5, rel=1e-6)
        assert estimate.extrapolation_error < 1e-12
    assert grids_needed(estimate, 10, 5e-6) == 20  # four times as many, by at most twice
    assert Estimate.of(np.full((2, 7), 0.25)).area == 0.25  # a window within the set


def test_where_areas_follow_no_law_the_error_is_what_is_not_proved():
    areas = np.full((8, 7), 1.5)  # as if no sample escaped later
    assert Estimate.of(areas, not_proved=0.01).error == 0.01
