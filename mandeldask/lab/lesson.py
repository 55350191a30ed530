"""The lesson's functions as it prints them, and its multiprocessing version put right.

Arrays are indexed (x, y) here: the transpose of what the rest of mandeldask has. This module imports nothing but NumPy
and the standard library, so that a spawned process starts quickly.
"""

from __future__ import annotations

import signal
from itertools import pairwise
from multiprocessing import get_context, resource_tracker
from multiprocessing.pool import Pool

import numpy as np
from numpy.typing import NDArray

Escapes = NDArray[np.int32]
Complexes = NDArray[np.complex128]


def mandelbrot_escape_time(
    xmin: float, xmax: float, ymin: float, ymax: float, width: int, height: int, max_iter: int
) -> Escapes:
    """The lesson's serial function: escape times of shape (width, height), from 1 to max_iter."""
    x = np.linspace(xmin, xmax, width)
    y = np.linspace(ymin, ymax, height)
    return masked_loop(x[:, np.newaxis] + 1j * y[np.newaxis, :], max_iter)


def masked_loop(c: Complexes, max_iter: int) -> Escapes:
    """The loop of the lesson's serial function: escape times of `c`, in its shape."""
    z = np.zeros_like(c)
    escape_time = np.zeros(c.shape, dtype=np.int32)
    for _ in range(max_iter):
        mask = np.abs(z) <= 2
        z[mask] = z[mask] ** 2 + c[mask]
        escape_time[mask] += 1
    return escape_time


def mandelbrot_worker(
    y_start: int, y_end: int, xmin: float, xmax: float, ymin: float, ymax: float, width: int, height: int, max_iter: int
) -> Escapes:
    """The lesson's worker, as printed: samples of its own, with both ends of its share of [ymin, ymax] on bounds."""
    return mandelbrot_escape_time(
        xmin,
        xmax,
        ymin + (y_start / height) * (ymax - ymin),
        ymin + (y_end / height) * (ymax - ymin),
        width,
        y_end - y_start,
        max_iter,
    )


def mandelbrot_parallel(
    xmin: float, xmax: float, ymin: float, ymax: float, width: int, height: int, max_iter: int, num_workers: int
) -> Escapes:
    """The lesson's multiprocessing version, as printed: its result is wrong, see `faults`.

    One word differs: its pool is one of spawned processes on every system.
    """
    chunk_size = height // num_workers
    pool = spawned(num_workers)
    jobs = [
        pool.apply_async(mandelbrot_worker, (i, i + chunk_size, xmin, xmax, ymin, ymax, width, height, max_iter))
        for i in range(0, height, chunk_size)
    ]
    results = [job.get() for job in jobs]
    pool.close()
    pool.join()
    return np.vstack(results)


def mandelbrot_parallel_corrected(
    xmin: float, xmax: float, ymin: float, ymax: float, width: int, height: int, max_iter: int, num_workers: int
) -> Escapes:
    """The same put right: equal to the serial function to the bit, for any height and number of workers.

    Every share is cut from the samples of the whole, shares differ by one row at most and none is empty, the results
    are joined along y, and the pool ends whatever happens.
    """
    x = np.linspace(xmin, xmax, width)
    y = np.linspace(ymin, ymax, height)
    shares = [(x, y[first:end], max_iter) for first, end in cut(height, num_workers)]
    with spawned(num_workers) as pool:
        return np.hstack(pool.starmap(corrected_worker, shares))


def cut(n: int, parts: int) -> list[tuple[int, int]]:
    """[0, n) in ranges that differ by one at most, none of them empty."""
    edges = [n * i // parts for i in range(parts + 1)]
    return [(first, end) for first, end in pairwise(edges) if first < end]


def corrected_worker(x: NDArray[np.float64], y: NDArray[np.float64], max_iter: int) -> Escapes:
    """Escape times of the samples x + iy, shape (x.size, y.size)."""
    return masked_loop(x[:, np.newaxis] + 1j * y[np.newaxis, :], max_iter)


def _rows_of_printed_version(ymin: float, ymax: float, height: int, num_workers: int) -> NDArray[np.float64]:
    """The y of every row that `mandelbrot_parallel` computes, share after share.

    The last share begins before `height` but may end beyond it; neighbours both compute the row between them.
    """
    chunk_size = height // num_workers
    starts = np.array(range(0, height, chunk_size))
    first, end = (ymin + edges / height * (ymax - ymin) for edges in (starts, starts + chunk_size))
    return np.linspace(first, end, chunk_size, axis=1).ravel()


def spawned(n: int) -> Pool:
    """A pool of `n` processes, spawned on every system: forking a process that has threads is not safe.

    They never see Ctrl-C, which reaches every process of a terminal's foreground group: a worker that ended by it
    would leave the pool's locks taken, and this process could not end the pool.
    """
    signals = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        resource_tracker.ensure_running()  # it unblocks SIGINT in this thread
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        return get_context("spawn").Pool(n)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def faults(printed: Escapes, serial: Escapes, ymin: float, ymax: float, num_workers: int) -> dict[str, object]:
    """What `mandelbrot_parallel` gets wrong beside the serial function, for the same arguments.

    Returns
    -------
    dict
        `shape` of its result and the `shape_wanted`; the `rows` it computes, how many of them are `rows_twice` (the
        same y as another) or `rows_outside` [ymin, ymax]; and the `pixels_differing` even when its shares are joined
        along y, as they should be, with the rows that are too many left off.
    """
    width, height = serial.shape
    y = _rows_of_printed_version(ymin, ymax, height, num_workers)
    joined = np.hstack(np.split(printed, printed.shape[0] // width))[:, :height]
    return {
        "shape": list(printed.shape),
        "shape_wanted": [width, height],
        "rows": int(y.size),
        "rows_twice": int(y.size - np.unique(y).size),
        "rows_outside": int(((y < ymin) | (y > ymax)).sum()),
        "pixels_differing": int((joined != serial).sum()),
        "pixels": int(serial.size),
    }
