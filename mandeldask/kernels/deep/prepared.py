"""The reference and its table in a process: loaded once, kept for the next block."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels.deep import compiled
from mandeldask.kernels.deep.reference import Reference
from mandeldask.kernels.deep.table import Table, rows

KEPT = 3  # references that a process keeps tables for


class Loader(Protocol):
    """Where a worker process takes the reference from, when it needs it. Small to pickle."""

    @property
    def key(self) -> str:
        """Stands for the reference: one with the same key is not loaded again."""
        ...

    def __call__(self) -> Reference: ...


@dataclass(frozen=True, eq=False)
class Held:
    """A reference in memory; it travels whole when it is pickled."""

    reference: Reference

    @cached_property
    def key(self) -> str:
        r = self.reference
        return f"{r.origin} {r.unit} {r.bits} {r.length}"

    def __call__(self) -> Reference:
        return self.reference


@dataclass(frozen=True, eq=False)
class Prepared:
    """A reference with its table, and the table in plain doubles for the unit in use: that is made in milliseconds."""

    reference: Reference
    table: Table
    flats: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def flat(self, unit: int) -> NDArray[np.float64]:
        """The table for offsets in units of 2^unit."""
        with self.lock:
            if unit not in self.flats:
                out = np.zeros((len(self.table.terms), 16))
                compiled.flatten(self.table, unit, out)
                self.flats.clear()
                self.flats[unit] = out
            return self.flats[unit]


_cache: OrderedDict[str, Prepared] = OrderedDict()
_lock = threading.Lock()


def prepared(loader: Loader) -> Prepared:
    """The loader's reference with its table; other threads wait while one prepares it."""
    with _lock:
        if loader.key not in _cache:
            _cache[loader.key] = _prepare(loader())
            if len(_cache) > KEPT:
                _cache.popitem(last=False)
        _cache.move_to_end(loader.key)
        return _cache[loader.key]


def _prepare(reference: Reference) -> Prepared:
    first, tiny = rows(reference.length), reference.tiny
    table = Table(
        np.require(reference.z, complex, ["C", "A", "W"]),
        np.require(reference.low, complex, ["C", "A", "W"]),
        tiny[:, 0].astype(np.int64),
        np.ascontiguousarray(tiny[:, 1:], float),
        np.empty((first[-1], 18)),
        np.zeros((first[-1], 4), np.int32),
        first,
    )
    compiled.fill(table, np.empty((3, 18)), np.empty((3, 4), np.int32))
    return Prepared(reference, table)
