"""The strategies give the same pixels; the curves and the balance cover the field; the report holds it all."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numba
import numpy as np
import pytest
from click.testing import CliRunner

from mandeldask import progress
from mandeldask.cli import cli
from mandeldask.errors import ConfigError
from mandeldask.grid import complex_grid
from mandeldask.kernels import KERNELS
from mandeldask.lab import results, scaling, strategies, tables, workload
from mandeldask.lab.scaling import Scaling
from mandeldask.lab.strategies import Strategy
from mandeldask.lab.workload import Depth, Workload, cut, lesson_view

ROOT = Path(__file__).parent.parent
SMALL = Depth(side=48, max_iter=40, strategy_turns=2, numpy=(48, 40), numba=(64, 200), scaling_turns=1)


def test_with_one_worker_the_printed_one_has_no_fault_yet(monkeypatch):
    some = {name: strategies.STRATEGIES[name] for name in ("naive", "pool as printed")}
    monkeypatch.setattr(strategies, "STRATEGIES", some)
    _, row = strategies.measure(replace(SMALL, workers=1))
    assert (row.pixels_differing, row.shape, row.efficiency) == (0, (48, 48), None)
    assert "nothing is wrong yet" in tables.faults({"strategies": [asdict(row)]})[0]


def test_a_strategy_that_fails_or_is_not_there_says_so_and_the_rest_goes_on(monkeypatch):
    def missing(problem, kernel, stack):
        raise ConfigError(f"the kernel {kernel} needs a quantum computer")

    def failing(problem, kernel, stack):
        return lambda: next(iter([]))

    some = {
        "naive": strategies.STRATEGIES["naive"],
        "missing": Strategy("quantum", missing, parallel=False),
        "failing": Strategy("numpy", failing, parallel=False),
        "numpy": strategies.STRATEGIES["numpy"],
    }
    monkeypatch.setattr(strategies, "STRATEGIES", some)
    naive, first, second, last = strategies.measure(SMALL)
    assert first.problem == "the kernel quantum needs a quantum computer"
    assert "StopIteration" in second.problem
    assert (second.seconds, first.seconds) == (None, None)
    assert naive.seconds.n == last.seconds.n == 2
    assert (naive.pixels_differing, last.pixels_differing) == (0, 0)


def test_without_numba_its_parts_say_so_and_the_rest_goes_on(client, monkeypatch):
    """Through the command, on the cluster that is up; the report starts its own."""
    some = ("naive", "numpy", "numpy threads", "numba", "numba threads", "numba distributed")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setattr(
        numba.config, "DISABLE_JIT", 1
    )  # as if read from there; read again, it would stay for other tests
    monkeypatch.setattr(strategies, "STRATEGIES", {name: strategies.STRATEGIES[name] for name in some})
    monkeypatch.setattr(scaling, "worker_counts", lambda cores: [1, 2])
    monkeypatch.setattr(results, "local_workers", lambda n: nullcontext(client))
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


@pytest.mark.parametrize(("n", "parts"), [(10, 3), (3, 5), (7, 1)])
def test_a_range_is_cut_in_parts_that_differ_by_one_at_most(n, parts):
    ranges = cut(n, parts)
    assert [i for first, end in ranges for i in range(first, end)] == list(range(n))
    sizes = {end - first for first, end in ranges}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0


@pytest.mark.parametrize(("cores", "counts"), [(1, [1, 2, 4]), (2, [1, 2, 4]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_worker_counts_go_to_the_cores_and_to_the_lessons_four(cores, counts):
    assert scaling.worker_counts(cores) == counts


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
    Scaling(client, ["numpy"], SMALL, said.append).strong([1, 16])
    assert (min(blocks), max(blocks)) == (16, 64)
    assert "strong scaling, numpy, turn 1 of 1, Dask workers 16" in said


def test_a_workload_is_the_same_however_it_is_computed(client):
    work = Workload(lesson_view(40, 56), 30, "numba")
    right = KERNELS["numpy"](30)(work.view.block((0, 40), (0, 56)))
    assert np.array_equal(work.alone(), right)
    assert np.array_equal(work.through_dask(16, scheduler=client), right)


def test_the_balance_covers_the_field_once(client):
    ways = Scaling(client, [], SMALL).balance(2)
    assert [len(b.pieces) for b in ways] == [2, 2, 64]
    work = SMALL.scaled("numpy")
    for b in ways:
        covered = np.zeros(work.view.shape, int)
        for p in b.pieces:
            covered[slice(*p.rows), slice(*p.columns)] += 1
            assert p.start <= p.end <= b.seconds
            assert 0 <= p.worker < 2
        assert (covered == 1).all()
        assert 0 < b.evenness <= 1


def test_only_the_workers_asked_for_compute(client):
    ways = Scaling(client, [], SMALL).balance(1)
    assert {p.worker for p in ways[2].pieces} == {0}


def test_a_timeline_in_text_shows_who_was_busy_when():
    pieces = [{"worker": 0, "start": 0.0, "end": 0.5}, {"worker": 1, "start": 0.2, "end": 1.0}]
    lines = tables.timelines({"workers": 3, "seconds": 1.0, "pieces": pieces}, width=10)
    assert lines == ["worker 0  |#####....", "worker 1  ..|#######", "worker 2  .........."]


WALK = (ROOT / "mandeldask/lab/README.md").read_text().replace("\\\n", " ")
STEPS = [line[2:].split() for line in WALK.splitlines() if line.startswith("$ mandeldask ")]


@pytest.mark.parametrize("words", STEPS, ids=" ".join)
def test_a_command_of_the_walk_parses(words):
    result = CliRunner().invoke(cli, [*words[1:], "--help"])
    assert result.exit_code == 0, result.output
