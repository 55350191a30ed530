"""The claims: how a verdict is found, and that a machine that lacks something says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from mandeldask.lab import Run, Spread, claims, in_turns, machine, ratio
from mandeldask.lab.workload import QUICK

ROOT = Path(__file__).parent.parent


def test_two_threads_that_work_are_seen_and_one_that_works_alone_too():
    """The measure behind the verdicts, on work whose threads are known."""
    x = np.random.default_rng(1).random(300_000)
    with ThreadPoolExecutor(1) as pool:
        alone = in_turns({"a": lambda: np.exp(x)}, 3, 0.03)["a"]

        def both():
            other = pool.submit(np.exp, x)
            np.exp(x)
            other.result()

        elsewhere = in_turns({"a": both}, 3, 0.03)["a"]
    one, two = (Spread.of([run.threads for run in runs]).median for runs in (alone, elsewhere))
    assert two - one > claims.PARALLEL - 1  # a cluster of other tests may take its share beside both


def test_a_fresh_process_really_has_its_features_switched_off():
    found = machine.simd()["found"]
    if not found:
        pytest.skip("this CPU has nothing beyond NumPy's baseline")
    with claims._without_simd() as plain:
        assert plain.apply(machine.simd)["found"] == []
    assert machine.simd()["found"] == found
    assert not os.environ["NPY_DISABLE_CPU_FEATURES"]


def test_the_parts_of_the_loop_are_the_whole_of_it():
    parts = claims._parts_of_the_loop(claims._samples(40), 20)
    assert list(parts) == ["mask", "gather", "arithmetic", "scatter"]
    assert all(seconds > 0 for seconds in parts.values())


def test_a_blas_that_threadpoolctl_does_not_know_leaves_the_comparison_out(monkeypatch):
    monkeypatch.setattr(threadpoolctl, "threadpool_info", list)
    for c in claims._threads(QUICK):
        assert "against one BLAS thread" not in c["figure"]
        assert c["verdict"] in ("true", "false")
    assert claims._blas_library(QUICK)[0]["verdict"] == "not measurable here"


def test_an_experiment_that_fails_is_a_row_and_the_rest_goes_on(monkeypatch):
    def broken(setting):
        raise RuntimeError("no luck")

    some = {"a broken one": (("dot", "inv"), broken, 1), "layer": (("layer",), claims._blas_library, 1)}
    monkeypatch.setattr(claims, "EXPERIMENTS", some)
    first, second, third = claims.measure(QUICK)["claims"]
    for each in (first, second):
        assert (each["verdict"], "no luck" in each["why"]) == ("not measurable here", True)
    assert [each["key"] for each in (first, second, third)] == ["dot", "inv", "layer"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_on_one_core_what_needs_two_is_not_measurable_and_the_rest_is(tmp_path):
    program = (
        f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n"
        "from mandeldask.cli import main\n"
        "import sys; sys.argv = ['mandeldask', 'lab', 'claims', '--quick', '--json']\n"
        "if __name__ == '__main__':\n    main()\n"
    )
    (tmp_path / "one.py").write_text(program)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, tmp_path / "one.py"], env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {c["key"]: c for c in json.loads(done.stdout)["claims"]}
    unable = {key for key, c in found.items() if c["verdict"] == "not measurable here"}
    assert unable >= {"dot", "matmul", "inv", "sum", "mean", "std", "add", "sqrt", "exp", "naive", "mask", "GIL"}
    assert unable.isdisjoint({"math", "layer", "mask cost"})
    assert "one core cannot show" in found["dot"]["why"]


# What a verdict follows from


def spread(median, low=None, high=None):
    return Spread(median, low or median, high or median, 5)


@pytest.mark.parametrize(
    ("spreads", "expected"),
    [
        ([spread(2), spread(3)], ("true", False)),
        ([spread(1), spread(1)], ("false", False)),
        ([spread(1), spread(2)], ("depends", False)),
        ([spread(2), spread(1.22)], ("true", True)),  # the second, near 1.2, could turn it into depends
        ([spread(1), spread(2), spread(1.22)], ("depends", False)),  # the third can change nothing
        ([spread(2), spread(2, 1.1, 3)], ("true", True)),  # the threshold lies between the quartiles
    ],
)
def test_a_verdict_over_several_figures(spreads, expected):
    assert claims._all_faster(spreads) == expected


def test_threads_are_told_by_cpu_seconds_whatever_the_wall_clock_says():
    alone = [Run(wall=wall, cpu=1.0, caller=0.99) for wall in (1.0, 3.0, 9.0)]
    two = [Run(wall=wall, cpu=2.0, caller=1.0) for wall in (1.0, 3.0, 9.0)]
    assert claims._threads_claim("sum", alone, "OpenBLAS")["verdict"] == "false"
    assert claims._threads_claim("sum", two, "OpenBLAS")["verdict"] == "true"
    assert claims._threads_claim("naive", alone, "OpenBLAS")["verdict"] == "true"


def test_calls_are_timed_in_turns_each_second_turn_the_other_way_round():
    order = []
    runs = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert "".join(order) == "abbaab"
    assert {name: len(found) for name, found in runs.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_of_the_runs_of_one_turn():
    """Every turn slower than the one before, as on a machine that gets busier: the ratio stays."""
    a = [Run(wall=4.0 * k, cpu=1, caller=1) for k in (1, 2, 3)]
    b = [Run(wall=2.0 * k, cpu=1, caller=1) for k in (1, 2, 3)]
    assert ratio(a, b) == Spread(2.0, 2.0, 2.0, 3)
