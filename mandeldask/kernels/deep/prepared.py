"""The reference and its table in a process: loaded once, kept for the next block."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels.deep.reference import Reference
from mandeldask.kernels.deep.table import FLAT, POWERS, TERMS, Table, fill, flatten, rows

# References that a process keeps, and the most bytes of them with their tables beside the one that it loads.
KEPT, KEPT_BYTES = 3, 64 * 2**20
FLATS_BYTES = 16 * 2**20  # of tables in plain doubles: a strip's bands and two threads take several; at least one


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
        parts = [n for part in r.origin for n in part.as_integer_ratio()]
        return f"{[*map(hex, parts)]} {r.unit} {r.bits} {r.length}"  # of decimal digits Python writes 4300

    def __call__(self) -> Reference:
        return self.reference


@dataclass(frozen=True, eq=False)
class Prepared:
    """A reference with its table, and the table in plain doubles for the units in use."""

    reference: Reference
    table: Table
    flats: OrderedDict[int, NDArray[Any]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def nbytes(self) -> int:
        r, t = self.reference, self.table
        with self.lock:
            arrays: list[NDArray[Any]] = [r.z, r.low, r.tiny, t.tiny, t.terms, t.powers, *self.flats.values()]
        return sum(array.nbytes for array in arrays)

    def flat(self, unit: int) -> NDArray[Any]:
        """The table for offsets in units of 2^unit."""
        with self.lock:
            if unit not in self.flats:
                flat = np.zeros(self.table.terms.size, FLAT)
                while self.flats and (len(self.flats) + 1) * flat.nbytes > FLATS_BYTES:
                    self.flats.popitem(last=False)
                self.flats[unit] = flat
                flatten(self.table, unit, self.flats[unit])
            self.flats.move_to_end(unit)
            return self.flats[unit]


_cache: OrderedDict[str, Prepared] = OrderedDict()
_lock = threading.Lock()


def prepared(loader: Loader) -> Prepared:
    """The loader's reference with its table; other threads wait while one prepares it."""
    with _lock:
        if loader.key not in _cache:
            while len(_cache) >= KEPT or sum(kept.nbytes for kept in _cache.values()) > KEPT_BYTES:
                _cache.popitem(last=False)
            _cache[loader.key] = _prepare(loader())
        _cache.move_to_end(loader.key)
        return _cache[loader.key]


def _prepare(reference: Reference) -> Prepared:
    first, tiny = rows(reference.length), reference.tiny
    table = Table(
        np.require(reference.z, complex, ["C", "A", "W"]),
        np.require(reference.low, complex, ["C", "A", "W"]),
        tiny[:, 0].astype(np.int64),
        np.ascontiguousarray(tiny[:, 1:], float),
        np.empty(first[-1], TERMS),
        np.zeros(first[-1], POWERS),
        first,
    )
    fill(table, np.empty(3, TERMS), np.empty(3, POWERS))
    return Prepared(reference, table)
