import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np
import pytest
from kernel_contract import ON_CPU, check_fields, check_interior, check_kernel, memory_beside, scalar_loop
from llvmlite.binding import get_host_cpu_features

from mandeldask import kernels
from mandeldask.errors import ConfigError
from mandeldask.kernels import KERNELS, choose, fastest, here, on_cpu
from mandeldask.kernels.shortcuts import MARGIN, never_escapes
from mandeldask.view import View


@pytest.mark.parametrize("name", ON_CPU)
def test_every_kernel_keeps_the_contract(name):
    if name == "numpy":  # ten times slower than the others
        check_kernel(KERNELS[name], boundary=2_000, large=300)
    else:
        check_kernel(KERNELS[name])


@pytest.mark.parametrize("name", ON_CPU)
def test_every_kernel_gives_the_other_fields(name):
    check_fields(KERNELS[name])


@pytest.mark.parametrize("name", [*ON_CPU, "auto"])
def test_a_sample_is_proved_to_stay_or_not(name):
    check_interior(KERNELS[name])


@pytest.mark.parametrize("name", ["numpy-compact", "numba"])
def test_near_the_tip_escapes_by_a_unit_in_the_last_place_are_found(name):
    """Where |c| is 2 but for some units in the last place: no orbit that escapes comes back, at whichever step."""
    random = np.random.default_rng(0)
    distance = random.integers(0, 10, (2, 40_000)) * 2.0 ** random.integers(-55, -28, (2, 40_000))
    c = np.concatenate([-2 + distance[0] + 1j * distance[1], -2 + distance[0][:500]])
    for max_iter in (25, 60, 1000):
        assert np.array_equal(KERNELS[name](max_iter)(c), scalar_loop(c, max_iter))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("max_iter", [0, -1, 2**31, 1.5, 100.0, "100", True, None])
def test_a_bad_max_iter_is_refused_before_any_work(name, max_iter):
    with pytest.raises(ConfigError, match="max_iter"):
        KERNELS[name](max_iter)


@pytest.mark.parametrize("name", ON_CPU)
def test_the_largest_max_iter_is_taken(name):
    c = np.array([3.0, 0.5, 1j + 1])
    assert KERNELS[name](np.int64(2**31 - 1))(c).tolist() == [1, 5, 2]


@pytest.mark.parametrize("name", KERNELS)
def test_a_view_too_deep_for_binary64_is_refused(name):
    view = View.around(("-0.75", "0.1"), "1e-14", (100, 100))
    with pytest.raises(ConfigError, match="too deep for binary64"):
        KERNELS[name](100, view=view)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("fields", [("escape_time", "colour"), (), ("smooth",), ("escape_time",) * 2, "escape_time"])
def test_unknown_repeated_or_missing_fields_are_refused(name, fields):
    with pytest.raises(ConfigError, match="fields"):
        KERNELS[name](100, fields=fields)


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize(
    "block",
    [np.zeros(3), np.zeros((2, 2), np.complex64), np.zeros(3, ">c16"), np.zeros(3, int), [0j], 0j, None],
)
def test_a_block_that_is_no_complex128_array_is_refused_with_the_remedy(name, block):
    with pytest.raises(ConfigError, match=r"\.astype\(complex\)"):
        KERNELS[name](100)(block)


@pytest.mark.parametrize("name", ["numpy-compact", "numba"])
@pytest.mark.parametrize("layout", ["rows", "columns", "strided"])
def test_memory_beside_block_and_result_is_bounded(name, layout):
    """numpy-compact: 32 MB whatever the block; numba: its scratch, and a buffer for blocks that are not contiguous."""
    t = (np.arange(1200) + 0.5) / 1200 - 0.5
    c = (-0.743643887037151 + 1e-5 * t) + 1j * (0.131825904205330 + 1e-5 * t[:, np.newaxis])  # all survive 100 steps
    c = {"rows": c, "columns": c.T, "strided": c[:, ::2]}[layout]
    kernel = KERNELS[name](150)
    _, beside = memory_beside(kernel, c)
    assert beside < (32e6 if name == "numpy-compact" else 4e6)


def test_threads_share_a_kernel():
    """Each thread has scratch memory of its own."""
    view = View((-2, 0.5), (-1.2, 1.2), (300, 300))
    c = view.block((0, 300), (0, 300))
    kernel = KERNELS["numba"](500)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(kernel, np.array_split(c, 12)))
    assert np.array_equal(np.concatenate(parts), scalar_loop(c.reshape(-1), 500).reshape(c.shape))


def run(script, **environment):
    """What `script` prints, in a process of its own."""
    command, environment = [sys.executable, "-c", script], os.environ | environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CHECKSUM = """
import hashlib, mandeldask.kernels as k
from mandeldask.view import View
c = View((-2, 0.5), (-1.2, 1.2), (301, 303)).block((0, 301), (0, 303))
print(hashlib.sha256(k.KERNELS["numba"](1000)(c).astype("<i4").tobytes()).hexdigest())
"""


AVX2 = "+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt,+f16c"


