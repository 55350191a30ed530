"""A processor that flushes subnormal numbers to zero, or rounds otherwise than to nearest, is refused in one line."""

import ctypes
import ctypes.util
import platform
from contextlib import contextmanager

import numpy as np
import pytest
from kernel_contract import ON_CPU

import mandeldask as md
from mandeldask.kernels import KERNELS, block_function
from mandeldask.view import View

LIBM = ctypes.util.find_library("m")
GLIBC_ON_X86 = platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"
pytestmark = pytest.mark.skipif(not GLIBC_ON_X86, reason="the mode is set through glibc's fenv_t of x86-64")
MODES = {"flush-to-zero": 0x8000, "denormals-are-zero": 0x0040, "down": 0x2000, "up": 0x4000, "towards zero": 0x6000}


def set_mode(bits):
    """Set bits of this thread's MXCSR, which is the last word of glibc's fenv_t; 0 for the default."""
    libm, environment = ctypes.CDLL(LIBM), (ctypes.c_uint32 * 8)()
    libm.fegetenv(environment)
    environment[7] = environment[7] & ~0xE040 | bits
    libm.fesetenv(environment)


@contextmanager
def mode(bits):
    set_mode(bits)
    try:
        yield
    finally:
        set_mode(0)


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("bits", MODES.values(), ids=MODES)
def test_a_block_is_refused_in_one_line(name, bits):
    count = KERNELS[name](10)
    with mode(bits), pytest.raises(md.ClusterError, match="which changes counts") as refused:
        count(np.zeros(3, complex))
    assert "\n" not in str(refused.value)
    assert count(np.zeros(3, complex)).tolist() == [10] * 3


def test_a_run_ends_with_the_line_of_the_worker_and_goes_on_without_it(client, tmp_path):
    workers = list(client.nthreads())
    config = {"view": {"x": [-2, 1], "y": [-1, 1], "shape": [32, 32]}, "max_iter": 50, "tile": [16, 16]}
    client.gather([client.submit(set_mode, MODES["flush-to-zero"], workers=[w], pure=False) for w in workers])
    try:
        with pytest.raises(md.ClusterError, match="taken as zero"):
            md.run(config, tmp_path / "a.zarr", client=client)
    finally:
        client.gather([client.submit(set_mode, 0, workers=[w], pure=False) for w in workers])
    assert md.resume(tmp_path / "a.zarr", client=client).computed == 4


def test_a_deep_block_is_refused_too():
    compute = block_function("deep", 100, view=View.around((0, 1), "1e-30", (2, 3)))
    with mode(MODES["up"]), pytest.raises(md.ClusterError, match="which changes counts"):
        compute(np.zeros((2, 3), complex))
