"""A view describes samples of the complex plane: bounds, shape, registration, and the frame they are in.

An upright rectangle has no frame. A turned one, a log-polar strip and a deep view have one (`mandeldask.view.frames`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.view.exact import Number, angles, exact, pair, radii, rounded
from mandeldask.view.frames import (
    LOG_POLAR,
    Deep,
    Frame,
    LogPolar,
    Turned,
    degrees,
    frame_from_json,
    offsets,
    strip_around,
)
from mandeldask.view.rules import (
    MAX_SIDE,
    TooDeepError,
    as_centre,
    check_apart,
    check_bounds,
    check_digits,
    check_resolved,
    check_shape,
    digits_of,
    short,
    takes_center,
)

__all__ = [
    "LOG_POLAR",
    "MAX_SIDE",
    "Arithmetic",
    "Deep",
    "Frame",
    "LogPolar",
    "Number",
    "Range",
    "Registration",
    "TooDeepError",
    "Turned",
    "View",
    "as_centre",
    "frame_from_json",
]

Registration = Literal["gridline", "pixel"]
Arithmetic = Literal["binary64", "exact"]
Range = tuple[int, int]  # half-open, of global sample indices along one axis

BAND = 2**16  # samples


@dataclass(frozen=True)
class View:
    """The samples of a rectangle of the complex plane of any depth, or of a log-polar strip.

    Parameters
    ----------
    x, y : (low, high)
        Bounds of Re(c) and Im(c): numbers, or decimal strings, rounded once to binary64; a zero has no sign.
    shape : (rows, columns)
        Samples along y and along x; arrays are (y, x), y ascending.
    registration : "gridline" or "pixel"
        gridline: the first and the last sample lie on the bounds, with exactly the bits of `numpy.linspace`.
        pixel: the bounds enclose the cells; samples lie at cell centres.
    frame : Turned, LogPolar or Deep, optional
        None for an upright rectangle. In a `Turned` one x and y are the bounds of the offsets (u, v) from its centre,
        in the units of c. In a `LogPolar` strip they follow from its radius: x the angle in radians, y the natural
        logarithm of the distance from the centre. In a `Deep` one they are the bounds of the offsets from its origin,
        in units of 2^unit. `View.around` and `View.log_polar` make them.

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
        rows, columns = check_shape(self.shape)
        if self.registration not in get_args(Registration):
            raise ConfigError(f"registration must be gridline or pixel; got {self.registration!r}")
        if self.strip:
            self.strip.check((rows, columns), self.registration, (tuple(self.x), tuple(self.y)))
        bounds = {"x": self.x, "y": self.y}
        for name, n in (("x", columns), ("y", rows)):
            object.__setattr__(self, name, check_bounds(name, bounds[name], n, self.registration))
        object.__setattr__(self, "shape", (rows, columns))
        object.__setattr__(self, "given", self.given or digits_of(self._made_from()))

    def _made_from(self) -> dict[str, Any]:
        """What of a run description's `view` says where the samples are."""
        bounds = {} if self.strip else {"x": self.x, "y": self.y}
        return {**bounds, **(self.frame.described if self.frame else {})}

    @classmethod
    @takes_center
    def around(
        cls,
        centre: Sequence[Number],
        span: Number,
        shape: tuple[int, int],
        registration: Registration = "gridline",
        rotation: Number = 0,
        arithmetic: Arithmetic | None = None,
    ) -> View:
        """The view of width `span` around `centre` = (Re, Im), with equal spacing in both directions.

        `span` is the distance between the first and the last column (gridline), or the width of the window (pixel).
        The bounds are worked out exactly from the decimal digits given and rounded once to binary64.
        `rotation`, in degrees, turns the rectangle anticlockwise about its centre: a picture of it shows the set turned
        clockwise. `arithmetic` is that of the samples: exact gives a `Deep` frame, in which a span may be 1e-9999;
        by default that is so where binary64 cannot tell the samples apart.

        Raises
        ------
        ConfigError
            As for `View`; also a span that is not positive, a gridline view of a single column, or a centre that has
            too few digits for a span beyond binary64.
        """
        rows, columns = check_shape(shape)
        re, im = pair("centre", centre, "[re, im]")
        width = exact("span", span)
        if width <= 0:
            raise ConfigError(f"span must be positive; got {span}")
        gridline = registration == "gridline"
        if gridline and columns == 1:
            raise ConfigError("a gridline view by centre and span needs at least 2 columns; got shape[1] = 1")
        spacing = width / (columns - 1 if gridline else columns)
        sizes = width, spacing * (rows - 1 if gridline else rows)
        made_from = digits_of({"centre": centre, "span": span} | ({"rotation": rotation} if rotation else {}))
        rest = (rows, columns), registration
        if arithmetic != "exact":
            turned = Turned((rounded(re), rounded(im)), degrees(rotation)) if degrees(rotation) != "0" else None
            middle = (Fraction(0), Fraction(0)) if turned else (re, im)
            try:
                bounds = [(rounded(m - size / 2), rounded(m + size / 2)) for m, size in zip(middle, sizes, strict=True)]
                check_apart(bounds, sizes)
                view = cls(bounds[0], bounds[1], *rest, turned, made_from)
                if not arithmetic:
                    view.check_resolved()
            except TooDeepError:
                if arithmetic:
                    raise
                check_digits(centre, "a span", span)
            else:
                return view
        around = [(-size / 2, size / 2) for size in sizes]
        x, y, frame = offsets(around[0], around[1], (re, im), degrees(rotation))
        return cls(x, y, *rest, frame, made_from)

    def in_exact_arithmetic(self) -> View:
        """The same rectangle or strip with a `Deep` frame; itself where it has one."""
        if isinstance(self.frame, Deep):
            return self
        given = self.given
        if self.strip:
            return View.log_polar(given["centre"], given["radius"], self.shape[1], arithmetic="exact")
        rotation = given.get("rotation", ["0"])[0]
        if "span" in given:
            centre, (span,) = given["centre"], given["span"]
            return View.around(centre, span, self.shape, self.registration, rotation, "exact")
        bounds = [pair(name, given[name], "[low, high]") for name in ("x", "y")]
        if self.frame:
            origin = pair("centre", given["centre"], "[re, im]")
        else:
            origin = sum(bounds[0]) / Fraction(2), sum(bounds[1]) / Fraction(2)
            bounds = [(low - middle, high - middle) for (low, high), middle in zip(bounds, origin, strict=True)]
        x, y, frame = offsets(bounds[0], bounds[1], origin, rotation)
        return View(x, y, self.shape, self.registration, frame, given)

    @classmethod
    @takes_center
    def log_polar(
        cls,
        centre: Sequence[Number],
        radius: Sequence[Number],
        columns: int,
        rows: int | None = None,
        arithmetic: Arithmetic | None = None,
    ) -> View:
        """The strip around `centre` = (Re, Im) from the radius `inner` to `outer`.

        Columns are angles over a full turn, anticlockwise from the real axis; rows are radii in equal ratios, from the
        inner to the outer, both included. The map is conformal: one step is as long outwards as around, so the rows
        follow from the columns, 1 + ln(outer / inner) columns / 2 pi to the nearest. `rows`, if given, is checked.
        `arithmetic` is as for `around`; a deep strip goes over at most 541 orders of magnitude.

        Raises
        ------
        ConfigError
            A radius that is not positive or does not ascend; rows that do not fit; as for `View`.
        """
        check_shape((1 if rows is None else rows, columns))
        frame = strip_around(centre, radius, columns, arithmetic)
        strip = frame.strip
        assert strip
        shape = (strip.rows(columns) if rows is None else rows, columns)
        return cls(*strip.bounds, shape, "gridline", frame, digits_of({"centre": centre, "radius": radius}))

    @property
    def strip(self) -> LogPolar | None:
        """The log-polar strip that this is, of a deep one that of its offsets; None for a rectangle."""
        return self.frame.strip if self.frame else None

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.shape[0] * self.shape[1]

    @property
    def cell_area(self) -> float:
        """Area that a sample stands for, in the units of c; of a deep view in units of 4^unit.

        0 for a single row or column of gridline samples, and where samples stand for unlike areas: in a strip.
        """
        if self.strip:
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
        if self.strip and name == "x":
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
        if strip := self.strip:
            cos_phi, sin_phi = angles(self.shape[1], *columns, stride[1])
            strip.place(c, cos_phi, sin_phi, radii(*strip.radius, self.shape[0], *rows, stride[0]))
            return c
        x, y = self.axis("x", columns, stride[1]), self.axis("y", rows, stride[0])
        if isinstance(self.frame, Turned | Deep):
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
        """((least, greatest Re), (least, greatest Im)) of an upright rectangle that holds the view.

        Of a deep view it is that of the offsets from its origin, in units of 2^unit.
        """
        if self.frame is None:
            return self.x, self.y
        re, im = (0.0, 0.0) if isinstance(self.frame, Deep) else self.frame.centre
        if self.strip:
            width = height = self.strip.radius[1]
        else:
            assert isinstance(self.frame, Turned | Deep)
            cos, sin = map(abs, self.frame.cos_sin)
            u, v = (max(map(abs, bounds)) for bounds in (self.x, self.y))
            width, height = u * cos + v * sin, u * sin + v * cos
        return (re - width, re + width), (im - height, im + height)

    def __str__(self) -> str:
        bounds = f"x [{self.x[0]!r}, {self.x[1]!r}], y [{self.y[0]!r}, {self.y[1]!r}], {self.registration}"
        if "span" in self.given:
            re, im, span, *rotation = map(
                short, (*self.given["centre"], *self.given["span"], *self.given.get("rotation", ()))
            )
            turned = f", turned by {rotation[0]} degrees" if rotation else ""
            return f"centre [{re}, {im}], span {span}{turned}, {self.registration}"
        return f"log-polar {self.frame}" if self.strip else f"{bounds}, {self.frame}" if self.frame else bounds

    def check_resolved(self) -> None:
        """Refuse a view whose sample spacing binary64 coordinates cannot resolve.

        Raises
        ------
        ConfigError
            Names the axis, the spacing, what binary64 resolves there and what would be needed.
        """
        check_resolved(self._spacings())

    def _spacings(self) -> Iterator[tuple[str, float, float]]:
        """For each axis to be resolved: its name, the distance of samples, and the largest coordinate."""
        if self.strip:
            yield from self.strip.spacings(self.shape[1])
            return
        re, im = self.extent
        for name, (low, high), n, coordinates in (("x", self.x, self.shape[1], re), ("y", self.y, self.shape[0], im)):
            if n > 1:
                spacing = (high - low) / (n - 1 if self.registration == "gridline" else n)
                yield name, spacing, max(map(abs, coordinates if self.frame is None else (*re, *im)))
