"""Expected costs, the order and the time left that follow from them: pure, by a clock that the kernel moves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mandeldask.job.cost import MIN_TILES, expect, makespan
from mandeldask.job.estimate import Estimate
from mandeldask.job.order import order
from mandeldask.store import Description
from mandeldask.tile import Record
from mandeldask.view import View

VIEW = View((0, 1), (0, 1), (16_000, 16_000), "pixel")
FIELD = Description.of(VIEW, 100, ("escape_time",), (1000, 1000))
CALL = 1e-5  # seconds that a call takes, however few its samples


class Machine:
    """A kernel and its clock: a sample costs a microsecond, and a hundred where re + im < 1/2."""

    def __init__(self):
        self.now = self.kernel = 0.0

    def clock(self):
        return self.now

    def cost(self, c):
        return float(np.where(c.real + c.imag < 0.5, 1e-4, 1e-6).sum())

    def block_function(self, c):
        self.kernel += self.cost(c)
        self.now += CALL + self.cost(c)
        return np.ones(c.shape, np.int32)


def true_costs(d=FIELD):
    """Of each tile, from a twentieth of its samples each way."""
    costs = np.zeros(d.tiles)
    for tile in np.ndindex(d.tiles):
        (top, bottom), (left, right) = d.window(tile, (tile[0] + 1, tile[1] + 1))
        c = d.view.axis("x", (left, right), 20) + 1j * d.view.axis("y", (top, bottom), 20)[:, np.newaxis]
        costs[tile] = Machine().cost(c) / c.size * (bottom - top) * (right - left)
    return costs


def test_expected_costs_are_near_the_true_ones():
    machine, pending = Machine(), np.ones(FIELD.tiles, np.bool_)
    costs = expect(FIELD, pending, machine.block_function, 2, machine.clock)
    true = true_costs()
    assert costs.shape == FIELD.tiles
    assert costs.sum() == pytest.approx(true.sum(), rel=0.1)
    assert np.corrcoef(costs.ravel(), true.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("threads", [1, 2, 16, 64])
def test_a_look_ahead_takes_a_hundredth_of_the_job_at_most(threads):
    machine, pending = Machine(), np.ones(FIELD.tiles, np.bool_)
    expect(FIELD, pending, machine.block_function, threads, machine.clock)
    assert machine.now <= 0.01 * true_costs().sum() / threads


def test_only_what_is_pending_is_looked_at():
    pending = np.zeros(FIELD.tiles, np.bool_)
    pending[8:, 8:] = True
    pending[15, 0] = True
    machine = Machine()
    seen = []

    def block_function(c):
        seen.append(c)
        return machine.block_function(c)

    assert expect(FIELD, pending, block_function, 1, machine.clock) is not None
    of_cells = [c for c in seen if np.ptp(c.real) < 0.5]
    assert of_cells
    assert all(c.real.max() > 0.5 or c.imag.max() > 0.9 for c in of_cells)


def test_a_small_job_is_not_looked_at():
    pending = np.zeros(FIELD.tiles, np.bool_)
    pending.flat[:MIN_TILES] = True
    machine = Machine()
    assert expect(FIELD, pending, machine.block_function, 1, machine.clock) is None
    assert machine.now == 0
    quick = Description.of(View((0, 1), (0, 1), (160, 160), "pixel"), 100, ("escape_time",), (10, 10))
    assert expect(quick, np.ones(quick.tiles, np.bool_), machine.block_function, 8, machine.clock) is None


def test_dear_windows_come_first_and_all_tiles_once():
    costs = true_costs()
    pending = np.ones(FIELD.tiles, np.bool_)
    pending[3, 5] = False
    windows = list(order(pending, costs))
    tiles = [tile for window in windows for tile in window.tiles]
    assert sorted(tiles) == [tuple(tile) for tile in np.argwhere(pending).tolist()]
    sums = [sum(costs[tile] for tile in window.tiles) for window in windows]
    assert all(later <= 1.5 * earlier for earlier, later in itertools.pairwise(sums))
    assert windows[0].first == (0, 0)
    assert [w.tiles for w in order(pending, np.zeros(FIELD.tiles))] == [w.tiles for w in order(pending)]


def test_the_makespan_of_a_greedy_schedule():
    assert makespan([3, 3, 1, 1], 2) == 4
    assert makespan([1, 1, 3, 3], 2) == 4
    assert makespan([1, 1, 1, 3], 2) == 4
    assert makespan([3, 1, 1, 1], 2) == 3
    assert makespan([], 2) == 0


def record(tile, seconds, started, finished):
    return Record(tile, seconds, 10, 1, 5, 0, "tcp://a", started, finished)


def test_the_time_left_follows_the_expected_costs():
    """One dear tile took twice what was expected; ten cheap ones of a tenth remain on one thread."""
    pending = np.ones((1, 11), np.bool_)
    costs = np.array([[10.0] + [1.0] * 10])
    estimate = Estimate(pending, costs, 100)
    assert estimate.progress(5.0, 1, 1).seconds_left is None
    estimate.add(record((0, 0), 20.0, 0.0, 20.0))
    now = estimate.progress(20.0, 1, 1)
    assert (now.done, now.pending, now.failed) == (1, 11, 0)
    assert now.seconds_left == pytest.approx(20.0)  # without costs it would be 200
    assert now.samples_per_second == pytest.approx(5.0)


def test_what_a_tile_takes_beside_its_kernel_counts_too():
    estimate = Estimate(np.ones((1, 4), np.bool_), None, 100)
    for k in range(2):
        estimate.add(record((0, k), 1.0, 4.0 * k, 4.0 * k + 4))
    assert estimate.progress(8.0, 1, 1).seconds_left == pytest.approx(8.0)
    estimate.give_up((0, 2))
    assert estimate.progress(8.0, 1, 1).seconds_left == pytest.approx(4.0)


def test_more_threads_than_tiles_at_work_promise_nothing():
    estimate = Estimate(np.ones((1, 9), np.bool_), None, 100)
    estimate.add(record((0, 0), 10.0, 0.0, 10.0))
    assert estimate.progress(10.0, 4, 4).seconds_left > 80 / 4
