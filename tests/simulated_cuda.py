"""The kernel cuda in Numba's simulator. test_cuda.py runs this where NUMBA_ENABLE_CUDASIM is set."""

import importlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import simulator  # before a kernel runs
from kernel_contract import boundary_points, check_fields, check_kernel, scalar_loop
from numba.cuda.simulator.cudadrv.devices import FakeCUDAContext
from numba.cuda.simulator.cudadrv.error import CudaSupportError

import mandeldask as md
from mandeldask.kernels import KERNELS, cuda, fastest, here, lacking
from mandeldask.store import open_store
from mandeldask.view import View
from mandeldask.view.outer import outer_sum


def lose():
    """A GPU that falls off its bus after one more block."""
    working, calls = cuda.launch, []

    def launch(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise CudaSupportError("[CUDA_ERROR_ILLEGAL_ADDRESS] Call to cuMemcpyDtoH")
        working(*arguments)

    cuda.launch = launch


class Gpu(FakeCUDAContext):
    """One of several, which works or has no context to give."""

    def __init__(self, number, works=True):
        super().__init__(number)
        self.device.uuid, self.works = f"GPU-{number}", works

    def __enter__(self):
        if not self.works:
            raise CudaSupportError("[CUDA_ERROR_ECC_UNCORRECTABLE] Call to cuDevicePrimaryCtxRetain")


def is_free(number):
    lock = cuda._lock(f"GPU-{number}")
    if lock is not None:
        os.close(lock)
    return lock is not None


SEAHORSE = View.around(("-0.743643887037151", "0.131825904205330"), "1e-3", (12, 13)).block((0, 12), (0, 13))
EVERY = ("escape_time", "smooth", "distance")


def test_it_keeps_the_contract():
    check_kernel(KERNELS["cuda"], boundary=60, large=200, share=0.2)


def test_it_gives_the_other_fields():
    check_fields(KERNELS["cuda"])
    ours, others = (KERNELS[name](400, EVERY)(SEAHORSE) for name in ("cuda", "numba"))
    for name in EVERY:
        assert np.array_equal(ours[name], others[name], equal_nan=True)


def test_it_proves_of_the_same_samples_as_numba_that_they_never_escape(monkeypatch):
    """Around two small components, where cycles are found or not; at the tip, some of it checked step by step."""
    bulbs = [View.around(at, "0.3", (8, 8)).block((0, 8), (0, 8)).ravel() for at in (("-0.12", "0.74"), ("-1.3", "0"))]
    tip = -2 + 2.0**-51 * np.arange(6) + 2.0**-30 * np.array([0, 0, 1, 1, 1j, 100j])
    c = np.concatenate([*bulbs, tip, boundary_points(20)])
    monkeypatch.setattr(fastest, "_chosen", ["cuda", ""])
    for max_iter in (31, 57, 900):
        cuda_s, numba_s, auto_s, numpy_s = (
            KERNELS[name](max_iter, ("escape_time", "interior"))(c) for name in ("cuda", "numba", "auto", "numpy")
        )
        assert cuda_s.tobytes() == numba_s.tobytes() == auto_s.tobytes()
    assert {0, 1, 2} == set(cuda_s["interior"]) and (numpy_s["interior"] == 2).sum() < (cuda_s["interior"] == 2).sum()


def test_a_gpu_that_does_not_work_is_given_back_and_the_next_one_tried(monkeypatch):
    monkeypatch.setattr(cuda, "_mine", [])
    monkeypatch.setattr(cuda.cuda, "gpus", [Gpu(0, works=False), Gpu(1), Gpu(2, works=False), Gpu(3)])
    of_gpu_0 = cuda.kept()
    assert cuda.claim() == "" and cuda._mine == [1]
    assert cuda.kept() is not of_gpu_0
    assert [is_free(number) for number in range(4)] == [True, False, True, True]
    assert np.array_equal(KERNELS["cuda"](300)(SEAHORSE).ravel(), scalar_loop(SEAHORSE.ravel(), 300))
    monkeypatch.setattr(cuda.cuda, "gpus", cuda.cuda.gpus[:3])
    assert "ECC_UNCORRECTABLE" in cuda.claim() and cuda._mine == []  # by the next process, so to speak
    monkeypatch.setattr(cuda.cuda, "gpus", cuda.cuda.gpus[1:2])
    assert "other workers have claimed" in cuda.claim()


def test_a_block_larger_than_half_of_what_is_free_on_the_device_goes_there_in_runs(monkeypatch):
    device = SimpleNamespace(get_memory_info=lambda: (100 * cuda.BYTES, 10**9))
    monkeypatch.setattr(cuda.cuda, "current_context", lambda: device, raising=False)
    monkeypatch.setattr(cuda, "kept", cache(cuda.kept.__wrapped__))
    assert len(cuda.kept().times[0]) == 50 < SEAHORSE.size
    right, compute, calls = scalar_loop(SEAHORSE.ravel(), 900), KERNELS["cuda"](900), []
    for call in (cuda.launch, cuda._fetch):
        noted = lambda *given, call=call: (calls.append(call.__name__), call(*given))  # noqa: E731
        monkeypatch.setattr(cuda, call.__name__, noted)
    assert np.array_equal(compute(SEAHORSE).ravel(), right)
    assert calls == ["launch", *["launch", "_fetch"] * 3, "_fetch"]  # of a run, while the next is computed
    axes = SEAHORSE.real[0].copy(), SEAHORSE.imag[:, 0].copy()
    monkeypatch.setattr(fastest, "_chosen", ["cuda", ""])
    for kernel in ("cuda", "auto"):  # of a block that knows its axes these alone go there
        assert np.array_equal(KERNELS[kernel](900)(outer_sum(0 * SEAHORSE, axes)).ravel(), right)


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
        ("[CUDA_ERROR_OUT_OF_MEMORY] Call to cuMemAlloc", "others have taken its memory"),
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


@pytest.fixture
def workers(client):
    """The two workers of a cluster, of which one has claimed the GPU."""
    client.run(importlib.import_module, simulator.__name__)
    return client


def run(workers, tmp_path, tell=lambda _: None):
    config = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [40, 60]}, "max_iter": 200, "tile": [10, 10]}
    summary = md.run(config, tmp_path / "field", client=workers, tell=tell)
    wanted = KERNELS["numba"](200)(View((-2, 1), (-1.5, 1.5), (40, 60)).block((0, 40), (0, 60)))
    assert np.array_equal(open_store(tmp_path / "field").escape_time[:], wanted)
    return summary


