"""A view says which samples of the complex plane are wanted: bounds, shape and registration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError

Registration = Literal["gridline", "pixel"]
Number = int | float | str | Decimal
Range = tuple[int, int]  # half-open, of global sample indices along one axis

# A coordinate is rounded to within half a unit in the last place (ulp): at four ulps between samples, each sample
# lies within an eighth of a spacing of where it should be.
MIN_SPACING_ULPS = 4
MAX_SIDE = 2**31 - 1
MAX_DIGITS, MAX_EXPONENT = 100_000, 10_000  # of a bound, a centre or a span


@dataclass(frozen=True)
class View:
    """The samples of an upright rectangle of the complex plane.

    Parameters
    ----------
    x, y : (low, high)
        Bounds of Re(c) and Im(c): numbers, or decimal strings, rounded once to binary64; a zero has no sign.
    shape : (rows, columns)
        Samples along y and along x; arrays are (y, x), y ascending.
    registration : "gridline" or "pixel"
        gridline: the first and the last sample lie on the bounds, with exactly the bits of `numpy.linspace`.
        pixel: the bounds enclose the cells; samples lie at cell centres.

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
    given: dict[str, list[str]] = field(default_factory=dict, compare=False, repr=False)
    """The decimal digits the view was made from, for whoever needs more than binary64 holds."""

    def __post_init__(self) -> None:
        rows, columns = _check_shape(self.shape)
        if self.registration not in get_args(Registration):
            raise ConfigError(f"registration must be gridline or pixel; got {self.registration!r}")
        digits: dict[str, list[str]] = {}
        for name, n in (("x", columns), ("y", rows)):
            low, high, digits[name] = _check_bounds(name, getattr(self, name), n, self.registration)
            object.__setattr__(self, name, (low, high))
        object.__setattr__(self, "shape", (rows, columns))
        object.__setattr__(self, "given", self.given or digits)

    @classmethod
    def around(
        cls,
        centre: Sequence[Number],
        span: Number,
        shape: tuple[int, int],
        registration: Registration = "gridline",
    ) -> View:
        """The view of width `span` around `centre` = (Re, Im), with equal spacing in both directions.

        `span` is the distance between the first and the last column (gridline), or the width of the window (pixel).
        The bounds are worked out exactly from the decimal digits given and rounded once to binary64.

        Raises
        ------
        ConfigError
            As for `View`; also a span that is not positive, or a gridline view of a single column.
        """
        rows, columns = _check_shape(shape)
        if not isinstance(centre, list | tuple) or len(centre) != 2:
            raise ConfigError(f"centre must be two numbers, [re, im]; got {centre!r}")
        re, im = (_exact(f"centre[{i}]", v) for i, v in enumerate(centre))
        width = _exact("span", span)
        if width <= 0:
            raise ConfigError(f"span must be positive; got {span}")
        gridline = registration == "gridline"
        if gridline and columns == 1:
            raise ConfigError("a gridline view by centre and span needs at least 2 columns; got shape[1] = 1")
        spacing = width / (columns - 1 if gridline else columns)
        height = spacing * (rows - 1 if gridline else rows)
        bounds = [(_round(mid - size / 2), _round(mid + size / 2)) for mid, size in ((re, width), (im, height))]
        digits = {"centre": [str(v) for v in centre], "span": [str(span)]}
        return cls(bounds[0], bounds[1], (rows, columns), registration, digits)

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.shape[0] * self.shape[1]

    @property
    def cell_area(self) -> float:
        """Area that a sample stands for, in the units of c; 0 for a single row or column of gridline samples."""
        rows, columns = (n - 1 if self.registration == "gridline" else n for n in self.shape)
        return (self.x[1] - self.x[0]) / columns * (self.y[1] - self.y[0]) / rows if rows and columns else 0.0

    def axis(self, name: Literal["y", "x"], window: Range | None = None, stride: int = 1) -> NDArray[np.float64]:
        """Coordinates of the samples `window` = [first, last) along one axis (all by default), each or every `stride`.

        Gridline: start + i * step, the last sample on the bound: the operations, and so the bits, of `numpy.linspace`.
        Pixel: start + (i + 1/2) * step.
        """
        (start, stop), n = (self.y, self.shape[0]) if name == "y" else (self.x, self.shape[1])
        first, last = window or (0, n)
        i = np.arange(first, last, stride, dtype=np.float64)
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
        self, rows: Range, columns: Range, buffer: NDArray[np.complex128] | None = None
    ) -> NDArray[np.complex128]:
        """The complex samples of a window of global indices, complex128 of shape (rows, columns).

        They are made in the first elements of `buffer`, a flat array, where one is given and large enough.
        """
        shape = (rows[1] - rows[0], columns[1] - columns[0])
        if buffer is None or buffer.size < shape[0] * shape[1]:
            buffer = np.empty(shape[0] * shape[1], np.complex128)
        c = buffer[: shape[0] * shape[1]].reshape(shape)
        c.real = self.axis("x", columns)
        c.imag = self.axis("y", rows)[:, np.newaxis]
        return c

    def check_resolved(self) -> None:
        """Refuse a view whose sample spacing binary64 coordinates cannot resolve.

        Raises
        ------
        ConfigError
            Names the axis, the spacing, what binary64 resolves there and what would be needed.
        """
        for name, (low, high), n in (("x", self.x, self.shape[1]), ("y", self.y, self.shape[0])):
            cells = n - 1 if self.registration == "gridline" else n
            if n == 1:
                continue
            spacing = (high - low) / cells
            needed = MIN_SPACING_ULPS * float(np.spacing(max(abs(low), abs(high))))
            if spacing < needed:
                bits = 53 + math.ceil(math.log2(needed / spacing)) if spacing else "many more"
                raise ConfigError(
                    f"the view is too deep for binary64: {name} has samples {spacing:.3g} apart, and coordinates near "
                    f"{max(abs(low), abs(high)):.3g} need at least {needed:.3g} ({MIN_SPACING_ULPS} units in the last "
                    f"place). Widen the view or take fewer samples; as it is it needs coordinates of {bits} bits"
                )


