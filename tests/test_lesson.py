"""The lesson's own numbers, against the store that configs/lesson.yaml makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import mandeldask as md

LESSON = Path(__file__).parent.parent / "configs/lesson.yaml"


@pytest.fixture(scope="module")
def store(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("lesson") / "lesson.zarr"
    md.run(LESSON, path, client=client)
    return path


def serial(xmin, xmax, ymin, ymax, width, height, max_iter):
    """The lesson's serial function, in its own complex arithmetic: an array indexed (x, y)."""
    c = np.linspace(xmin, xmax, width)[:, np.newaxis] + 1j * np.linspace(ymin, ymax, height)[np.newaxis, :]
    z = np.zeros_like(c)
    escape_time = np.zeros(c.shape, np.int32)
    for _ in range(max_iter):
        mask = np.abs(z) <= 2
        z[mask] = z[mask] ** 2 + c[mask]
        escape_time[mask] += 1
    return escape_time


def test_every_pixel_equals_the_lessons_serial_function_transposed(store):
    """No pixel differs in this view, with fused multiply-add or without: 20,943,298 iterations."""
    field = zarr.open_array(store / "0/escape_time", mode="r")[:]
    assert np.array_equal(field, serial(-2, 1, -1.5, 1.5, 1000, 1000, 100).T)
    assert field.sum() == 20_943_298


def test_coordinates_are_linspace_bit_for_bit(store):
    level = zarr.open_group(store / "0", mode="r")
    assert level["x"][:].tobytes() == np.linspace(-2, 1, 1000).tobytes()
    assert level["y"][:].tobytes() == np.linspace(-1.5, 1.5, 1000).tobytes()


def test_xarray_reads_what_zarr_reads(store):
    dataset = xr.open_zarr(store, group="0")
    assert dataset.escape_time.dims == ("y", "x")
    assert dataset.escape_time.chunks == ((500, 500), (500, 500))
    assert np.array_equal(dataset.escape_time, zarr.open_array(store / "0/escape_time", mode="r")[:])
