"""Escape times far below the spacing of binary64, each proven to be the mathematical one or known not to be.

For a sample c = origin + (x + iy) 2^unit, x and y taken exactly, the escape time is the smallest n with |z_n| > 2 in
exact arithmetic, at most max_iter. It depends on no reference, tiling, machine or library. How, and the proof: README.

`DeepFunction` is a block function like those of the other kernels; its block holds the offsets x + iy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels.block import check, runs
from mandeldask.kernels.deep.first import first_pass
from mandeldask.kernels.deep.prepared import Held, Loader, Prepared, prepared
from mandeldask.kernels.deep.reference import Reference, reference_orbit
from mandeldask.kernels.deep.second import second_pass
from mandeldask.kernels.deep.third import count, count_at
from mandeldask.kernels.fields import BEYOND, EXACT_FIELDS, NOT_ESCAPED, Orbit

__all__ = [
    "Counts",
    "DeepFunction",
    "Held",
    "Loader",
    "Reference",
    "count",
    "count_at",
    "last_counts",
    "reference_orbit",
]

ETA, ETA_CLOSE, ETA_PREVIEW = 2.0**-25, 2.0**-42, 2.0**-12  # of the jumps of pass 1, of pass 2, without proof
# Square of the bound on z's relative error from which a later pass takes a sample whose distance is wanted: measured,
# the distance is then right to 1e-6. A smooth count is right to 1e-7 steps whatever the bound.
COARSE, ANY = 2.0**-26, 1e300
SURELY = 1e-12  # more than rounding does to c and to the polynomial of the cardioid, where these are below 10
TINY = 2.0**-500  # so much smaller than a band's largest, a sample's slope in the same unit may overflow
BAND = 1 << 14  # samples that are followed at once: 5 MB of scratch for all fields
STEP = 32  # a band's samples are put in units of 2^(unit + a multiple of STEP), so that |c| is about 1

_last = threading.local()


class Counts(NamedTuple):
    """Samples of a block that went on to the second and third pass, and those that stayed unproven."""

    second: int
    third: int
    unproven: int


def last_counts() -> Counts:
    """Of this thread's last block."""
    return getattr(_last, "counts", Counts(0, 0, 0))


@dataclass
class _Found:
    """What is known of flat samples: counts, which of them are not proven, and how the orbits end.

    Rows of `end`: z and its slope dz/d(x + iy) at the bailout, and the step.
    """

    counts: NDArray[np.int64]
    unclear: NDArray[np.bool_]
    end: NDArray[np.float64]

    @classmethod
    def nothing(cls, size: int, ends: bool) -> _Found:
        return cls(np.empty(size, np.int64), np.zeros(size, bool), np.full((5, size if ends else 0), np.nan))

    def put(self, at: NDArray[np.intp], found: _Found) -> None:
        self.counts[at], self.unclear[at] = found.counts, found.unclear
        if self.end.size:
            self.end[:, at] = found.end


