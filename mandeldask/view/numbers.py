"""Numbers as they are given: decimal digits are kept exactly, then rounded once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from mandeldask.errors import ConfigError

Number = int | float | str | Decimal

MAX_DIGITS, MAX_EXPONENT = 100_000, 10_000  # of a bound, a centre or a span


def exact(name: str, value: Number) -> Fraction:
    """The value of a number or a decimal string; ConfigError, naming it, for anything else."""
    return Fraction(decimal(name, value))


def decimal(name: str, value: Number) -> Decimal:
    """As `exact`, with its digits."""
    try:  # a float stands for the digits that it prints; a bool is not a number
        found = value if isinstance(value, Decimal) else Decimal("" if isinstance(value, bool) else str(value))
    except InvalidOperation:
        raise ConfigError(f"{name} must be a number or a decimal string; got {value!r}") from None
    if not found.is_finite():
        raise ConfigError(f"{name} must be finite; got {value}")
    if abs(found.adjusted()) > MAX_EXPONENT or len(found.as_tuple().digits) > MAX_DIGITS:
        raise ConfigError(f"{name} is out of range: at most {MAX_DIGITS} digits, an exponent of at most {MAX_EXPONENT}")
    return found


def rounded(value: Fraction) -> float:
    """The nearest binary64; beyond the largest, infinite."""
    try:
        return float(value)  # correctly rounded
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def pair(name: str, value: Sequence[Number], wanted: str) -> tuple[Fraction, Fraction]:
    """Two numbers, such as [re, im]."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(f"{name} must be two numbers, {wanted}; got {value!r}")
    return exact(f"{name}[0]", value[0]), exact(f"{name}[1]", value[1])


def finite_pair(name: str, value: Sequence[Number], wanted: str) -> tuple[float, float]:
    """Two numbers, each rounded once to a finite binary64."""
    first, second = map(rounded, pair(name, value, wanted))
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ConfigError(f"{name} is out of binary64's range; got {list(value)}")
    return first, second
