"""Beyond the count: continuous escape time and distance to the set, for the samples whose count is below max_iter.

And `interior`, for the others: 0 escaped, 1 not escaped within max_iter, 2 proved never to escape in this arithmetic,
as `mandeldask.kernels.shortcuts` has it. How many are proved depends on the kernel, where numba and cuda prove the
same; what is proved is true for all.

Smooth and distance follow the orbit on from |z| > 2 to a larger bailout, past max_iter if need be; the others are NaN,
as are samples with an infinite or NaN part, and distances below what rounding does to c. z takes the same operations
as the count; all is binary64, smooth then rounded to 2^-18 and distance to float32. The count does not depend on what
else is asked for. The escape time has the same bits everywhere; smooth and distance follow the machine's logarithm, so
their last bit may differ between machines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FIELDS = {"escape_time": "<i4", "smooth": "<f8", "distance": "<f4", "interior": "|u1"}
EXACT_FIELDS = FIELDS | {"distance": "<f8"}  # of a deep view, distance in its units
ESCAPED, NOT_ESCAPED, PROVED = 0, 1, 2  # within max_iter
PROOFS_FROM = 32  # max_iter: below it none is looked for

# |z| at the end. What the formulas neglect is |c|/|z|^2 or so: below 1e-11, and below 1e-6 for |c| > BAILOUT, where
# z_1 = c is the end. That is less than float32 tells apart.
BAILOUT = 2.0**20
SMOOTH_STEPS = 2.0**18  # in one step
RESOLVED = 2.0  # units in the last place of c: rounding displaces a sample by as much
# From |z| > 2 on, |z| - 2 at least trebles with every step while it is small, then |z| squares: a z one unit in the
# last place above 2 is past the bailout within 40 steps.
EXTRA_STEPS = 64


class Orbit(NamedTuple):
    """z_n = x + iy and dz_n/dc = dx + i dy where |z_n| passed the bailout; NaN for samples that have no such end."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    dx: NDArray[np.float64]
    dy: NDArray[np.float64]
    n: NDArray[np.int64]


def smooth(orbit: Orbit) -> NDArray[np.float64]:
    """Continuous escape time, n - log2(ln|z_n| / ln 2), in steps, to the nearest 2^-18.

    At 10^6 steps float32 tells apart no less than 1/16. Rounded so, float64 takes 2.1 to 3.5 bytes a sample on disk,
    where float32 took 2.2 to 2.7, float64 unrounded 5.4 to 6.3, and a float32 fraction beside the count 2.6 to 3.3.

    The renormalised count of L. Vepstas (1997), https://linas.org/art-gallery/escape/escape.html, counted from
    |z| = 2. It is continuous in c, and for a large bailout tends to log2(ln 2 / G(c)), G(c) = lim 2^-n ln|z_n|. As z_1
    is c, G is half the Green's function of the set, Douady and Hubbard's potential, which far out is ln|c|.
    """
    with np.errstate(all="ignore"):
        size = np.hypot(orbit.x, orbit.y)
        steps = orbit.n - np.log2(np.log(size) / np.log(2.0))
        return np.where(np.isfinite(size), np.round(steps * SMOOTH_STEPS) / SMOOTH_STEPS, np.nan)


def distance(orbit: Orbit) -> NDArray[np.float64]:
    """Exterior distance estimate, 2 |z_n| ln|z_n| / |dz_n/dc|, in units of c.

    Near the set (G(c) small) the distance from c to the set lies between a quarter of it and the whole, by Koebe's
    theorem; further out it is larger than that. H.-O. Peitgen and D. Saupe (eds.), *The Science of Fractal Images*,
    1988, section 4.2.4 and appendix D. 0 where the derivative overflows; `beyond` makes that NaN.
    """
    with np.errstate(all="ignore"):
        size = np.hypot(orbit.x, orbit.y)
        estimate = 2.0 * size * np.log(size) / np.hypot(orbit.dx, orbit.dy)
        estimate[~(np.isfinite(orbit.dx) & np.isfinite(orbit.dy))] = 0.0
        return np.where(np.isfinite(size), estimate, np.nan)


BEYOND: dict[str, Callable[[Orbit], NDArray[Any]]] = {"smooth": smooth, "distance": distance}


def beyond(name: str, orbit: Orbit, c: NDArray[np.complex128]) -> NDArray[Any]:
    """A field of BEYOND for the samples `c`; NaN where a distance is below what rounding does to a sample."""
    values = BEYOND[name](orbit)
    if name == "distance":
        with np.errstate(invalid="ignore"):  # of a sample that is not finite
            values[values < RESOLVED * np.spacing(np.maximum(np.abs(c.real), np.abs(c.imag)))] = np.nan
    return values


def outside(c: NDArray[np.complex128], max_iter: int, counts: NDArray[np.int32]) -> Orbit:
    """The orbits of the samples (flat) with counts below max_iter, out to the bailout, in NumPy."""
    x, y, dx, dy = np.full((4, c.size), np.nan)
    ends = Orbit(x, y, dx, dy, np.zeros(c.size, np.int64))
    todo = np.flatnonzero(counts < max_iter)
    cx, cy = c.real[todo], c.imag[todo]
    x, y, dx, dy = cx, cy, np.ones(todo.size), np.zeros(todo.size)
    n, last = 1, int(counts[todo].max(initial=0)) + EXTRA_STEPS
    with np.errstate(over="ignore", invalid="ignore"):
        while todo.size and n <= last:
            x2, y2 = x * x, y * y
            inside = x2 + y2 <= BAILOUT * BAILOUT
            if not inside.all():
                done = ~inside
                at = todo[done]
                ends.x[at], ends.y[at], ends.dx[at], ends.dy[at] = x[done], y[done], dx[done], dy[done]
                ends.n[at] = n
                todo = todo[inside]
                cx, cy, x, y, dx, dy, x2, y2 = (v[inside] for v in (cx, cy, x, y, dx, dy, x2, y2))
            slope_x, slope_y, xy = x * dx - y * dy, x * dy + y * dx, x * y
            dx, dy = (slope_x + slope_x) + 1.0, slope_y + slope_y
            x, y = (x2 - y2) + cx, (xy + xy) + cy
            n += 1
    return ends
