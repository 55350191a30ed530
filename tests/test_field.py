from __future__ import annotations

import dask
import dask.array as da
import faults
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from kernel_contract import ON_CPU, expected, sample

import mandeldask as md
from mandeldask.kernels import KERNELS

lesson = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(23, 31))
kernels = pytest.mark.parametrize("kernel", ON_CPU)


def compute(array):
    return array.compute(scheduler="synchronous")


def cut(n):
    """The sizes of any uneven chunks along `n` samples."""
    inner = st.sets(st.integers(1, n - 1), max_size=4) if n > 1 else st.just(set())
    return inner.map(lambda edges: tuple(int(size) for size in np.diff([0, *sorted(edges), n])))


@kernels
def test_any_chunking_gives_what_the_kernel_gives_on_the_whole_grid(kernel):
    @settings(deadline=None, max_examples=30)
    @given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.integers(1, 200), st.data())
    def check(shape, max_iter, data):
        view = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=shape)
        grid = md.complex_grid(view, tuple(data.draw(cut(n)) for n in shape))
        field = md.escape_time(grid, max_iter, kernel)
        assert (field.dtype, field.shape, field.chunks) == (np.int32, grid.shape, grid.chunks)
        counts = compute(field)
        assert counts.dtype == np.int32
        assert np.array_equal(counts, KERNELS[kernel](max_iter)(view.block((0, shape[0]), (0, shape[1]))))

    check()


@kernels
def test_samples_that_are_nan_or_infinite_escape_as_the_contract_says(kernel):
    @settings(deadline=None, max_examples=30)
    @given(hnp.arrays(np.complex128, hnp.array_shapes(max_dims=3, max_side=9), elements=sample), st.data())
    def check(c, data):
        grid = da.from_array(c, chunks=tuple(data.draw(cut(n)) for n in c.shape))
        assert np.array_equal(compute(md.escape_time(grid, 30, kernel)), expected(c, 30))

    check()


@kernels
@pytest.mark.parametrize(("sample", "n"), [(np.nan, 1), (complex(0, np.inf), 1), (complex(-np.inf, np.nan), 1), (0, 9)])
def test_a_sample_that_is_no_number_escapes_at_the_first_step(kernel, sample, n):
    grid = da.full((2, 2), sample, chunks=1, dtype=np.complex128)
    assert compute(md.escape_time(grid, 9, kernel)).tolist() == [[n, n], [n, n]]


def rotated():
    return md.complex_grid(lesson, (10, 7)) * np.exp(0.3j) - 0.5


def log_polar():
    radius = da.exp(da.linspace(-9, 1, 40, chunks=16))[:, np.newaxis]
    return -0.75 + radius * da.exp(2j * np.pi * da.arange(24, chunks=10) / 24)


def curve():
    return 0.25 + 10.0 ** -da.arange(1, 6, 0.25, chunks=3) + 0j


def solid():
    return da.stack([md.complex_grid(lesson, (10, 7)) + 0.1 * k for k in range(3)])


def from_array():
    rng = np.random.default_rng(1)
    return da.from_array(rng.uniform(-2, 2, (9, 8, 7)) + 1j * rng.uniform(-2, 2, (9, 8, 7)), chunks=(4, 8, 3))


def scalar():
    return da.from_array(np.array(-0.75 + 0.01j))


def empty():
    return da.zeros((0, 5), dtype=np.complex128)


@kernels
@pytest.mark.parametrize("make", [rotated, log_polar, curve, solid, from_array, scalar, empty])
def test_any_complex_dask_array_will_do_as_grid(kernel, make):
    grid = make()
    field = md.escape_time(grid, 70, kernel)
    assert (field.dtype, field.shape, field.chunks) == (np.int32, grid.shape, grid.chunks)
    counts = np.asarray(compute(field))
    assert counts.dtype == np.int32
    assert np.array_equal(counts, expected(np.asarray(compute(grid)), 70))


def test_a_grid_whose_chunks_dask_does_not_know_will_do():
    grid = md.complex_grid(lesson, (10, 7))
    left = grid[grid.real < 0]
    assert np.array_equal(compute(md.escape_time(left, 20, "numpy")), expected(compute(left), 20))


