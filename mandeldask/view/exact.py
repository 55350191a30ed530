"""Numbers that are rounded once: decimal digits as they are given, and cosines, sines and powers.

The cosines and powers of a libm or of NumPy differ in the last bit from one CPU to another. Here an angle is a rational
share of a turn, and a radius a rational power, in integers of 192 bits or 60 decimal digits. The error is below 2^-170,
so the rounding to 53 bits is correct but for one value in 2^100.

An axis of n values costs n products: index i is FINE * high + low, and the factors of `low` are made once an axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, repeat

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError

Number = int | float | str | Decimal

MAX_DIGITS, MAX_EXPONENT = 100_000, 10_000  # of a bound, a centre or a span

BITS = 192
ONE = 1 << BITS
PI = Fraction("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
FINE = 1024
DECIMALS = Context(prec=60)
UNROUNDED = Context(prec=2 * MAX_DIGITS, Emin=-(10**7), Emax=10**7)  # of what is spelled out
ZERO_BELOW = 1 << (BITS - 100)  # the least nonzero cosine of an axis is above 2^-33: an angle has at most 2^31 steps

Reals = NDArray[np.float64]
Complex = tuple[int, int]  # in units of 2^-BITS


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


def spelled(value: Fraction) -> str:
    """The shortest decimal digits of a fraction whose denominator has no prime factors but 2 and 5."""
    places = max(0, value.denominator.bit_length() - 1)  # 2^k and 5^k divide 10^k, and are at least 2^k
    return f"{Decimal(int(value * 10**places)).scaleb(-places, UNROUNDED).normalize(UNROUNDED):f}"


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


def cos_sin(turn: Fraction) -> tuple[float, float]:
    """The cos and sin of a share of a full turn, correctly rounded; exact at each quarter."""
    c, s = _circle(turn)
    return _float(c), _float(s)


@lru_cache(maxsize=32)
def angles(n: int, first: int, last: int, stride: int = 1) -> tuple[Reals, Reals]:
    """The cos and sin of 2 pi i / n for i in range(first, last, stride), correctly rounded."""
    points = [_times(_high_angle(n, i // FINE), _low_angles(n)[i % FINE]) for i in range(first, last, stride)]
    return _fixed([_float(c) for c, _ in points]), _fixed([_float(s) for _, s in points])


@lru_cache(maxsize=32)
def radii(inner: float, outer: float, n: int, first: int, last: int, stride: int = 1) -> Reals:
    """The radii inner (outer / inner)^(i / (n - 1)) for i in range(first, last, stride), correctly rounded."""
    low = _low_powers(inner, outer, n)
    powers = ((_high_power(inner, outer, n, i // FINE), low[i % FINE]) for i in range(first, last, stride))
    return _fixed([float(DECIMALS.multiply(high, rest)) for high, rest in powers])


def logarithm(value: float | Decimal) -> float:
    """ln, correctly rounded."""
    return float(DECIMALS.ln(Decimal(value)))


@lru_cache(maxsize=4096)
def _high_angle(n: int, high: int) -> Complex:
    return _circle(Fraction(FINE * high, n))


@lru_cache(maxsize=8)
def _low_angles(n: int) -> list[Complex]:
    return list(accumulate(repeat(_circle(Fraction(1, n)), FINE - 1), _times, initial=(ONE, 0)))


@lru_cache(maxsize=4096)
def _high_power(inner: float, outer: float, n: int, high: int) -> Decimal:
    power = DECIMALS.exp(DECIMALS.multiply(_log_step(inner, outer, n), Decimal(FINE * high)))
    return DECIMALS.multiply(Decimal(inner), power)


@lru_cache(maxsize=8)
def _low_powers(inner: float, outer: float, n: int) -> list[Decimal]:
    step = DECIMALS.exp(_log_step(inner, outer, n))
    return list(accumulate(repeat(step, FINE - 1), DECIMALS.multiply, initial=Decimal(1)))


def _log_step(inner: float, outer: float, n: int) -> Decimal:
    ratio = DECIMALS.subtract(DECIMALS.ln(Decimal(outer)), DECIMALS.ln(Decimal(inner)))
    return DECIMALS.divide(ratio, Decimal(n - 1))


def _circle(turn: Fraction) -> Complex:
    """The cos and sin of a share of a turn: Taylor's series from the nearest quarter."""
    quarter = round(4 * turn)
    angle = 2 * PI * (turn - Fraction(quarter, 4))  # at most pi/4 either way
    x = (angle.numerator << BITS) // angle.denominator
    sums = [0, 0]
    term, k = ONE, 0
    while term not in (0, -1):  # shifts to the right end in one of them
        sums[k % 2] += -term if k % 4 >= 2 else term
        k += 1
        term = (term * x >> BITS) // k
    c, s = sums
    return ((c, s), (-s, c), (-c, -s), (s, -c))[quarter % 4]


def _times(a: Complex, b: Complex) -> Complex:
    return (a[0] * b[0] - a[1] * b[1]) >> BITS, (a[0] * b[1] + a[1] * b[0]) >> BITS


def _float(value: int) -> float:
    return math.ldexp(float(value), -BITS) if abs(value) > ZERO_BELOW else 0.0


def _fixed(values: list[float]) -> Reals:
    array = np.array(values)
    array.flags.writeable = False  # it is in a cache
    return array
