"""Random samples of a store iterated in arithmetic of enough digits: what rounding has done to them."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mandeldask.errors import ConfigError, StoreError
from mandeldask.kernels import KERNELS, on_cpu
from mandeldask.kernels.fields import BAILOUT, BEYOND, EXTRA_STEPS, Orbit, distance
from mandeldask.kernels.shortcuts import never_escapes
from mandeldask.store import Store
from mandeldask.text import pip_install
from mandeldask.view import View

BITS, GUARD_BITS = 192, 64
# |dz/dc| up to which the error of a binary64 z is a displacement of c, times dz/dc: an error of 1e-6 or so
LINEAR = 2.0**32
HUGE = 2.0**500
LOOK = 16  # samples a side, at which the share of other counts is estimated
LOOK_ITERATIONS = 2**17
WIDE = 2.0**27  # units in the last place of c across a view, from which on the share is a few percent at most
DISPLACED = 0.25  # units in the last place of c, in the mean, towards the set or away from it
TASK_ITERATIONS = 2**20  # at most, some seconds of work; a task is one sample at least
QUANTILES = (0.5, 0.9, 0.99, 1.0)
Quantiles = dict[float, float]


@dataclass(frozen=True)
class Rounded:
    """A sample of a store beside what enough digits give."""

    stored: int  # escape time
    precise: int
    bits: int = 0  # of that arithmetic; 0 where none was needed, in the cardioid and the disc
    ulps: float = math.nan  # from c to where the same orbit begins, in units in the last place of the larger part of c
    explained: bool = True  # the count there, in enough digits, is the stored one
    errors: tuple[float, ...] = ()  # of `smooth`, in steps, and of `distance`, relative, as far as they are stored


@dataclass(frozen=True)
class Precision:
    """What rounding has done to random samples. Quantiles are the values that so large a share does not exceed."""

    samples: int
    differ: int  # whose escape time is another in enough digits
    by: Quantiles  # of those that differ: the difference
    ulps: Quantiles  # of those that differ: how far c would lie elsewhere, in units in its last place
    explained: int  # of those that differ: the count there, in enough digits, is the stored one
    bits: int  # of the arithmetic, at most
    smooth: Quantiles | None  # error, in steps; None where the store has none
    distance: Quantiles | None  # relative error


def other_counts(view: View, max_iter: int) -> float:
    """Share of the samples whose escape time rounding changes, about; 0 for a view so wide that it is small.

    Next to the set the continuous escape time changes by one within ln 2 / 2 of the estimated distance.
    """
    far = max(abs(bound) for bounds in view.extent for bound in bounds)
    if max(high - low for low, high in view.extent) > WIDE * np.spacing(far):
        return 0.0
    rows, columns = view.shape
    stride = -(-rows // LOOK), -(-columns // LOOK)
    c, cap = view.block((0, rows), (0, columns), stride=stride).ravel(), min(max_iter, LOOK_ITERATIONS)
    function = KERNELS[on_cpu()](cap)
    found = distance(function.outside(c, cap, function(c)))  # below what rounding does to c too
    away = found[np.isfinite(found)].astype(np.float64)
    changes = DISPLACED * np.spacing(far) * 2 / math.log(2)
    return float((changes / np.maximum(away, changes)).sum() / found.size)


def tasks(store: Store, samples: int, seed: int) -> Iterator[tuple[partial[list[Rounded]], int]]:
    """Functions of the store, and how many random samples each takes; of tiles that are done.

    StoreError where none is.
    """
    d, rng = store.description, np.random.default_rng((seed, samples))
    tiles = np.argwhere(store.done())
    if not len(tiles):
        raise StoreError(f"{store.path} has no tile yet whose samples could be iterated again")
    places = []
    for tile in tiles[rng.integers(len(tiles), size=samples)].tolist():
        rows, columns = d.levels[0].window((tile[0], tile[1]))
        places.append((int(rng.integers(*rows)), int(rng.integers(*columns))))
    size = max(1, TASK_ITERATIONS // d.max_iter)
    for first in range(0, samples, size):
        part = places[first : first + size]
        yield partial(round_samples, part), len(part)


def precision(samples: Sequence[Rounded], fields: Sequence[str]) -> Precision:
    """What the samples say together. `fields` are those of the store."""
    differ = [s for s in samples if s.stored != s.precise]
    beyond = [name for name in ("smooth", "distance") if name in fields]
    errors = {name: _quantiles([s.errors[k] for s in samples if s.errors]) for k, name in enumerate(beyond)}
    return Precision(
        samples=len(samples),
        differ=len(differ),
        by=_quantiles([abs(s.stored - s.precise) for s in differ]),
        ulps=_quantiles([s.ulps for s in differ]),
        explained=sum(s.explained for s in differ),
        bits=max((s.bits for s in samples), default=0),
        smooth=errors.get("smooth"),
        distance=errors.get("distance"),
    )


def _quantiles(values: Sequence[float]) -> Quantiles:
    known = np.array(values, np.float64)
    known = known[np.isfinite(known)]
    return {q: float(np.quantile(known, q)) for q in QUANTILES} if known.size else {}


def round_samples(places: Sequence[tuple[int, int]], store: Store) -> list[Rounded]:
    """The samples at these rows and columns. ConfigError where this machine lacks gmpy2."""
    d = store.description
    found = []
    for row, column in places:
        rows, columns = slice(row, row + 1), slice(column, column + 1)
        c = complex(d.view.block((row, row + 1), (column, column + 1))[0, 0])
        values = {name: store.window(rows, columns, 0, name)[0, 0] for name in d.fields}
        found.append(round_sample(c, d.max_iter, values))
    return found


def round_sample(c: complex, max_iter: int, values: dict[str, Any]) -> Rounded:
    """One sample, and the `values` that binary64 gave for its fields."""
    stored = int(values["escape_time"])
    if never_escapes(c.real, c.imag, math.sqrt):
        return Rounded(stored, max_iter)
    at, z, growth = _binary64(c, max_iter)
    precise, error, orbit, bits = _enough(c, 0j, max_iter, at, z)
    moved = error / growth if growth else complex(math.nan)
    ulps = abs(moved) / float(np.spacing(max(abs(c.real), abs(c.imag))))
    explained = precise == stored or _enough(c, moved, max_iter, at, z)[0] == stored
    found = Rounded(stored, precise, bits, ulps, explained)
    right = {name: float(BEYOND[name](orbit)[0]) for name in BEYOND if name in values}
    scale = {"smooth": 1.0, "distance": right.get("distance", 1.0) or math.nan}
    return replace(found, errors=tuple(abs(float(values[name]) - right[name]) / scale[name] for name in right))


def _binary64(c: complex, max_iter: int) -> tuple[int, complex, complex]:
    """The last step at which dz/dc is large but LINEAR, and z and dz/dc there, by the kernels' own operations."""
    x = y = 0.0
    growth, n, best = 0j, 0, (0, 0j, 0j)
    while n < max_iter and x * x + y * y <= 4 and abs(growth) <= LINEAR:
        if abs(growth) >= abs(best[2]):
            best = n, complex(x, y), growth
        growth = 2 * complex(x, y) * growth + 1
        x, y = (x * x - y * y) + c.real, (x * y + x * y) + c.imag
        n += 1
    return best


