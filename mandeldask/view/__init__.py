"""A view describes samples of the complex plane: bounds, shape, registration, and the frame they are in.

An upright rectangle has no frame. A turned one and a log-polar strip have one (`mandeldask.view.frames`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.view.exact import Number, angles, exact, pair, radii, rounded
from mandeldask.view.frames import FULL_TURN, LOG_POLAR, Frame, LogPolar, Turned, degrees, frame_from_json
from mandeldask.view.spelling import as_centre, takes_center

__all__ = [
    "LOG_POLAR",
    "MAX_SIDE",
    "MIN_SPACING_ULPS",
    "Frame",
    "LogPolar",
    "Number",
    "Range",
    "Registration",
    "Turned",
    "View",
    "as_centre",
    "frame_from_json",
]

Registration = Literal["gridline", "pixel"]
Range = tuple[int, int]  # half-open, of global sample indices along one axis

# A coordinate is rounded to within half a unit in the last place (ulp): at four ulps between samples, each sample
# lies within an eighth of a spacing of where it should be.
MIN_SPACING_ULPS = 4
MAX_SIDE = 2**31 - 1
BAND = 2**16  # samples


@dataclass(frozen=True)
class View:
    """The samples of a rectangle of the complex plane, or of a log-polar strip.

    Parameters
    ----------
    x, y : (low, high)
        Bounds of Re(c) and Im(c): numbers, or decimal strings, rounded once to binary64; a zero has no sign.
    shape : (rows, columns)
        Samples along y and along x; arrays are (y, x), y ascending.
    registration : "gridline" or "pixel"
        gridline: the first and the last sample lie on the bounds, with exactly the bits of `numpy.linspace`.
        pixel: the bounds enclose the cells; samples lie at cell centres.
    frame : Turned or LogPolar, optional
        None for an upright rectangle. In a `Turned` one x and y are the bounds of the offsets (u, v) from its centre,
        in the units of c. In a `LogPolar` strip they follow from its radius: x the angle in radians, y the natural
        logarithm of the distance from the centre. `View.around` and `View.log_polar` make both.

    Raises
    ------
    ConfigError
        Bounds that are not finite or not ascending, a shape below one sample.

    Notes
    -----
    A sample's coordinate comes from its global index alone, so no tiling can change a bit of it.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    shape: tuple[int, int]
    registration: Registration = "gridline"
    frame: Frame | None = None
    given: dict[str, list[str]] = field(default_factory=dict, compare=False, repr=False)
    """The decimal digits the view was made from: they may hold more than binary64 does."""

    def __post_init__(self) -> None:
        rows, columns = _check_shape(self.shape)
        if self.registration not in get_args(Registration):
            raise ConfigError(f"registration must be gridline or pixel; got {self.registration!r}")
        if isinstance(self.frame, LogPolar):
            self._check_strip(self.frame, rows, columns)
        bounds = {"x": self.x, "y": self.y}
        for name, n in (("x", columns), ("y", rows)):
            object.__setattr__(self, name, _check_bounds(name, bounds[name], n, self.registration))
        object.__setattr__(self, "shape", (rows, columns))
        made_from = {} if isinstance(self.frame, LogPolar) else bounds
        object.__setattr__(self, "given", self.given or _digits(made_from | (vars(self.frame) if self.frame else {})))

    def _check_strip(self, frame: LogPolar, rows: int, columns: int) -> None:
        if self.registration != "gridline":
            raise ConfigError("a log-polar view has registration gridline: its rows lie on the radii, its columns turn")
        wanted = frame.rows(columns)
        if wanted < 2:
            inner, outer = frame.bounds[1]
            least = math.ceil(FULL_TURN / 2 / (outer - inner)) + 1
            raise ConfigError(f"shape of a log-polar view of this radius must have at least {least} columns for 2 rows")
        if rows != wanted:
            raise ConfigError(
                f"shape of a log-polar view of this radius must have {wanted} rows, for steps as long outwards as "
                f"around; got [{rows}, {columns}]"
            )
        if (tuple(self.x), tuple(self.y)) != frame.bounds:
            raise ConfigError("x and y of a log-polar view follow from its radius: make it with View.log_polar")

    @classmethod
    @takes_center
    def around(
        cls,
        centre: Sequence[Number],
        span: Number,
        shape: tuple[int, int],
        registration: Registration = "gridline",
        rotation: Number = 0,
    ) -> View:
        """The view of width `span` around `centre` = (Re, Im), with equal spacing in both directions.

        `span` is the distance between the first and the last column (gridline), or the width of the window (pixel).
        The bounds are worked out exactly from the decimal digits given and rounded once to binary64.
        `rotation`, in degrees, turns the rectangle anticlockwise about its centre: a picture of it shows the set turned
        clockwise.

        Raises
        ------
        ConfigError
            As for `View`; also a span that is not positive, or a gridline view of a single column.
        """
        rows, columns = _check_shape(shape)
        re, im = pair("centre", centre, "[re, im]")
        width = exact("span", span)
        if width <= 0:
            raise ConfigError(f"span must be positive; got {span}")
        gridline = registration == "gridline"
        if gridline and columns == 1:
            raise ConfigError("a gridline view by centre and span needs at least 2 columns; got shape[1] = 1")
        spacing = width / (columns - 1 if gridline else columns)
        height = spacing * (rows - 1 if gridline else rows)
        made_from = {"centre": centre, "span": span}
        frame = None
        if degrees(rotation) != "0":
            frame = Turned((rounded(re), rounded(im)), degrees(rotation))
            made_from["rotation"] = rotation
            re = im = Fraction(0)
        bounds = [(rounded(mid - size / 2), rounded(mid + size / 2)) for mid, size in ((re, width), (im, height))]
        return cls(bounds[0], bounds[1], (rows, columns), registration, frame, _digits(made_from))

    @classmethod
    @takes_center
    def log_polar(
        cls, centre: Sequence[Number], radius: Sequence[Number], columns: int, rows: int | None = None
    ) -> View:
        """The strip around `centre` = (Re, Im) from the radius `inner` to `outer`.

        Columns are angles over a full turn, anticlockwise from the real axis; rows are radii in equal ratios, from the
        inner to the outer, both included. The map is conformal: one step is as long outwards as around, so the rows
        follow from the columns, 1 + ln(outer / inner) columns / 2 pi to the nearest. `rows`, if given, is checked.

        Raises
        ------
        ConfigError
            A radius that is not positive or does not ascend; rows that do not fit; as for `View`.
        """
        frame = LogPolar(centre, radius)  # type: ignore[arg-type]
        _check_shape((1 if rows is None else rows, columns))
        shape = (frame.rows(columns) if rows is None else rows, columns)
        return cls(*frame.bounds, shape, "gridline", frame, _digits({"centre": centre, "radius": radius}))

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.shape[0] * self.shape[1]

    @property
    def cell_area(self) -> float:
        """Area that a sample stands for, in the units of c.

        0 for a single row or column of gridline samples, and where samples stand for unlike areas: in a strip.
        """
        if isinstance(self.frame, LogPolar):
            return 0.0
        rows, columns = (n - 1 if self.registration == "gridline" else n for n in self.shape)
        return (self.x[1] - self.x[0]) / columns * (self.y[1] - self.y[0]) / rows if rows and columns else 0.0

    def axis(self, name: Literal["y", "x"], window: Range | None = None, stride: int = 1) -> NDArray[np.float64]:
        """Coordinates of the samples `window` = [first, last) along one axis (all by default), each or every `stride`.

        Gridline: start + i * step, the last sample on the bound: the operations, and so the bits, of `numpy.linspace`.
        Pixel: start + (i + 1/2) * step. What the coordinates are, see `frame`; angles are i * (2 pi / columns).
        """
        (start, stop), n = (self.y, self.shape[0]) if name == "y" else (self.x, self.shape[1])
        first, last = window or (0, n)
        i = np.arange(first, last, stride, dtype=np.float64)
        if isinstance(self.frame, LogPolar) and name == "x":
            return i * (stop / n)  # the last is a step before the full turn
        if self.registration == "pixel":
            return (i + 0.5) * ((stop - start) / n) + start
        cells = max(n - 1, 1)
        step = (stop - start) / cells
        # linspace divides last where the step would underflow
        coordinates = (i * step if step else i / cells * (stop - start)) + start
        if n > 1 and first < n <= last and (n - 1 - first) % stride == 0:
            coordinates[(n - 1 - first) // stride] = stop
        return coordinates

    def block(
        self,
        rows: Range,
        columns: Range,
        buffer: NDArray[np.complex128] | None = None,
        stride: tuple[int, int] = (1, 1),
    ) -> NDArray[np.complex128]:
        """The complex samples of a window of global indices, all or each `stride`; complex128 of (rows, columns).

        They are made in the first elements of `buffer`, a flat array, where one is given and large enough.
        """
        indices = range(*rows, stride[0]), range(*columns, stride[1])
        shape = (len(indices[0]), len(indices[1]))
        if buffer is None or buffer.size < shape[0] * shape[1]:
            buffer = np.empty(shape[0] * shape[1], np.complex128)
        c = buffer[: shape[0] * shape[1]].reshape(shape)
        if isinstance(self.frame, LogPolar):
            cos_phi, sin_phi = angles(self.shape[1], *columns, stride[1])
            self.frame.place(c, cos_phi, sin_phi, radii(*self.frame.radius, self.shape[0], *rows, stride[0]))
            return c
        x, y = self.axis("x", columns, stride[1]), self.axis("y", rows, stride[0])
        if self.frame:
            self.frame.place(c, x, y)
            return c
        step = max(1, BAND // max(1, shape[1]))
        for first in range(0, shape[0], step):
            band = slice(first, first + step)  # stays in the CPU's cache between the two
            c[band].real = x
            c[band].imag = y[band, np.newaxis]
        return c

    @property
    def extent(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """((least, greatest Re), (least, greatest Im)) of an upright rectangle that holds the view."""
        if self.frame is None:
            return self.x, self.y
        if isinstance(self.frame, LogPolar):
            width = height = self.frame.radius[1]
        else:
            cos, sin = map(abs, self.frame.cos_sin)
            u, v = (max(map(abs, bounds)) for bounds in (self.x, self.y))
            width, height = u * cos + v * sin, u * sin + v * cos
        re, im = self.frame.centre
        return (re - width, re + width), (im - height, im + height)

    def __str__(self) -> str:
        bounds = f"x [{self.x[0]!r}, {self.x[1]!r}], y [{self.y[0]!r}, {self.y[1]!r}], {self.registration}"
        if self.frame is None:
            return bounds
        around = f"around [{self.frame.centre[0]!r}, {self.frame.centre[1]!r}]"
        if isinstance(self.frame, LogPolar):
            return f"log-polar {around}, radius {self.frame.radius[0]!r} to {self.frame.radius[1]!r}"
        return f"{bounds}, {around}, turned by {self.frame.rotation} degrees"

    def check_resolved(self) -> None:
        """Refuse a view whose sample spacing binary64 coordinates cannot resolve.

        Raises
        ------
        ConfigError
            Names the axis, the spacing, what binary64 resolves there and what would be needed.
        """
        for name, spacing, furthest in self._spacings():
            needed = MIN_SPACING_ULPS * float(np.spacing(furthest))
            if spacing < needed:
                bits = 53 + math.ceil(math.log2(needed / spacing)) if spacing else "many more"
                raise ConfigError(
                    f"the view is too deep for binary64: {name} has samples {spacing:.3g} apart, and coordinates near "
                    f"{furthest:.3g} need at least {needed:.3g} ({MIN_SPACING_ULPS} units in the last "
                    f"place). Widen the view or take fewer samples; as it is it needs coordinates of {bits} bits"
                )

    def _spacings(self) -> Iterator[tuple[str, float, float]]:
        """For each axis to be resolved: its name, the distance of samples, and the largest coordinate."""
        if isinstance(self.frame, LogPolar):
            inner, outer = self.frame.radius
            far = max(map(abs, self.frame.centre))
            # Outwards samples part as fast as coordinates grow, or faster; but where they pass a power of two, the unit
            # in the last place doubles at once. It suffices to look at the first of these.
            doubled = 2.0 ** min(1023, math.ceil(math.log2(far + inner)))
            for r in (inner, min(outer, max(inner, doubled - far))):
                yield "the strip", r * FULL_TURN / self.shape[1], far + r
            return
        re, im = self.extent
        for name, (low, high), n, coordinates in (("x", self.x, self.shape[1], re), ("y", self.y, self.shape[0], im)):
            if n > 1:
                spacing = (high - low) / (n - 1 if self.registration == "gridline" else n)
                yield name, spacing, max(map(abs, coordinates if self.frame is None else (*re, *im)))


def _digits(values: Mapping[str, Any]) -> dict[str, list[str]]:
    return {key: list(map(str, v if isinstance(v, list | tuple) else [v])) for key, v in values.items()}


def _check_shape(shape: Sequence[int]) -> tuple[int, int]:
    sides = shape if isinstance(shape, list | tuple) else []
    good = [isinstance(n, int | np.integer) and not isinstance(n, bool) and 1 <= n <= MAX_SIDE for n in sides]
    if good != [True, True]:
        raise ConfigError(f"shape must be two integers from 1 to {MAX_SIDE}, [rows, columns]; got {shape!r}")
    return int(shape[0]), int(shape[1])


def _check_bounds(name: str, bounds: Sequence[Number], n: int, registration: str) -> tuple[float, float]:
    given = pair(name, bounds, "[low, high]")
    low, high = map(rounded, given)
    single = n == 1 and registration == "gridline"  # one sample, on the lower bound
    if given[0] > given[1] or (given[0] == given[1] and not single):
        raise ConfigError(f"{name} must ascend, low < high; got [{bounds[0]}, {bounds[1]}]")
    if low == high and not single:
        raise ConfigError(f"the view is too deep for binary64: both bounds of {name} round to {low!r}. Widen the view")
    if not math.isfinite(high - low):
        raise ConfigError(f"{name} is too wide for binary64: [{low}, {high}]")
    return low, high