def test_a_worker_with_a_gpu_and_one_without_share_the_tiles_and_give_the_same_bits(workers, tmp_path):
    said = []
    summary = run(workers, tmp_path, said.append)
    assert sorted(workers.run(here).values()) == ["cuda", "numba"]
    assert any(getattr(event, "text", "") == "of 2 workers: cuda on 1, numba on 1" for event in said)
    assert summary.kernels.keys() == {"cuda", "numba"} and sum(summary.kernels.values()) == 24


def test_a_deep_view_is_computed_on_the_cpus_of_both(workers, tmp_path):
    view = {"centre": ["-0.7436438870371510000", "0.1318259042053300000"], "span": "1e-18", "shape": [20, 20]}
    said = []
    config = {"view": view, "max_iter": 3000, "tile": [5, 5]}
    summary = md.run(config, tmp_path / "deep", client=workers, tell=said.append)
    assert sorted(workers.run(here).values()) == ["cuda", "numba"]
    assert summary.kernels == {"deep": 16} and summary.failed == 0
    assert any("on CPUs" in getattr(event, "reason", "") for event in said)


def test_a_gpu_lost_in_mid_run_costs_no_tile_and_is_told_once(workers, tmp_path):
    """The last test of these workers: the one without a GPU leaves first, or it might take all tiles but one."""
    kernels, said = workers.run(here), []
    (owner,) = (worker for worker, kernel in kernels.items() if kernel == "cuda")
    workers.retire_workers([worker for worker in kernels if worker != owner])
    workers.run(lose, workers=[owner])
    summary = run(workers, tmp_path, said.append)
    assert summary.failed == 0 and summary.kernels == {"cuda": 1, "numba": 23}
    assert workers.run(here, workers=[owner]) == {owner: "numba"}
    notices = [event.text for event in said if "its GPU failed" in getattr(event, "text", "")]
    assert len(notices) == 1 and owner in notices[0]