def _enough(c: complex, moved: complex, max_iter: int, at: int, z: complex) -> tuple[int, complex, Orbit, int]:
    """As `_iterate`, in as many bits as the orbit asks for, and how many these are."""
    bits, needed = 0, BITS
    while needed > bits:
        bits = needed
        count, error, orbit, lost = _iterate(c, moved, max_iter, at, z, bits)
        needed = math.ceil(1.1 * lost) + GUARD_BITS
    return count, error, orbit, bits


def _iterate(
    c: complex, moved: complex, max_iter: int, at: int, z: complex, bits: int
) -> tuple[int, complex, Orbit, float]:
    """Escape time of c + moved, the error of `z` as z_at, the orbit past the bailout, and how many bits it has lost."""
    gmpy2 = need_gmpy2()
    with gmpy2.context(precision=bits):
        cx, cy = gmpy2.mpfr(c.real) + moved.real, gmpy2.mpfr(c.imag) + moved.imag
        x = y = gmpy2.mpfr(0)
        growth, n, error, scale, least, lost = 0j, 0, 0j, 0.0, math.inf, 0.0
        while n < max_iter:
            x2, y2 = x * x, y * y
            if x2 + y2 > 4:
                break
            if n == at:
                error = complex(z.real - x, z.imag - y)
            growth = 2 * complex(x, y) * growth + (1 if scale == 0 else 0)
            if (size := abs(growth)) > HUGE:
                growth, scale = growth / HUGE, scale + math.log2(HUGE)
            grown = math.log2(size or 1.0) + scale
            least = min(least, grown)
            lost = max(lost, grown - least)
            if lost > bits:  # the rest would be noise
                break
            xy = x * y
            x, y = x2 - y2 + cx, xy + xy + cy
            n += 1
        return n, error, _onwards(complex(x, y), growth if not scale else complex(math.inf), c, n, max_iter), lost


def _onwards(z: complex, growth: complex, c: complex, n: int, max_iter: int) -> Orbit:
    """From an escape out to the bailout, past max_iter if need be; binary64 is enough there."""
    for _ in range(EXTRA_STEPS if n < max_iter else 0):
        if abs(z) > BAILOUT:
            break
        growth, z, n = 2 * z * growth + 1, z * z + c, n + 1
    parts = (z.real, z.imag, growth.real, growth.imag)
    x, y, dx, dy = np.array(parts if abs(z) > BAILOUT else [math.nan] * 4)[:, np.newaxis]
    return Orbit(x, y, dx, dy, np.array([n]))


def need_gmpy2() -> Any:
    """The module; ConfigError where it is missing."""
    try:
        import gmpy2  # noqa: PLC0415 (an extra, which only this needs)
    except ImportError as error:
        lacks = f"which cannot be imported on {socket.gethostname()} ({error})"
        raise ConfigError(f"samples are iterated in enough digits with gmpy2, {lacks}: {pip_install('deep')}") from None
    return gmpy2
