import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mandeldask.job.cost import BATCH, CLASSES, order

pending = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans())


@given(pending, st.booleans())
def test_each_pending_tile_is_in_exactly_one_batch_of_bounded_size(pending, costly):
    costs = np.random.default_rng(0).random(pending.shape) if costly else None
    batches = list(order(pending, costs))
    assert all(len(batch) == BATCH for batch in batches[:-1])
    assert sorted(tile for batch in batches for tile in batch) == [tuple(t) for t in np.argwhere(pending).tolist()]


def test_tiles_follow_a_morton_curve():
    (batch,) = order(np.ones((4, 4), bool))
    assert batch[:8] == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]


def test_costly_tiles_come_first_and_those_of_a_class_follow_the_curve():
    costs = np.arange(64.0).reshape(8, 8)
    tiles = [tile for batch in order(np.ones((8, 8), bool), costs) for tile in batch]
    classes = np.split(np.array([costs[tile] for tile in tiles]), CLASSES)
    assert all(later.max() < earlier.min() for earlier, later in itertools.pairwise(classes))
    assert tiles[:8] == [(7, j) for j in range(8)]


def test_a_few_costly_tiles_among_many_cheap_ones_come_first():
    costs = np.ones((30, 30))
    costs[7, 20:25] = 100
    first = next(iter(order(np.ones((30, 30), bool), costs)))
    assert sorted(first[:5]) == [(7, j) for j in range(20, 25)]


def test_equal_costs_change_nothing():
    everything = np.ones((16, 16), bool)
    assert list(order(everything, np.full((16, 16), 3.0))) == list(order(everything))


def test_a_million_tiles_are_put_in_order_lazily():
    assert len(next(iter(order(np.ones((1000, 1000), bool))))) == BATCH
