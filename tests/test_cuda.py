"""The kernel cuda where no GPU is: in Numba's simulator, and what is said without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mandeldask as md
from mandeldask import kernels
from mandeldask.cluster import Session
from mandeldask.kernels import KERNELS, choose, fastest, lacking, report

CONFIG = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [40, 40]}, "max_iter": 30, "kernel": "cuda"}


@pytest.fixture(scope="module")
def no_gpu():
    if not lacking("cuda"):
        pytest.skip("this machine has a GPU: scripts/check_cuda tests more")


@pytest.mark.once
def test_in_the_simulator(tmp_path):
    """Numba reads the variable when it is imported: hence a process of its own."""
    tests = Path(__file__).with_name("simulated_cuda.py")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", tests]
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "TMPDIR": str(tmp_path)}  # where GPUs are claimed
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_gpu_it_says_so_in_one_line_and_auto_passes_it_by(no_gpu):
    for refuse in (lambda: choose("cuda"), lambda: KERNELS["cuda"](100)):
        with pytest.raises(
            md.ConfigError, match=r"^the kernel cuda finds no GPU that works: .* driver .*take kernel: auto.*$"
        ):
            refuse()
    assert choose("cuda", here=False) == ("cuda", "as asked")
    assert report() == ("numba", "")


def test_a_gpu_that_auto_cannot_use_is_told_of(monkeypatch):
    monkeypatch.setattr(fastest, "_chosen", [])
    monkeypatch.setattr(fastest, "_cuda_problem", lambda _: "finds no GPU that works: its driver is older")
    assert report() == ("numba", "finds no GPU that works: its driver is older")


def test_without_numba_cuda_it_says_what_to_install(monkeypatch):
    monkeypatch.delattr(kernels, "cuda", raising=False)
    monkeypatch.setitem(sys.modules, "mandeldask.kernels.cuda", None)  # importing it raises ImportError
    with pytest.raises(md.ConfigError, match=r"numba-cuda, which cannot be imported here .*\[cuda\]"):
        choose("cuda")


def test_workers_without_a_gpu_are_found_before_any_tile(no_gpu, client, tmp_path):
    with pytest.raises(md.ClusterError, match=r"2 of 2 workers cannot run the kernel cuda: on tcp.* it finds no GPU"):
        Session(kernel="cuda", client=client).ready()
    with pytest.raises(md.ClusterError, match=r"2 of 2 workers cannot run the kernel cuda"):
        md.submit(CONFIG, tmp_path / "a.zarr", client=client)
    assert not (tmp_path / "a.zarr").exists()
