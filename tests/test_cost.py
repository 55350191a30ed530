"""Expected costs and the time left that follows from them: pure, by a clock that the kernel moves."""

from __future__ import annotations

import numpy as np
import pytest

from mandeldask.job.cost import MIN_TILES, Estimate, expect, makespan
from mandeldask.store import Description
from mandeldask.tile import Record
from mandeldask.view import View

VIEW = View((0, 1), (0, 1), (16_000, 16_000), "pixel")
MAX_ITER = 100
FIELD = Description.of(VIEW, MAX_ITER, ("escape_time",), (1000, 1000))
CALL = 1e-5  # seconds that a call takes, however few its samples
ITERATION, INTERIOR = 1e-6, 2e-6  # seconds of an iteration, and of a sample that is proved never to escape


class Machine:
    """A kernel and its clock: of samples near the origin, which it proves to be interior, on a slope of iterations."""

    def __init__(self):
        self.now = 0.0

    def clock(self):
        return self.now

    def counts(self, c):
        slope = np.maximum(1, 90 * np.maximum(0, 1 - c.real - c.imag)).astype(np.int32)
        return np.where(np.abs(c) < 0.3, MAX_ITER, slope).astype(np.int32)

    def cost(self, c):
        counts = self.counts(c)
        return float(np.where(counts == MAX_ITER, INTERIOR, ITERATION * counts).sum())

    def block_function(self, c):
        self.now += CALL + self.cost(c)
        return self.counts(c)


def true_costs(d=FIELD):
    """Of each tile, from a twentieth of its samples each way."""
    costs = np.zeros(d.tiles)
    for tile in np.ndindex(d.tiles):
        (top, bottom), (left, right) = d.levels[0].window(tile)
        c = d.view.axis("x", (left, right), 20) + 1j * d.view.axis("y", (top, bottom), 20)[:, np.newaxis]
        costs[tile] = Machine().cost(c) / c.size * (bottom - top) * (right - left)
    return costs


def test_the_workers_time_is_that_of_the_threads_that_were_there():
    """One is there from the start and idle, one comes late, one leaves; a fourth is gone before it was counted."""
    run = Estimate(np.ones((2, 2), np.bool_), None, 1)
    run.count({"idle": 2, "leaves": 1}, 0.0)
    for n, (worker, started, finished) in enumerate([("leaves", 10, 12), ("late", 15, 20), ("brief", 14, 15)]):
        run.add(Record(divmod(n, 2), 1.0, 1, 1, 1, 0, worker, started, finished))
    run.count({"idle": 2, "late": 4}, 25.0)
    assert run.thread_seconds == 2 * (20 - 10) + 1 * (12 - 10) + 4 * (20 - 15) + 1 * (15 - 14)


def test_expected_costs_are_near_the_true_ones():
    machine, pending = Machine(), np.ones(FIELD.tiles, np.bool_)
    costs = expect(FIELD, pending, machine.block_function, 2, machine.clock)
    true = true_costs()
    assert costs.shape == FIELD.tiles
    assert costs.sum() == pytest.approx(true.sum(), rel=0.1)
    assert np.corrcoef(costs.ravel(), true.ravel())[0, 1] > 0.98


def test_what_a_call_costs_however_few_its_samples_is_charged_once_a_tile():
    """A kernel of whole-array steps: each takes as long as a thousand samples of it."""

    class Stepping(Machine):
        def block_function(self, c):
            self.now += 1000 * ITERATION * int(self.counts(c).max())
            return super().block_function(c)

    machine = Stepping()
    costs = expect(FIELD, np.ones(FIELD.tiles, np.bool_), machine.block_function, 2, machine.clock)
    assert costs.sum() == pytest.approx(true_costs().sum(), rel=0.1)


def test_tiles_that_are_cut_off_at_the_edge_are_expected_to_cost_less():
    d = Description.of(View((0, 1), (0, 1), (15_500, 15_001), "pixel"), MAX_ITER, ("escape_time",), (1000, 1000))
    machine = Machine()
    costs = expect(d, np.ones(d.tiles, np.bool_), machine.block_function, 2, machine.clock)
    assert costs.shape == d.tiles == (16, 16)
    assert costs[0, -1] < costs[0, -2] / 100
    assert costs.sum() == pytest.approx(true_costs(d).sum(), rel=0.1)


@pytest.mark.parametrize("threads", [1, 2, 16, 64])
def test_a_look_ahead_takes_little_of_the_job(threads):
    machine, pending = Machine(), np.ones(FIELD.tiles, np.bool_)
    expect(FIELD, pending, machine.block_function, threads, machine.clock)
    assert machine.now <= 0.02 * true_costs().sum() / threads


def test_a_small_job_is_not_looked_at():
    pending = np.zeros(FIELD.tiles, np.bool_)
    pending.flat[:MIN_TILES] = True
    machine = Machine()
    assert expect(FIELD, pending, machine.block_function, 1, machine.clock) is None
    assert machine.now == 0
    quick = Description.of(View((0, 1), (0, 1), (160, 160), "pixel"), MAX_ITER, ("escape_time",), (10, 10))
    assert expect(quick, np.ones(quick.tiles, np.bool_), machine.block_function, 8, machine.clock) is None


def test_the_makespan_of_a_greedy_schedule():
    assert makespan([3, 3, 1, 1], 2) == 4
    assert makespan([1, 1, 3, 3], 2) == 4
    assert makespan([1, 1, 1, 3], 2) == 4
    assert makespan([3, 1, 1, 1], 2) == 3
    assert makespan([], 2) == 0


def record(tile, seconds, started, finished):
    return Record(tile, seconds, 10, 1, 5, 0, "tcp://a", started, finished)


def test_the_time_left_follows_the_expected_costs():
    """One costly tile took twice what was expected; ten cheap ones of a tenth remain on one thread."""
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
