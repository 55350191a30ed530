"""Escape times far below the spacing of binary64, each proven to be the mathematical one or known not to be.

For a sample c = origin + (x + iy) 2^unit, x and y taken exactly, the escape time is the smallest n with |z_n| > 2 in
exact arithmetic, at most max_iter. It depends on no reference, tiling, machine or library. How, and the proof: README.

`make(...)` gives a block function as the other kernels do; its block holds the offsets x + iy.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.kernels.deep import compiled, third
from mandeldask.kernels.deep.reference import Reference, memory, reference_orbit
from mandeldask.kernels.deep.table import Table, rows

__all__ = [
    "PROOFS",
    "Counts",
    "Held",
    "Loader",
    "Reference",
    "dtype",
    "last_counts",
    "make",
    "memory",
    "reference_orbit",
]

PROOFS = "full", "double-double", "none"
ETA, ETA_CLOSE, ETA_PREVIEW = 2.0**-25, 2.0**-42, 2.0**-12  # of the jumps of pass 1, of pass 2, without proof
KEPT = 2  # references, and units of each, that a process keeps tables for
STEP = 32  # a block's samples are put in units of 2^(unit + a multiple of STEP), so that |c| is about 1

_last = threading.local()


class Loader(Protocol):
    """Where a worker process takes the reference from, when it needs it. Small to pickle."""

    @property
    def key(self) -> str:
        """Stands for the reference: loaded once a process and key."""

    def __call__(self) -> Reference: ...


@dataclass(frozen=True, eq=False)
class Held:
    """A reference in memory; it travels whole when it is pickled."""

    reference: Reference

    @property
    def key(self) -> str:
        r = self.reference
        return f"{r.origin} {r.unit} {r.bits} {r.length}"

    def __call__(self) -> Reference:
        return self.reference


@dataclass(frozen=True)
class Counts:
    """Samples of a block that went on to the second and third pass, and those that stayed unproven."""

    second: int
    third: int
    unproven: int


def last_counts() -> Counts:
    """Of this thread's last block."""
    return getattr(_last, "counts", Counts(0, 0, 0))


def dtype(max_iter: int) -> np.dtype[Any]:
    """Of escape_time: int32 where it holds max_iter."""
    return np.dtype(np.int32 if max_iter < 2**31 else np.int64)


def make(
    max_iter: int,
    fields: tuple[str, ...],
    loader: Loader,
    proof: str = "full",
    unit: int | None = None,
) -> DeepFunction:
    """A block function for offsets in units of 2^unit from the reference's origin; by default the reference's unit.

    `proof`: "full"; "double-double", where what the second pass leaves stays unproven; "none", a quick preview with
    0.2 to 4 % of counts wrong.

    Raises
    ------
    ConfigError
        max_iter out of range, unknown fields or proof.
    """
    if isinstance(max_iter, bool) or not isinstance(max_iter, int | np.integer) or not 1 <= max_iter < 2**63:
        raise ConfigError(f"max_iter must be an integer from 1 to 2^63 - 1; got {max_iter!r}")
    if proof not in PROOFS:
        raise ConfigError(f"proof must be one of {', '.join(PROOFS)}; got {proof!r}")
    if tuple(fields) != ("escape_time",):
        raise ConfigError(f"fields must be escape_time; got {fields!r}")
    return DeepFunction(loader, int(max_iter), tuple(fields), proof, unit)


@dataclass(frozen=True)
class DeepFunction:
    """Counts of one block of offsets, a complex128 array of any shape; `last_counts` tells what was proven how."""

    loader: Loader
    max_iter: int
    fields: tuple[str, ...]
    proof: str
    unit: int | None

    def __call__(self, offsets: NDArray[np.complex128]) -> NDArray[Any]:
        prepared = _prepared(self.loader)
        unit = prepared.reference.unit if self.unit is None else self.unit
        flat = np.ascontiguousarray(offsets).ravel()
        counts, unclear = self._first(prepared, flat, unit)
        second = third_ = 0
        if self.proof != "none":
            rest = np.flatnonzero(unclear)
            second = rest.size
            if second:
                counts[rest], unclear[rest] = _second(prepared, flat[rest], unit, self.max_iter)
        if self.proof == "full":
            rest = np.flatnonzero(unclear)
            third_ = rest.size
            if third_:
                counts[rest], unclear[rest] = _third(prepared.reference, flat[rest], unit, self.max_iter)
        unproven = flat.size if self.proof == "none" else int(unclear.sum())
        _last.counts = Counts(second, third_, unproven)
        return np.asarray(counts, dtype(self.max_iter)).reshape(offsets.shape)

    def _first(self, prepared: Prepared, flat: NDArray[np.complex128], unit: int) -> tuple[Any, Any]:
        counts, unclear = np.empty(flat.size, np.int64), np.empty(flat.size, bool)
        x, y, lost, shift = _scaled(flat)
        eta = ETA_PREVIEW if self.proof == "none" else ETA
        compiled.first_pass(
            prepared.table,
            prepared.flat(unit + shift),
            x,
            y,
            unit + shift,
            self.max_iter,
            eta,
            self.proof != "none",
            counts,
            unclear,
        )
        return counts, unclear | lost


def _scaled(flat: NDArray[np.complex128]) -> tuple[Any, ...]:
    """Parts of `flat` in units of 2^shift, at most about 1; flags where that is not exact; shift."""
    largest = float(np.max(np.abs(flat.view(float)), initial=0.0))
    shift = (int(np.frexp(largest)[1]) + STEP // 2) // STEP * STEP
    x, y = np.ldexp(flat.real, -shift), np.ldexp(flat.imag, -shift)
    return x, y, (np.ldexp(x, shift) != flat.real) | (np.ldexp(y, shift) != flat.imag), shift


def _second(prepared: Prepared, flat: NDArray[np.complex128], unit: int, max_iter: int) -> tuple[Any, Any]:
    counts, unclear = np.empty(flat.size, np.int64), np.empty(flat.size, bool)
    x, y = flat.real.copy(), flat.imag.copy()
    compiled.second_pass(prepared.table, x, y, unit, max_iter, ETA_CLOSE, counts, unclear)
    return counts, unclear


def _third(reference: Reference, flat: NDArray[np.complex128], unit: int, max_iter: int) -> tuple[Any, Any]:
    one = Fraction(2) ** unit
    x, y = reference.origin
    points = [(x + Fraction(c.real) * one, y + Fraction(c.imag) * one) for c in flat.tolist()]
    return third.counts(points, max_iter, max(0, -unit) + 200)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A reference with its table, and the table in doubles for the units in use."""

    reference: Reference
    table: Table
    flats: OrderedDict[int, NDArray[np.float64]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def flat(self, unit: int) -> NDArray[np.float64]:
        with self.lock:
            if unit not in self.flats:
                out = np.zeros((len(self.table.terms), 16))
                compiled.flatten(self.table, unit, out)
                _keep(self.flats, unit, out)
            return self.flats[unit]


def prepare(reference: Reference) -> Prepared:
    first = rows(reference.length)
    tiny = reference.tiny
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


_cache: OrderedDict[str, Prepared] = OrderedDict()
_cache_lock = threading.Lock()


def _prepared(loader: Loader) -> Prepared:
    with _cache_lock:
        if loader.key not in _cache:
            _keep(_cache, loader.key, prepare(loader()))
        return _cache[loader.key]


def _keep(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    cache[key] = value
    while len(cache) > KEPT:
        cache.popitem(last=False)
