"""One bad tile, a worker that stands still, a cluster that is busy or lost, two drivers at once."""

from __future__ import annotations

from functools import partial

import faults
import pytest

import mandeldask as md
from mandeldask.store import open_store

UNIT = {"view": {"x": [0, 1], "y": [0, 1], "shape": [100, 120]}, "max_iter": 50, "tile": [25, 40]}
TILES = 12
LIMIT = 700 * 2**20  # an idle worker takes 240 MiB


@pytest.fixture(scope="module")
def expected(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("expected") / "a.zarr"
    md.run({**UNIT, "kernel": "numpy"}, path, client=client)
    return open_store(path).checksum()


@pytest.fixture
def kernel(request):
    """Install `before` as the kernel "faulty" of this process, for one test."""

    def install(before):
        faults.install("faulty", before)
        request.addfinalizer(lambda: faults.remove("faulty"))
        return UNIT | {"kernel": "faulty"}

    return install


@pytest.mark.parametrize(
    "fault", [faults.segfault, partial(faults.devour, limit=LIMIT)], ids=["a segfault", "all the memory"]
)
def test_a_tile_that_ends_its_worker_is_named_the_rest_finish_and_resume_tries_it_again(
    tmp_path, kernel, expected, fault
):
    cluster = {"kind": "local", "workers": 2, "memory_limit": "700MiB"}
    summary = md.run(kernel(fault) | {"cluster": cluster}, tmp_path / "a.zarr")
    assert (summary.failed, set(summary.errors)) == (1, {"0,0"})
    assert "worker died" in summary.errors["0,0"]
    store = open_store(tmp_path / "a.zarr")
    assert store.done().sum() == TILES - 1
    assert md.status(store.path).exit_code == 4
    assert md.resume(store.path, kernel="numpy", cluster=cluster).computed == 1
    assert store.checksum() == expected
    assert all(store.done(level.number).all() for level in store.description.levels)
