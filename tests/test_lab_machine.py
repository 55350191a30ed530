"""`mandeldask info`, against what NumPy, threadpoolctl and the system say themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import psutil
import pytest
import threadpoolctl
from conftest import skip_or_fail
from dask.system import cpu_count

from mandeldask.lab import machine

ROOT = Path(__file__).parent.parent


def call(*words, **environment):
    command = [sys.executable, "-m", "mandeldask", *map(str, words)]
    env = {k: v for k, v in os.environ.items() if k not in machine.THREAD_VARIABLES}
    env |= {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def info(*words, **environment):
    done = call("info", "--json", *words, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_simd_is_what_numpy_says():
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    simd = machine.simd()
    assert simd["baseline"] == extensions["baseline"]
    assert simd["found"] == extensions.get("found", [])
    assert simd["missing"] == extensions.get("not found", [])


def test_blas_is_what_threadpoolctl_and_numpy_say():
    blas = machine.blas()
    (pool,) = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    assert (blas["threads"], blas["version"]) == (pool["num_threads"], pool["version"])
    assert blas["threading"] == pool["threading_layer"]
    assert blas["recognised"]


@pytest.mark.parametrize(
    ("name", "known_as", "variable"),
    [
        ("scipy-openblas", "OpenBLAS", "OPENBLAS_NUM_THREADS"),
        ("mkl-dynamic-ilp64-seq", "Intel MKL", "MKL_NUM_THREADS"),
        ("accelerate", "Apple Accelerate", "VECLIB_MAXIMUM_THREADS"),
        ("nvpl", "nvpl", "OMP_NUM_THREADS"),
    ],
)
def test_a_blas_is_known_by_the_name_people_use_and_by_its_variable(monkeypatch, name, known_as, variable):
    pool = {"user_api": "blas", "internal_api": name, "num_threads": 2}
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: [pool])
    assert (machine.blas()["name"], machine.blas()["variable"]) == (known_as, variable)


def test_a_blas_that_threadpoolctl_does_not_know_is_said_to_be_so(monkeypatch):
    monkeypatch.setattr(threadpoolctl, "threadpool_info", list)
    blas = machine.blas()
    assert (blas["recognised"], blas["threads"]) == (False, None)
    described = machine.describe()
    assert dict(machine.side_by_side([described]))["blas recognised"] == ["False"]
    assert machine.thread_warnings({"here": described}, {"here": 1}) == []


def test_the_loops_are_those_that_the_dispatch_chose():
    from numpy.lib.introspect import opt_func_info

    loops = machine.describe()["numpy"]["loops"]
    assert set(loops) == set(machine.LOOPS)
    assert loops["z ** 2 of complex128"] == opt_func_info(func_name="^square$")["square"]["DD"]["current"]


def test_numba_is_what_numba_says():
    described = machine.describe()["numba"]
    assert (described["threads"], described["version"]) == (numba.config.NUMBA_NUM_THREADS, numba.__version__)


def test_environment_and_features_of_a_fresh_process_show():
    found = machine.simd()["found"]
    told = info(OPENBLAS_NUM_THREADS="1", NPY_DISABLE_CPU_FEATURES=" ".join(found), NUMBA_DISABLE_JIT="1")
    process = told["processes"]["this process"]
    assert process["numpy"]["simd"]["found"] == []
    assert process["blas"]["threads"] == 1
    assert process["dask"]["environment"]["OPENBLAS_NUM_THREADS"] == "1"
    assert process["dask"]["nanny_sets"]["OPENBLAS_NUM_THREADS"] == "1"
    assert "NUMBA_DISABLE_JIT" in process["numba"]["why"]
    assert told["warnings"] == []


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_one_core_by_affinity_is_one_usable_core():
    program = (
        f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); from mandeldask.lab import machine;"
    )
    program += "print(machine.describe()['cores']['usable'])"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


def test_the_table_says_what_json_says():
    done = call("info")
    assert done.returncode == 0
    described = machine.describe()
    for text in (described["cores"]["cpu"], np.__version__, machine.blas()["version"], "dask nanny sets"):
        assert text in done.stdout


def test_each_worker_of_a_cluster_is_shown_side_by_side_and_too_many_are_warned_of(tmp_path):
    many = cpu_count() + 1
    if many > 8:
        skip_or_fail(f"{many} workers are too many for a test")
    (tmp_path / "many.yaml").write_text(f"{{kind: local, workers: {many}}}\n")
    told = info("--cluster", tmp_path / "many.yaml")
    assert len(told["processes"]) == many
    assert len({process["pid"] for process in told["processes"].values()}) == many
    assert {process["blas"]["threads"] for process in told["processes"].values()} == {1}  # Dask's nanny sees to it
    (warning,) = told["warnings"]
    assert f"{many} Dask threads on {many - 1} usable cores" in warning


def test_a_worker_without_numba_stands_beside_one_that_has_it():
    with_it = machine.describe()
    without = with_it | {"numba": {"available": False, "why": "it is too old"}}
    rows = dict(machine.side_by_side([without, with_it]))
    assert rows["numba why"] == ["it is too old", ""]
    assert rows["numba version"] == ["", numba.__version__]


def workers(n, blas_threads, usable, host="a", variable="OPENBLAS_NUM_THREADS"):
    described = machine.describe()
    described["host"], described["cores"]["usable"] = host, usable
    described["blas"] |= {"threads": blas_threads, "variable": variable}
    return {f"tcp://{host}:{port}": described for port in range(n)}


@pytest.mark.parametrize(
    ("described", "dask_threads", "warned"),
    [
        (workers(4, 1, 4), 1, []),
        (workers(2, 2, 4), 1, []),
        (workers(4, 4, 4), 1, ["make 16 on 4 usable cores", "OPENBLAS_NUM_THREADS=1"]),
        (workers(4, 4, 4, variable="MKL_NUM_THREADS"), 1, ["MKL_NUM_THREADS=1"]),
        (workers(4, 1, 4), 2, ["8 Dask threads on 4 usable cores", "no more than 4"]),
        (workers(4, 4, 4) | workers(1, 4, 4, host="b"), 1, ["a: 4 Dask threads"]),
    ],
)
def test_workers_times_blas_threads_beyond_the_cores_is_a_warning_with_its_remedy(described, dask_threads, warned):
    warnings = machine.thread_warnings(described, dict.fromkeys(described, dask_threads))
    assert len(warnings) == bool(warned)
    for words in warned:
        assert words in warnings[0]


@pytest.mark.parametrize(("percent", "warned"), [(0, 0), (95, 1)])
def test_other_programs_that_take_the_cores_are_warned_of(monkeypatch, percent, warned):
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: percent)
    assert len(machine.busy_warnings()) == warned
