from __future__ import annotations

import os
import pickle
import subprocess
import sys
from itertools import accumulate, product

import numpy as np
import pytest
from dask.blockwise import Blockwise
from hypothesis import given, settings
from hypothesis import strategies as st

import mandeldask as md
from mandeldask import buffers
from mandeldask.view.outer import axes_of

coordinates = st.floats(-4, 4) | st.floats(-1e300, 1e300)
bounds = st.tuples(coordinates, coordinates).map(lambda b: sorted(v + 0.0 for v in b))  # a zero has no sign
bounds = bounds.filter(lambda b: b[0] < b[1])
sides = st.integers(1, 30)
views = st.builds(md.View, bounds, bounds, st.tuples(sides, sides), st.sampled_from(["gridline", "pixel"]))
lesson = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(23, 31))


def cut(n):
    """The sizes of any uneven chunks along `n` samples."""
    inner = st.sets(st.integers(1, n - 1), max_size=4) if n > 1 else st.just(set())
    return inner.map(lambda edges: tuple(int(size) for size in np.diff([0, *sorted(edges), n])))


def part(n):
    return st.tuples(st.integers(0, n - 1), st.integers(1, n)).map(sorted).filter(lambda p: p[0] < p[1]).map(tuple)


def compute(array):
    return array.compute(scheduler="synchronous")


@settings(deadline=None, max_examples=50)
@given(views, st.data())
def test_any_chunks_give_the_bits_of_the_whole_view(view, data):
    chunks = tuple(data.draw(cut(n)) for n in view.shape)
    grid = md.complex_grid(view, chunks)
    assert grid.chunks == chunks
    assert grid.dtype == np.complex128
    samples = compute(grid)
    assert samples.dtype == np.complex128
    rows, columns = view.shape
    assert samples.tobytes() == view.block((0, rows), (0, columns)).tobytes()


@settings(deadline=None, max_examples=25)
@given(views, st.data())
def test_each_block_is_the_view_at_its_own_global_indices(view, data):
    chunks = tuple(data.draw(cut(n)) for n in view.shape)
    grid = md.complex_grid(view, chunks)
    edges = [list(accumulate(sizes, initial=0)) for sizes in chunks]
    for i, j in product(*(range(n) for n in grid.numblocks)):
        wanted = view.block((edges[0][i], edges[0][i + 1]), (edges[1][j], edges[1][j + 1]))
        assert compute(grid.blocks[i, j]).tobytes() == wanted.tobytes()


@settings(deadline=None, max_examples=50)
@given(bounds, bounds, st.tuples(sides, sides), st.data())
def test_a_gridline_grid_has_the_bits_of_linspace_in_both_directions(x, y, shape, data):
    view = md.View(x, y, shape)  # in which a bound of -0.0 is 0.0
    samples = compute(md.complex_grid(view, tuple(data.draw(cut(n)) for n in shape)))
    across = np.broadcast_to(np.linspace(*view.x, shape[1]), shape)
    up = np.broadcast_to(np.linspace(*view.y, shape[0])[:, np.newaxis], shape)
    assert samples.real.tobytes() == across.tobytes()
    assert samples.imag.tobytes() == up.tobytes()


def test_a_pixel_grid_has_its_samples_at_cell_centres():
    grid = md.complex_grid(md.View(x=(0, 4), y=(-1, 1), shape=(2, 4), registration="pixel"), chunks=(1, 3))
    up, across = np.array([[-0.5], [0.5]]), np.array([0.5, 1.5, 2.5, 3.5])
    assert np.array_equal(compute(grid), across + 1j * up)


@settings(deadline=None, max_examples=50)
@given(views, st.data())
def test_a_window_has_the_bits_that_it_has_in_the_whole_grid(view, data):
    rows, columns = (data.draw(part(n)) for n in view.shape)
    window = md.complex_grid(view, tuple(data.draw(cut(b - a)) for a, b in (rows, columns)), (rows, columns))
    whole = compute(md.complex_grid(view, -1))
    assert window.shape == (rows[1] - rows[0], columns[1] - columns[0])
    assert compute(window).tobytes() == whole[slice(*rows), slice(*columns)].tobytes()


@pytest.mark.parametrize("chunks", [0, "many", (10, 10, 10), (7, (3, 4))])
def test_chunks_that_dask_cannot_take_are_told(chunks):
    with pytest.raises(md.ConfigError, match="chunks must be what Dask takes"):
        md.complex_grid(md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(30, 40)), chunks)


@pytest.mark.parametrize(
    ("chunks", "numblocks"), [((10, 10), (3, 4)), (16, (2, 2)), (-1, (1, 1)), ("auto", (1, 1)), ((-1, 8), (1, 4))]
)
def test_chunks_are_what_dask_takes_as_chunks(chunks, numblocks):
    grid = md.complex_grid(lesson, chunks)
    assert grid.numblocks == numblocks
    assert compute(grid).tobytes() == lesson.block((0, 23), (0, 31)).tobytes()


