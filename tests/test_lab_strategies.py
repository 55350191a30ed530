"""The strategies give the same pixels; the curves and the balance cover the field; the report holds it all."""

from __future__ import annotations

import json
import shlex
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
from click.testing import CliRunner

from mandeldask import progress
from mandeldask.cli import cli
from mandeldask.grid import complex_grid
from mandeldask.kernels import KERNELS
from mandeldask.lab import lesson, strategies, tables, workload
from mandeldask.lab.strategies import _Scaling
from mandeldask.lab.workload import Depth, Workload, lesson_view

pytestmark = pytest.mark.once  # another Python and zarr change little here

ROOT = Path(__file__).parent.parent
SMALL = Depth(side=48, max_iter=40, strategy_turns=2, numpy=(48, 40), numba=(64, 200), scaling_turns=1)


def test_with_one_worker_the_printed_one_has_no_fault_yet(monkeypatch):
    some = {name: strategies.STRATEGIES[name] for name in ("naive", "pool as printed")}
    monkeypatch.setattr(strategies, "STRATEGIES", some)
    _, row = strategies.measure(replace(SMALL, workers=1))["strategies"]
    assert (row["pixels_differing"], row["shape"], row["efficiency"]) == (0, [48, 48], None)
    assert "nothing is wrong yet" in tables.faults({"strategies": [row]})[0]


def test_a_strategy_that_fails_or_is_not_there_says_so_and_the_rest_goes_on(monkeypatch):
    some = {name: strategies.STRATEGIES[name] for name in ("naive", "pool corrected", "numpy")}
    monkeypatch.setattr(strategies, "STRATEGIES", {"missing": ("quantum", strategies.ALONE), **some})
    monkeypatch.setattr(lesson, "mandelbrot_parallel_corrected", lambda *_: next(iter([])))
    missing, naive, failing, last = strategies.measure(SMALL)["strategies"]
    assert missing["problem"].startswith("kernel must be one of")
    assert "StopIteration" in failing["problem"]
    assert (missing["seconds"], failing["seconds"], failing["startup"]) == (None, None, None)
    assert naive["seconds"]["n"] == last["seconds"]["n"] == 2
    assert (naive["pixels_differing"], last["pixels_differing"]) == (0, 0)


def test_without_numba_its_parts_say_so_and_the_rest_goes_on(client, monkeypatch):
    """Through the command, on the cluster that is up; the report starts its own."""
    some = ("naive", "numpy", "numpy threads", "numba", "numba threads", "numba distributed")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setattr(
        numba.config, "DISABLE_JIT", 1
    )  # as if read from there; read again, it would stay for other tests
    monkeypatch.setattr(strategies, "STRATEGIES", {name: strategies.STRATEGIES[name] for name in some})
    monkeypatch.setattr(strategies, "_worker_counts", lambda cores: [1, 2])
    monkeypatch.setattr(strategies, "local_workers", lambda n: nullcontext(client))
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.01)
    done = CliRunner().invoke(cli, ["lab", "strategies", "--quick", "--workers", "2", "--json"])
    assert done.exit_code == 0, done.output
    assert "measuring  strategies" in done.stderr
    found = json.loads(done.stdout)
    for row in found["strategies"]:
        if row["kernel"] == "numba":
            assert "NUMBA_DISABLE_JIT" in row["problem"]
        else:
            assert row["problem"] == "" and row["seconds"]["median"] > 0
    assert list(found["problems"]) == ["kernel numba"]
    assert "NUMBA_DISABLE_JIT" in found["problems"]["kernel numba"]
    assert [c["name"] for c in found["strong"]] == ["numpy, threads", "numpy, Dask workers"]
    assert len(found["balance"]) == 3


@pytest.mark.parametrize(("cores", "counts"), [(1, [1, 2, 4]), (2, [1, 2, 4]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_worker_counts_go_to_the_cores_and_to_the_lessons_four(cores, counts):
    assert strategies._worker_counts(cores) == counts


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 16, 64])
def test_there_are_four_blocks_a_worker_however_many_there_are(kernel, n):
    for work in (Depth().scaled(kernel), Depth().scaled(kernel, n / 4), Depth().work(kernel)):
        side = work.block_side(n)
        assert complex_grid(work.view, (side, side)).npartitions >= 4 * n


def test_strong_scaling_over_dask_cuts_more_blocks_for_more_workers(client, monkeypatch):
    blocks = []

    class Counted(Workload):
        def through_dask(self, block, **scheduler):
            blocks.append(complex_grid(self.view, (block, block)).npartitions)
            return super().through_dask(block, **scheduler)

    monkeypatch.setattr(workload, "Workload", Counted)
    said = []
    _Scaling(client, SMALL, said.append).over_workers("numpy", [1, 16])
    assert (min(blocks), max(blocks)) == (16, 64)
    assert "strong scaling, numpy, turn 1 of 1, Dask workers 16" in said


def test_a_workload_is_the_same_however_it_is_computed(client):
    work = Workload(lesson_view(40, 56), 30, "numba")
    right = KERNELS["numpy"](30)(work.view.block((0, 40), (0, 56)))
    assert np.array_equal(work.alone(), right)
    assert np.array_equal(work.through_dask(16, scheduler=client), right)


def test_the_balance_covers_the_field_once(client):
    ways = _Scaling(client, SMALL).balance()
    assert [len(b["pieces"]) for b in ways] == [2, 2, 64]
    work = SMALL.scaled("numpy")
    for b in ways:
        covered = np.zeros(work.view.shape, int)
        for p in b["pieces"]:
            covered[slice(*p["rows"]), slice(*p["columns"])] += 1
            assert p["start"] <= p["end"] <= b["seconds"]
            assert 0 <= p["worker"] < 2
        assert (covered == 1).all()
        assert 0 < b["evenness"] <= 1


def test_only_the_workers_asked_for_compute(client):
    ways = _Scaling(client, replace(SMALL, workers=1)).balance()
    assert {p["worker"] for p in ways[2]["pieces"]} == {0}


def test_a_timeline_in_text_shows_who_was_busy_when():
    pieces = [{"worker": 0, "start": 0.0, "end": 0.5}, {"worker": 1, "start": 0.2, "end": 1.0}]
    lines = tables.timelines({"workers": 3, "seconds": 1.0, "pieces": pieces}, width=10)
    assert lines == ["worker 0  |#####....", "worker 1  ..|#######", "worker 2  .........."]


WALK = (ROOT / "mandeldask/lab/README.md").read_text().replace("\\\n", " ")
STEPS = [shlex.split(line[2:]) for line in WALK.splitlines() if line.startswith("$ mandeldask ")]


@pytest.mark.parametrize("words", STEPS, ids=" ".join)
def test_a_command_of_the_walk_parses(words):
    result = CliRunner().invoke(cli, [*words[1:], "--help"])
    assert result.exit_code == 0, result.output
