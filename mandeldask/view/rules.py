"""What a view must keep to, whatever it was made from."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeVar, cast

import numpy as np

from mandeldask.errors import ConfigError
from mandeldask.view.exact import Number, decimal, pair, rounded

MAX_SIDE = 2**31 - 1
# A coordinate is rounded to within half a unit in the last place (ulp): at four ulps between samples, each sample
# lies within an eighth of a spacing of where it should be.
MIN_SPACING_ULPS = 4
# Decimals of a coordinate that are taken for all it has, as in -2 or 0.25; of a longer one the rest was cut off.
SHORT = 8
SHOWN = 24  # characters of a coordinate
SMALL = Decimal("1e-6")  # a longer number is told by its size below
Function = TypeVar("Function", bound=Callable[..., Any])


class TooDeepError(ConfigError):
    """A view whose samples binary64 cannot tell apart."""


def digits_of(values: Mapping[str, Any]) -> dict[str, list[str]]:
    return {key: list(map(str, v if isinstance(v, list | tuple) else [v])) for key, v in values.items()}


def check_shape(shape: Sequence[int]) -> tuple[int, int]:
    sides = shape if isinstance(shape, list | tuple) else []
    good = [isinstance(n, int | np.integer) and not isinstance(n, bool) and 1 <= n <= MAX_SIDE for n in sides]
    if good != [True, True]:
        raise ConfigError(f"shape must be two integers from 1 to {MAX_SIDE}, [rows, columns]; got {shape!r}")
    return int(shape[0]), int(shape[1])


def check_apart(bounds: Sequence[tuple[float, float]], sizes: Sequence[Fraction], name: str = "a side") -> None:
    """Refuse bounds that are one number in binary64 where the size between them is not 0."""
    for (low, high), size in zip(bounds, sizes, strict=True):
        if low == high and size and math.isfinite(low):
            raise TooDeepError(
                f"the view is too deep for binary64: both bounds of {name} round to {low!r}. Widen the view, or give "
                "it by centre and span, and leave out kernel and arithmetic"
            )


def check_bounds(name: str, bounds: Sequence[Number], n: int, registration: str) -> tuple[float, float]:
    given = pair(name, bounds, "[low, high]")
    low, high = map(rounded, given)
    single = n == 1 and registration == "gridline"  # one sample, on the lower bound
    if given[0] > given[1] or (given[0] == given[1] and not single):
        raise ConfigError(f"{name} must ascend, low < high; got [{bounds[0]}, {bounds[1]}]")
    if not single:
        check_apart([(low, high)], [given[1] - given[0]], name)
    if not math.isfinite(high - low):
        raise ConfigError(f"{name} is too wide for binary64: [{low}, {high}]")
    return low, high


def check_resolved(spacings: Iterable[tuple[str, float, float]]) -> None:
    """Refuse what binary64 cannot resolve: given for each axis its name, the spacing, and the largest coordinate."""
    for name, spacing, furthest in spacings:
        needed = MIN_SPACING_ULPS * float(np.spacing(furthest))
        if spacing < needed:
            bits = 53 + math.ceil(math.log2(needed / spacing)) if spacing else "many more"
            raise TooDeepError(
                f"the view is too deep for binary64: {name} has samples {spacing:.3g} apart, and coordinates near "
                f"{furthest:.3g} need at least {needed:.3g} ({MIN_SPACING_ULPS} units in the last "
                f"place). Widen the view, take fewer samples, or give it by centre and span and leave out kernel "
                f"and arithmetic; as it is it needs coordinates of {bits} bits"
            )


def check_digits(centre: Sequence[Number], name: str, size: Number) -> None:
    """Refuse a centre whose digits end before the size's first: it was cut off, and is somewhere else."""
    needed = 1 - decimal(name, size).adjusted()
    for i, coordinate in enumerate(centre):
        decimals = -int(decimal(f"centre[{i}]", coordinate).as_tuple().exponent)
        if SHORT < decimals < needed:
            raise ConfigError(
                f"centre[{i}] has {decimals} decimals, and {name} of {short(str(size))} needs at least {needed}: "
                f"give all its digits, in quotes, or {name} that is larger; where it is meant exactly, add zeros"
            )


def short(digits: str) -> str:
    """A number for a person: of a long one the first digits, of a small one 5.09e-35."""
    if len(digits) <= SHOWN:
        return digits
    value = Decimal(digits)
    return f"{value or 0:.3g}" if abs(value) < SMALL else f"{digits[: SHOWN - 3]}..."


def as_centre(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What is given, with `centre` in place of `center`; ConfigError where both are."""
    if {"centre", "center"} <= given.keys():
        raise ConfigError(f"{where}: centre and center are the same key; give one of them")
    return {"centre" if key == "center" else key: value for key, value in given.items()}


def takes_center(function: Function) -> Function:
    """Let a function with a parameter `centre` be called with `center` too."""

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        return function(*args, **as_centre(given, function.__qualname__))

    return cast(Function, call)
