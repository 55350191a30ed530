import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mandeldask.job.order import order

pending = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans())


@given(pending)
def test_each_pending_tile_is_in_exactly_one_window(pending):
    tiles = [tile for window in order(pending) for tile in window.tiles]
    assert sorted(tiles) == [tuple(t) for t in np.argwhere(pending).tolist()]


@given(pending)
def test_a_window_is_a_rectangle_of_at_most_8_by_8_that_holds_its_tiles(pending):
    for window in order(pending):
        assert all(0 < end - first <= 8 for first, end in zip(window.first, window.end, strict=True))
        for tile in window.tiles:
            assert all(f <= t < e for f, t, e in zip(window.first, tile, window.end, strict=True))


def test_tiles_follow_a_morton_curve():
    (window,) = order(np.ones((4, 4), bool))
    assert window.tiles[:8] == ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3))


def test_a_million_tiles_are_put_in_order_lazily():
    first = next(iter(order(np.ones((1000, 1000), bool))))
    assert len(first.tiles) == 64