def test_a_grid_of_a_million_blocks_is_one_layer_that_is_not_written_out():
    grid = md.complex_grid(md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(10**6, 10**6)), chunks=(1000, 1000))
    assert grid.numblocks == (1000, 1000)
    layers = list(grid.dask.layers.values())
    assert [type(layer) for layer in layers] == [Blockwise]
    assert not layers[0].is_materialized()


def test_nothing_is_computed_while_a_grid_is_built():
    side = 2**31 - 1  # one block of it takes 64 EiB
    grid = md.complex_grid(md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(side, side)), chunks=-1)
    assert grid.npartitions == 1
    assert grid.nbytes == 16 * side**2


def test_one_block_of_a_vast_grid_is_computed_alone():
    view = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(10**6, 10**6))
    grid = md.complex_grid(view, chunks=(5, 10**6), window=((999_990, 10**6), (0, 10**6)))
    last = compute(grid[-1:, -3:])
    assert last.tobytes() == view.block((10**6 - 1, 10**6), (10**6 - 3, 10**6)).tobytes()
    assert last[0, -1] == 1 + 1.5j


def test_the_name_of_a_grid_says_what_is_in_it():
    def name(view=lesson, chunks=(10, 10), window=None):
        return md.complex_grid(view, chunks, window).name

    equal = md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(23, 31))
    assert name() == name(equal) == name(chunks=10) == name(window=((0, 23), (0, 31)))
    different = [
        name(),
        name(md.View(x=(-2, 1.5), y=(-1.5, 1.5), shape=(23, 31))),
        name(md.View(x=(-2, 1), y=(-1.5, 1), shape=(23, 31))),
        name(md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(23, 31), registration="pixel")),
        name(md.View(x=(-2, 1), y=(-1.5, 1.5), shape=(22, 31))),
        name(chunks=(10, 9)),
        name(window=((0, 10), (0, 10))),
        name(window=((10, 20), (0, 10))),
        name(window=((0, 10), (10, 20))),
    ]
    assert len(set(different)) == len(different)


def test_the_name_of_a_grid_is_the_same_in_every_process():
    program = "import mandeldask as md; print(md.complex_grid(md.View((-2, 1), (-1.5, 1.5), (23, 31)), (10, 10)).name)"
    seed = os.environ | {"PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", program], env=seed, stdout=subprocess.PIPE, text=True, check=True)
    assert other.stdout.strip() == md.complex_grid(lesson, (10, 10)).name


def test_a_grid_computed_on_a_cluster_has_the_same_bits(client):
    samples = client.compute(md.complex_grid(lesson, (7, 11))).result()
    assert samples.tobytes() == lesson.block((0, 23), (0, 31)).tobytes()


@settings(deadline=None, max_examples=10)
@given(st.lists(st.tuples(st.integers(1024, 1200), st.integers(1024, 1100)), min_size=1, max_size=8))
def test_a_thread_keeps_the_memory_of_one_complex_block_and_one_of_counts(shapes):
    """Whatever the shapes of the tiles: a worker's memory is planned for no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffers, "_free", {})
        for rows, columns in shapes:
            block = buffers.empty((rows * columns,), np.complex128)
            counts = buffers.empty((rows, columns), np.int32)
            block[:], counts[:] = 0, 0
            assert (block.size, counts.shape) == (counts.size, (rows, columns))
            assert not any(buffers._free.values())
            del block, counts
            assert all(len(free) <= 1 for free in buffers._free.values())
        largest = max(rows * columns for rows, columns in shapes)
        assert sum(memory.size for free in buffers._free.values() for memory in free) <= 20 * largest


def test_memory_is_used_again_only_when_no_view_of_it_is_left(monkeypatch):
    monkeypatch.setattr(buffers, "_free", {})
    first = buffers.empty((1024, 1024), np.int32)
    first[:] = 7
    view = first[::2, ::2]
    del first
    other = buffers.empty((1024, 1024), np.int32)
    other[:] = 8
    assert (view == 7).all()
    del view
    assert [memory.size for memory in buffers._free[4]] == [2**22]


def test_a_block_knows_its_axes_and_what_is_made_from_it_does_not():
    block = md.complex_grid(lesson, chunks=(10, 10)).to_delayed()[1, 2].compute(scheduler="sync")
    x, y = axes_of(block)
    assert np.array_equal(block, x + 1j * y[:, np.newaxis])
    for other in (block[1:], block.T, block + 1, block.copy(), pickle.loads(pickle.dumps(block))):
        assert axes_of(other) is None
    assert {type(array) for array in (block, block[1:], block * 2)} == {np.ndarray}
    with pytest.raises(ValueError, match="read-only"):  # the axes stay true
        block[0, 0] = 0