@pytest.mark.skipif(not get_host_cpu_features().get("avx2"), reason="the code is for x86-64 CPUs with AVX2")
@pytest.mark.parametrize(
    "cpu",
    [{"NUMBA_CPU_NAME": "generic"}, {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2}],
    ids=["generic", "haswell"],
)
def test_code_for_another_cpu_gives_the_same_bits(cpu):
    """Also with the cache that the code for this CPU is in."""
    c = View((-2, 0.5), (-1.2, 1.2), (301, 303)).block((0, 301), (0, 303))
    here = sha256(KERNELS["numpy-compact"](1000)(c).astype("<i4").tobytes()).hexdigest()
    assert run(CHECKSUM, **cpu) == here


def test_processes_that_start_together_compile_once_and_other_code_is_compiled_again(tmp_path):
    """The others wait for the first and take its code from the cache. A change may be in another file than Numba's."""
    script = (
        "from mandeldask.kernels import lanes as c;"
        "print(*(sum(f.stats.cache_misses.values()) for f in (c._escape_time, c._outside)))"
    )
    with ThreadPoolExecutor(3) as pool:
        misses = list(pool.map(lambda _: run(script, NUMBA_CACHE_DIR=str(tmp_path)), range(3)))
    assert [sum(int(miss.split()[k]) for miss in misses) for k in range(2)] == [1, 1]  # each function once
    changed = "from mandeldask.kernels import compiling; compiling._digest = lambda: 'of other code';"
    assert run(changed + script, NUMBA_CACHE_DIR=str(tmp_path)) == "1 1"


def test_code_that_is_in_the_cache_takes_no_lock():
    """Whoever holds the lock may have been stopped."""
    assert run(CHECKSUM) == run("import fcntl; fcntl.flock = None  # an error to call\n" + CHECKSUM)


def test_a_stopped_process_that_compiles_is_waited_for_a_while_only(tmp_path):
    from mandeldask.kernels.compiling import one_at_a_time

    script = (
        "import signal; from mandeldask.kernels.compiling import one_at_a_time as lock\n"
        f"with lock({str(tmp_path)!r}): print('held', flush=True); signal.pause()"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGSTOP)
        with one_at_a_time(str(tmp_path), seconds=0.1):
            assert holder.poll() is None
    finally:
        holder.kill()
        holder.communicate()


def test_it_compiles_where_nothing_can_be_cached():
    """No folder to cache in: the code is compiled for this process alone."""
    script = "import numba.core.caching as c; c.CacheImpl._locator_classes = []\n" + CHECKSUM
    assert len(run(script)) == 64


def test_the_interior_test_stays_inside_its_margin():
    """It takes what has |L| below the margin, and nothing beyond: 100,000 multipliers a component, near the edge."""
    random = np.random.default_rng(1)
    edge = np.sqrt(1 - MARGIN)
    near = (edge + random.uniform(-1e-3, 1e-3, 100_000)) * np.exp(2j * np.pi * random.random(100_000))
    c = np.concatenate([near / 2 - near**2 / 4, near / 4 - 1])
    # near -3/4 a sample just outside one component lies in the other
    multiplier = np.minimum(abs(1 - np.sqrt(1 - 4 * c)), abs(4 * (c + 1)))
    sure = abs(multiplier - edge) > 1e-12
    assert np.array_equal(never_escapes(c.real, c.imag, np.sqrt)[sure], (multiplier < edge)[sure])


def test_auto_is_chosen_where_it_runs():
    view = View((-2, 1), (-1.5, 1.5), (100, 100))
    name, reason = choose("auto", view)
    assert name == "auto" and "numba here" in reason
    assert choose("numpy") == ("numpy", "as asked")
    ours, numbas = (
        KERNELS[k](90, ("escape_time", "smooth"))(view.block((0, 100), (0, 100))) for k in ("auto", "numba")
    )
    assert ours.tobytes() == numbas.tobytes()


def test_without_numba_auto_takes_the_numpy_kernel_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)  # importing it raises ImportError
    monkeypatch.setattr(fastest, "_chosen", [])
    assert here() == on_cpu() == "numpy-compact" and "numpy-compact here, as numba needs Numba" in choose("auto")[1]
    assert KERNELS["auto"](50)(np.array([0.3 + 0.5j, 2, 1j])).tolist() == [50, 2, 50]
    for refuse in (lambda: choose("numba"), lambda: KERNELS["numba"](100)):
        with pytest.raises(ConfigError, match="numpy-compact"):
            refuse()


def test_choose_takes_the_kernel_of_the_views_arithmetic_and_refuses_another():
    with pytest.raises(ConfigError, match="kernel must be one of"):
        choose("opencl")
    shallow, deep = (View.around(("-0.75", "0.1"), span, (100, 100)) for span in ("0.1", "1e-14"))
    assert choose("auto", deep)[0] == choose("deep", deep)[0] == "deep"
    with pytest.raises(ConfigError, match=r"too deep for binary64.* kernel numba .*take kernel: deep, or auto"):
        choose("numba", deep)
    for view in (shallow, None):
        with pytest.raises(ConfigError, match=r"kernel deep computes in exact arithmetic.*ask for arithmetic: exact"):
            choose("deep", view)
    with pytest.raises(ConfigError, match="too deep for binary64: x has samples"):
        choose("auto", View((-0.75, -0.75 + 1e-14), (0, 1), (100, 100)))


def test_importing_the_kernels_imports_no_numba():
    """A worker that runs a NumPy kernel never waits for Numba, nor does the command line."""
    script = f"import sys, {kernels.__name__} as k; k.KERNELS['numpy-compact'](5); print('numba' in sys.modules)"
    assert run(script) == "False"
