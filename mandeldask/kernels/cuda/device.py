"""The host's side: memory on the device, what is copied there and back, one block at a time."""

# mypy: disable-error-code="no-untyped-call,import-untyped"

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numba import config, cuda
from numba.cuda.cudadrv.error import CudaSupportError
from numpy.typing import NDArray

from mandeldask.errors import MandeldaskError
from mandeldask.kernels.block import BlockFunction
from mandeldask.kernels.cuda import steps
from mandeldask.kernels.fields import Orbit

RUN = 1 << 22  # samples on the device at a time: 44 bytes each, 84 with their orbits
THREADS, WARP, WARPS_AN_SM = (4, 4, 1) if config.ENABLE_CUDASIM else (256, 32, 32)  # the simulator's are Python threads

_lock = threading.Lock()  # one block at a time a process: the device is full with one


def make(max_iter: int, fields: tuple[str, ...]) -> BlockFunction:
    return BlockFunction(count, outside, max_iter, fields, band=None)


def count(c: NDArray[np.complex128], max_iter: int, out: NDArray[np.int32]) -> None:
    """Escape times of flat `c` into flat `out`."""
    with _device():
        for start in range(0, c.size, RUN):
            _count(c[start : start + RUN], max_iter, out[start : start + RUN])


def outside(c: NDArray[np.complex128], max_iter: int, counts: NDArray[np.int32]) -> Orbit:
    """The orbits of the samples with counts below max_iter, out to the larger bailout."""
    z, n = np.empty((4, c.size)), np.empty(c.size, np.int64)
    with _device():
        samples, times = cuda.to_device(c.view(np.float64)), cuda.to_device(counts)
        ends, last = cuda.device_array(z.shape), cuda.device_array(n.shape, np.int64)
        steps.outside_steps[_blocks(c.size), THREADS](samples, max_iter, times, ends, last)
        ends.copy_to_host(z)
        last.copy_to_host(n)
    return Orbit(*z, n)


def _count(c: NDArray[np.complex128], max_iter: int, out: NDArray[np.int32]) -> None:
    samples, times, *under_way = memory(c.size)
    samples.copy_to_device(c.view(np.float64))
    launch(max_iter, samples, times, *under_way)
    times.copy_to_host(out)


def launch(max_iter: int, samples: Any, times: Any, at: Any, zx: Any, zy: Any, zn: Any) -> None:
    """Escape times of the samples, all on the device."""
    counters = cuda.to_device(np.zeros(2, np.int32))
    grid = _blocks(times.size), THREADS
    steps.first_steps[grid](samples, max_iter, times, counters, at, zx, zy, zn)
    steps.unchecked_steps[_multiprocessors() * WARPS_AN_SM, WARP](samples, max_iter, counters, at, zx, zy, zn)
    steps.checked_steps[grid](samples, max_iter, times, counters, at, zx, zy, zn)


@contextmanager
def _device() -> Iterator[None]:
    with _lock:
        try:
            yield
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in {"numba", "cuda"}:
                raise
            raise MandeldaskError(f"the GPU failed: {' '.join(str(error).split())[:200]}") from error


def memory(size: int) -> list[Any]:
    """For `size` samples: parts of c, escape times; and the list of those under way: index, x, y and n."""
    room = min(RUN, max(1 << 16, 1 << (size - 1).bit_length()))
    samples, *arrays = _room(room)
    return [samples[: 2 * size], *(array[:size] for array in arrays)]


@cache
def _room(size: int) -> list[Any]:
    kinds = (np.int32, np.int32, np.float64, np.float64, np.int32)
    return [cuda.device_array(2 * size, np.float64), *(cuda.device_array(size, kind) for kind in kinds)]


@cache
def _multiprocessors() -> int:
    return 1 if config.ENABLE_CUDASIM else cuda.get_current_device().MULTIPROCESSOR_COUNT


def _blocks(size: int) -> int:
    return -(-size // THREADS)
