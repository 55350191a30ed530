"""The kernel cuda in Numba's simulator. test_cuda.py runs this where NUMBA_ENABLE_CUDASIM is set."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from kernel_contract import check_fields, check_kernel, scalar_loop
from numba.cuda.simulator.cudadrv.error import CudaSupportError

import mandeldask as md
from mandeldask.kernels import KERNELS, cuda, lacking
from mandeldask.store import open_store
from mandeldask.view import View

sys.setswitchinterval(1e-5)  # the simulated threads wait for each other at every block of steps

SEAHORSE = View.around(("-0.743643887037151", "0.131825904205330"), "1e-3", (12, 13)).block((0, 12), (0, 13))
EVERY = ("escape_time", "smooth", "distance")


def test_it_keeps_the_contract():
    check_kernel(KERNELS["cuda"], boundary=60, large=200, share=0.1)


def test_it_gives_the_other_fields():
    check_fields(KERNELS["cuda"])
    ours, others = (KERNELS[name](400, EVERY)(SEAHORSE) for name in ("cuda", "numba"))
    for name in EVERY:
        assert np.array_equal(ours[name], others[name], equal_nan=True)


def test_a_block_larger_than_what_the_device_takes_goes_there_in_runs(monkeypatch):
    monkeypatch.setattr(cuda, "RUN", 50)
    assert np.array_equal(KERNELS["cuda"](900)(SEAHORSE).ravel(), scalar_loop(SEAHORSE.ravel(), 900))


def test_threads_of_a_process_take_turns():
    with ThreadPoolExecutor(3) as pool:
        rows = list(pool.map(KERNELS["cuda"](300), SEAHORSE))
    assert np.array_equal(np.ravel(rows), scalar_loop(SEAHORSE.ravel(), 300))


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (
            "Error at driver init:\nCUDA driver library cannot be found.\nEnsure that",
            "needs an NVIDIA GPU and its driver",
        ),
        ("[CUDA_ERROR_NO_DEVICE] Call to cuInit", "needs an NVIDIA GPU that this process may see"),
        ("Device 0 has compute capability < (3, 5)", "still compiles for"),
        ("[CUDA_ERROR_UNSUPPORTED_PTX_VERSION] Call to cuLinkAddData", "driver is older"),
        ("[CUDA_ERROR_OUT_OF_MEMORY] Call to cuMemAlloc", "needs 176 MiB of its memory"),
        ("[CUDA_ERROR_ECC_UNCORRECTABLE] Call to cuMemcpyDtoH", "restart the worker"),
    ],
)
def test_what_cuda_says_becomes_one_line_with_a_remedy(monkeypatch, said, remedy):
    """As `problem`, and as the error of a tile, which is tried again like any that failed."""

    def fail(*_):
        raise CudaSupportError(said)

    compute = KERNELS["cuda"](100)
    monkeypatch.setattr(cuda, "launch", fail)
    with pytest.raises(md.MandeldaskError, match=f"^no GPU that works: .*{remedy}.*$"):
        compute(SEAHORSE)
    assert remedy in lacking("cuda")


def test_workers_with_a_device_compute_a_field(client, tmp_path):
    config = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [40, 50]}, "max_iter": 30, "kernel": "cuda"}
    assert md.run(config | {"tile": [20, 50]}, tmp_path / "field", client=client).computed == 2
    wanted = KERNELS["numba"](30)(View((-2, 1), (-1.5, 1.5), (40, 50)).block((0, 40), (0, 50)))
    assert np.array_equal(open_store(tmp_path / "field").escape_time[:], wanted)
