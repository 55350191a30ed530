"""Large arrays in memory that is used again: fresh memory costs a page fault every 4 KiB.

Making a complex block of 2048 x 2048 takes 7 ns a sample in fresh memory, and 1 ns in memory that is kept.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

LEAST_BYTES = 2**22  # malloc keeps smaller blocks itself
MAX_FREE = 4  # blocks of memory for items of one size that wait for the next array

_free: dict[int, deque[NDArray[np.uint8]]] = {}  # by the bytes of an item: complex blocks apart from escape times


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of arbitrary values, as `numpy.empty` gives it, perhaps in the memory of an earlier one.

    The memory is taken back when the last reference to the array and its views is gone. A tile at the edge takes that
    of a whole one. So there are never more blocks of memory, free ones included, than were in use at once, and a worker
    keeps no more than its tiles were planned with.
    """
    dtype, size = np.dtype(dtype), math.prod(shape) * np.dtype(dtype).itemsize
    if size < LEAST_BYTES:
        return np.empty(shape, dtype)
    free = _free.setdefault(dtype.itemsize, deque(maxlen=MAX_FREE))
    try:
        memory = free.pop()
    except IndexError:
        memory = np.empty(0, np.uint8)
    if memory.size < size:
        memory = np.empty(size, np.uint8)
    # A view refers to the array that it was made from, not to what lies below: a memoryview is no array.
    array = np.frombuffer(memory.data, dtype, math.prod(shape))
    # It may be taken back in any thread, at any time: to append is atomic, and no lock is held.
    weakref.finalize(array, free.append, memory).atexit = False
    return array.reshape(shape)