@kernels
@pytest.mark.parametrize("make", [lambda: md.complex_grid(lesson, (10, 7)), rotated])
def test_a_block_is_one_task_after_fusion_with_its_grid(kernel, make):
    field = md.escape_time(make(), 50, kernel)
    (optimised,) = dask.optimize(field)
    assert field.npartitions == 15
    assert len(dict(optimised.dask)) == 15


def test_a_field_of_a_million_blocks_is_not_written_out():
    view = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(10**6, 10**6))
    field = md.escape_time(md.complex_grid(view, (1000, 1000)), 100, "numpy")
    assert len(field.dask.layers) == 2
    assert not any(layer.is_materialized() for layer in field.dask.layers.values())


def test_no_kernel_runs_while_the_graph_is_built():
    faults.install("failing", faults.fail)
    try:
        grid = md.complex_grid(lesson, (10, 10))
        for array in (grid, grid[:0], da.zeros((), dtype=np.complex128)):
            field = md.escape_time(array, 50, "failing")
            assert field.dtype == np.int32
        field = md.escape_time(grid, 50, "failing")
        with pytest.raises(ValueError, match="no tile succeeds"):
            compute(field)
    finally:
        faults.remove("failing")


def test_one_block_of_a_field_costs_one_call_of_the_kernel(tmp_path):
    calls = tmp_path / "calls"
    faults.install("counting", lambda c: faults.count(c, calls))
    try:
        field = md.escape_time(md.complex_grid(lesson, (10, 7)), 50, "counting")
        compute(field.blocks[1, 2])
        assert len(faults.counted(calls)) == 1
        compute(field)
        assert len(faults.counted(calls)) == 1 + 15
    finally:
        faults.remove("counting")


def test_the_name_of_a_field_says_what_is_in_it():
    def name(chunks=(10, 7), max_iter=50, kernel="numpy"):
        return md.escape_time(md.complex_grid(lesson, chunks), max_iter, kernel).name

    assert name() == name()
    different = [name(), name(chunks=(10, 8)), name(max_iter=51), name(kernel="numba")]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (
            "nunpy",
            r"must be one of numpy, numpy-compact, numba, cuda, deep or auto.*'nunpy'; did you mean numpy\?",
        ),
        ("Numba", r"'Numba'; did you mean numba\?"),
        ("fortran", "got 'fortran'$"),
        ("", "got ''$"),
        (None, "got None$"),
        (7, "got 7$"),
    ],
)
def test_an_unknown_kernel_is_refused_with_those_there_are(kernel, message):
    with pytest.raises(md.ConfigError, match=message):
        md.escape_time(md.complex_grid(lesson), 50, kernel)


@pytest.mark.parametrize(
    ("grid", "got"),
    [
        (da.zeros((3, 3), dtype=np.complex64), "a Dask array of complex64"),
        (da.zeros((3, 3), dtype=np.float64), "a Dask array of float64"),
        (np.zeros((3, 3), np.complex128), "a ndarray"),
        ([0j], "a list"),
        (lesson, "a View"),
        (None, "a NoneType"),
    ],
)
def test_what_is_no_complex128_dask_array_is_refused(grid, got):
    with pytest.raises(md.ConfigError, match=f"grid must be a Dask array of complex128; got {got}$"):
        md.escape_time(grid, 50, "numpy")


@kernels
@pytest.mark.parametrize("max_iter", [0, -1, 2**31, 1.5, "100", True, None, np.nan])
def test_a_bad_max_iter_is_refused_when_the_graph_is_built(kernel, max_iter):
    with pytest.raises(md.ConfigError, match="max_iter"):
        md.escape_time(md.complex_grid(lesson), max_iter, kernel)


@kernels
@pytest.mark.parametrize("max_iter", [1, np.int32(7), np.uint64(7)])
def test_max_iter_may_be_any_integer_from_1(kernel, max_iter):
    counts = compute(md.escape_time(md.complex_grid(lesson), max_iter, kernel))
    assert np.array_equal(counts, expected(lesson.block((0, 23), (0, 31)), int(max_iter)))


@kernels
@pytest.mark.parametrize("make", [rotated, from_array])
def test_a_field_computed_on_a_cluster_has_the_same_bits(client, kernel, make):
    field = md.escape_time(make(), 200, kernel)
    assert np.array_equal(client.compute(field).result(), compute(field))