@dataclass(frozen=True)
class DeepFunction:
    """Escape times and other fields of one block of offsets, a complex128 array of any shape; `last_counts` says more.

    `smooth` and `distance` are float64. `smooth` is right to 2e-6 steps, `distance`, in units of the offsets, to 1e-6
    of itself; both are NaN where the count is max_iter.
    """

    max_iter: int
    fields: tuple[str, ...]
    loader: Loader
    proof: str = "full"
    """full; double-double, where what the second pass leaves stays unproven; none, a quick preview whose counts are
    wrong in up to a tenth of samples."""
    unit: int | None = None
    """Offsets from the reference's origin are in units of 2^unit, by default the reference's."""

    def __call__(self, offsets: NDArray[np.complex128]) -> NDArray[Any]:
        check(offsets)
        here, sums = prepared(self.loader), Counts(0, 0, 0)
        types = [(name, EXACT_FIELDS[name]) for name in self.fields] if len(self.fields) > 1 else np.int32
        out = np.empty_like(offsets, types, subok=False)
        targets = [out[name] for name in self.fields] if out.dtype.names else [out]
        for flat, *results in runs(offsets, *targets, band=BAND):
            found, counts = self._found(here, flat)
            self._fill(found, dict(zip(self.fields, results, strict=True)))
            sums = Counts(*map(add, sums, counts))
        _last.counts = sums
        return out

    def _found(self, here: Prepared, flat: NDArray[np.complex128]) -> tuple[_Found, Counts]:
        """All that the passes find of a band of samples."""
        found = _Found.nothing(flat.size, self._ends)
        lost, never = ~np.isfinite(flat), _never_escape(flat, here.reference.origin, self._unit(here))
        found.counts[lost], found.counts[never] = 1, self.max_iter  # lost as in the other kernels
        first = np.flatnonzero(~(lost | never))
        found.put(first, self._first(here, flat[first]))
        second = np.flatnonzero(found.unclear) if self.proof != "none" else np.empty(0, np.intp)
        if second.size:
            found.put(second, self._second(here, flat[second]))
        third = second[found.unclear[second]] if self.proof == "full" else second[:0]
        if third.size:
            found.put(third, self._third(here, flat[third]))
        unproven = flat.size if self.proof == "none" else int(found.unclear.sum())
        return found, Counts(second.size, third.size, unproven)

    def _unit(self, here: Prepared) -> int:
        return here.reference.unit if self.unit is None else self.unit

    @property
    def _ends(self) -> bool:
        return bool(BEYOND.keys() & self.fields)

    @property
    def _coarse(self) -> float:
        return 0.0 if not self._ends else COARSE if "distance" in self.fields else ANY

    def _first(self, here: Prepared, flat: NDArray[np.complex128]) -> _Found:
        def follow(c: Any, unit: int, *found: Any) -> None:
            proof, eta = (False, ETA_PREVIEW) if self.proof == "none" else (True, ETA)
            flat = here.flat(unit)
            first_pass(here.table, flat, c, unit, self.max_iter, eta, proof, self._coarse, *found)

        return self._pass(here, flat, follow)

    def _second(self, here: Prepared, flat: NDArray[np.complex128]) -> _Found:
        coarse = self._coarse if self.proof == "full" or not self._ends else np.inf  # no third pass would do better

        def follow(c: Any, unit: int, *found: Any) -> None:
            second_pass(here.table, c, unit, self.max_iter, ETA_CLOSE, coarse, *found)

        return self._pass(here, flat, follow)

    def _pass(self, here: Prepared, flat: NDArray[np.complex128], follow: Callable[..., None]) -> _Found:
        """What a pass finds of samples that are first put in a unit in which they are about 1.

        Those that are tiny there go in a unit of their own; who loses digits in any is left unclear.
        """
        found, left = _Found.nothing(flat.size, self._ends), np.arange(flat.size)
        while left.size:
            c, exact, fits, shift = _scaled(flat[left])
            some = np.flatnonzero(fits) if fits.any() else np.arange(left.size)
            part = _Found.nothing(some.size, self._ends)
            follow(c[some], self._unit(here) + shift, part.counts, part.unclear, part.end)
            part.unclear |= ~exact[some]
            with np.errstate(over="ignore", under="ignore"):  # an infinite slope is no distance
                part.end[2:4] = np.ldexp(part.end[2:4], -shift)
            found.put(left[some], part)
            left = np.delete(left, some)
        return found

    def _third(self, here: Prepared, flat: NDArray[np.complex128]) -> _Found:
        found = _Found.nothing(flat.size, self._ends)
        unit = self._unit(here)
        for i, offset in enumerate(flat.tolist()):
            known = count_at(here.reference.origin, unit, offset, self.max_iter, self._ends)
            found.counts[i], found.unclear[i] = known.n, not known.proven
            if self._ends:
                with np.errstate(over="ignore"):  # an infinite slope is no distance
                    slope = np.ldexp([known.dx, known.dy], known.exponent + unit)
                found.end[:, i] = known.x, known.y, *slope, known.end
        return found

    def _fill(self, found: _Found, results: dict[str, NDArray[Any]]) -> None:
        """All fields of a band."""
        not_escaped = found.counts == self.max_iter
        if self._ends:
            found.end[:4, not_escaped] = np.nan  # one that escapes with the last step too, as in the other kernels
        orbit = Orbit(*found.end)
        for name, values in results.items():
            if name == "escape_time":
                values[:] = found.counts
            elif name == "interior":  # that a sample never escapes is not proved here
                values[:] = not_escaped * NOT_ESCAPED
            else:
                values[:] = BEYOND[name](orbit)
        if "distance" in results:
            results["distance"][results["distance"] == 0.0] = np.nan  # its slope overflows


def _never_escape(flat: NDArray[np.complex128], origin: tuple[Fraction, Fraction], unit: int) -> NDArray[np.bool_]:
    """Which samples surely lie in the main cardioid or the disc of period 2."""
    with np.errstate(over="ignore", invalid="ignore"):
        x, y = (float(c) + np.ldexp(part, unit) for c, part in zip(origin, (flat.real, flat.imag), strict=True))
        y2, p = y * y, x - 0.25
        q = p * p + y2
        return np.asarray((q * (q + p) - 0.25 * y2 < -SURELY) | ((x + 1) ** 2 + y2 - 0.0625 < -SURELY))


def _scaled(flat: NDArray[np.complex128]) -> tuple[Any, ...]:
    """`flat` in units of 2^shift, at most about 1; which are exact, which fit: exact and not tiny; shift."""
    parts = flat.view(float).reshape(-1, 2)
    shift = (int(np.frexp(np.max(np.abs(parts), initial=0.0))[1]) + STEP // 2) // STEP * STEP
    c = np.ldexp(parts, -shift)
    exact = np.logical_and(*(np.ldexp(c, shift) == parts).T)
    return c.view(complex)[:, 0], exact, exact & (np.maximum(*np.abs(c).T) > TINY) | (flat == 0), shift
