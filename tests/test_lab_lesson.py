"""The lesson's functions: the faults of the multiprocessing version as printed, and that the corrected one is right."""

from __future__ import annotations

import numpy as np
import pytest

from mandeldask.kernels import KERNELS
from mandeldask.lab import lesson
from mandeldask.lab.workload import lesson_view

VIEW = (-2, 1, -1.5, 1.5)


def test_the_serial_function_is_the_kernel_numpy_transposed():
    view = lesson_view(90, 120)
    kernel = KERNELS["numpy"](50)(view.block((0, 90), (0, 120)))
    assert np.array_equal(lesson.mandelbrot_escape_time(*VIEW, 120, 90, 50), kernel.T)


@pytest.mark.parametrize(
    ("width", "height", "workers", "expected"),
    [
        # workers divide the height: nothing lies outside, the three seams are computed twice
        (60, 60, 4, {"shape": [240, 15], "rows": 60, "rows_twice": 3, "rows_outside": 0}),
        # they do not: a fifth share of nine rows, eight of them above the view
        (50, 37, 4, {"shape": [250, 9], "rows": 45, "rows_twice": 4, "rows_outside": 8}),
    ],
)
def test_the_printed_version_has_these_faults(width, height, workers, expected):
    serial = lesson.mandelbrot_escape_time(*VIEW, width, height, 30)
    printed = lesson.mandelbrot_parallel(*VIEW, width, height, 30, workers)
    faults = lesson.faults(printed, serial, -1.5, 1.5, workers)
    assert {key: faults[key] for key in expected} == expected
    assert faults["shape_wanted"] == [width, height]
    assert faults["pixels"] == serial.size
    assert faults["pixels_differing"] > serial.size // 50


def test_the_rows_of_the_printed_version_are_those_that_its_workers_compute():
    x = np.linspace(-2, 1, 50)
    shares = [lesson.mandelbrot_worker(i, i + 9, *VIEW, 50, 37, 30) for i in range(0, 37, 9)]
    rows = lesson._rows_of_printed_version(-1.5, 1.5, 37, 4)
    assert np.array_equal(np.hstack(shares), lesson.corrected_worker(x, rows, 30))


def test_the_printed_version_fails_with_fewer_rows_than_workers():
    with pytest.raises(ValueError, match="must not be zero"):
        lesson._rows_of_printed_version(-1.5, 1.5, 3, 4)


@pytest.mark.parametrize(("width", "height", "workers"), [(60, 60, 4), (50, 37, 4), (20, 3, 4), (30, 30, 1)])
def test_the_corrected_version_equals_the_serial_function(width, height, workers):
    serial = lesson.mandelbrot_escape_time(*VIEW, width, height, 30)
    corrected = lesson.mandelbrot_parallel_corrected(*VIEW, width, height, 30, workers)
    assert corrected.dtype == serial.dtype
    assert np.array_equal(corrected, serial)


@pytest.mark.parametrize(("n", "parts"), [(10, 3), (3, 5), (7, 1)])
def test_a_range_is_cut_in_parts_that_differ_by_one_at_most(n, parts):
    ranges = lesson.cut(n, parts)
    assert [i for first, end in ranges for i in range(first, end)] == list(range(n))
    sizes = {end - first for first, end in ranges}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0