def _check_shape(shape: Sequence[int]) -> tuple[int, int]:
    if not isinstance(shape, list | tuple) or len(shape) != 2:
        raise ConfigError(f"shape must be two integers, [rows, columns]; got {shape!r}")
    for n in shape:
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= MAX_SIDE:
            raise ConfigError(f"shape must be two integers from 1 to {MAX_SIDE}; got {list(shape)}")
    return int(shape[0]), int(shape[1])


def _check_bounds(name: str, bounds: Sequence[Number], n: int, registration: str) -> tuple[float, float, list[str]]:
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise ConfigError(f"{name} must be two numbers, [low, high]; got {bounds!r}")
    exact = [_exact(f"{name}[{i}]", v) for i, v in enumerate(bounds)]
    low, high = map(_round, exact)
    single = n == 1 and registration == "gridline"  # one sample, on the lower bound
    if exact[0] > exact[1] or (exact[0] == exact[1] and not single):
        raise ConfigError(f"{name} must ascend, low < high; got [{bounds[0]}, {bounds[1]}]")
    if low == high and not single:
        raise ConfigError(f"the view is too deep for binary64: both bounds of {name} round to {low!r}. Widen the view")
    if not math.isfinite(high - low):
        raise ConfigError(f"{name} is too wide for binary64: [{low}, {high}]")
    return low, high, [str(v) for v in bounds]


def _exact(name: str, value: Number) -> Fraction:
    try:  # a float means the digits that it prints; a bool is no number
        decimal = value if isinstance(value, Decimal) else Decimal("" if isinstance(value, bool) else str(value))
    except InvalidOperation:
        raise ConfigError(f"{name} must be a number or a decimal string; got {value!r}") from None
    if not decimal.is_finite():
        raise ConfigError(f"{name} must be finite; got {value}")
    if abs(decimal.adjusted()) > MAX_EXPONENT or len(decimal.as_tuple().digits) > MAX_DIGITS:
        raise ConfigError(f"{name} is out of range: at most {MAX_DIGITS} digits, an exponent of at most {MAX_EXPONENT}")
    return Fraction(decimal)


def _round(value: Fraction) -> float:
    try:
        return float(value)  # correctly rounded
    except OverflowError:
        return math.inf if value > 0 else -math.inf
