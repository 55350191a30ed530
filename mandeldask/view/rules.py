"""What a view must keep to, whatever it was made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mandeldask.errors import ConfigError
from mandeldask.view.exact import Number, decimal, pair, rounded

MAX_SIDE = 2**31 - 1
# Decimals of a coordinate that are taken for all it has, as in -2 or 0.25; of a longer one the rest was cut off.
SHORT = 8
SHOWN = 24  # characters of a coordinate


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


def check_digits(centre: Sequence[Number], span: Number) -> None:
    """Refuse a centre whose digits end before the span's first: it was cut off, and is somewhere else."""
    needed = 1 - decimal("span", span).adjusted()
    for i, coordinate in enumerate(centre):
        decimals = -int(decimal(f"centre[{i}]", coordinate).as_tuple().exponent)
        if SHORT < decimals < needed:
            raise ConfigError(
                f"centre[{i}] has {decimals} decimals, and a span of {short(str(span))} needs at least {needed}: "
                "give all its digits, in quotes, or a larger span; where it is meant exactly, add zeros"
            )


def short(digits: str) -> str:
    return digits if len(digits) <= SHOWN else f"{digits[: SHOWN - 3]}..."
