"""Finding places: the nuclei in a view, whatever its depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from itertools import product
from typing import Literal

from mandeldask.errors import ConfigError, check_type
from mandeldask.view import Deep, View

MAX_PARTS = 100
Point = tuple[Fraction, Fraction]
Kind = Literal["copy", "disc"]
SAME = Fraction(1, 1000)  # of the view's side: nuclei of a period that are nearer are one


@dataclass(frozen=True)
class Nucleus:
    """A point whose orbit comes back to 0 after `period` steps, to as many digits as its size asks for."""

    period: int
    centre: tuple[str, str]
    size: Decimal
    """Of the copy of the set around it, over that of the whole; of a disc at a copy it is smaller than the disc."""
    kind: Kind
    """copy: in the cardioid of a copy of the set; disc: in a disc on the rim of a larger copy."""


def find(
    view: View, max_period: int, parts: int = 3, tell: Callable[[int, int], object] | None = None
) -> list[Nucleus]:
    """The nuclei in a view, those of copies first, of low periods first: of each part that of the lowest period in it.

    Parameters
    ----------
    view : View
        A rectangle, of any depth.
    max_period : int
        The highest period that is looked for.
    parts : int
        The view is looked at in parts x parts discs, 1 to 100.
    tell : callable, optional
        Is given how many of the discs are done, and how many there are.

    Raises
    ------
    ConfigError
        A log-polar strip; parts or max_period out of range.
    """
    from mandeldask.kernels.deep import nucleus as nuclei  # takes Numba

    check_type("view", view, View, "a mandeldask.View")
    if not 1 <= parts <= MAX_PARTS or max_period < 1:
        raise ConfigError(f"parts must be from 1 to {MAX_PARTS}, max_period at least 1; got {parts} and {max_period}")
    if view.strip:
        raise ConfigError("nuclei are looked for in a rectangle, and this view is a log-polar strip: give another")
    discs = _Discs(view.in_exact_arithmetic(), parts)
    found: list[tuple[int, Point, float]] = []
    for done, c in enumerate(discs.middles()):
        if tell:
            tell(done, parts * parts)
        n = nuclei.period(c, discs.radius, max_period)
        settled = nuclei.nucleus(c, n, discs.radius + 2) if n else None
        if n and settled and discs.holds(settled[0]) and not any(discs.same((n, *settled), other) for other in found):
            found.append((n, *settled))
    made = (
        Nucleus(n, _digits(c, size), _power(size), "disc" if nuclei.is_disc(n, c, size) else "copy")
        for n, c, size in found
    )
    return sorted(made, key=lambda n: (n.kind, n.period, n.centre))


class _Discs:
    """The discs that cover a deep view."""

    def __init__(self, view: View, parts: int) -> None:
        assert isinstance(view.frame, Deep)
        self.frame, self.parts = view.frame, parts
        self.unit = Fraction(2) ** view.frame.unit
        self.low = Fraction(view.x[0]), Fraction(view.y[0])
        self.sides = Fraction(view.x[1]) - self.low[0], Fraction(view.y[1]) - self.low[1]
        diagonal = (self.sides[0] ** 2 + self.sides[1] ** 2) * (self.unit / parts) ** 2
        self.radius = math.ceil(_log2(diagonal) / 2) - 1
        """The log2 of it, at least half the diagonal of a part."""

    def middles(self) -> Iterator[Point]:
        for j, i in product(range(self.parts), repeat=2):
            u, v = (
                low + side * Fraction(2 * k + 1, 2 * self.parts)
                for low, side, k in zip(self.low, self.sides, (i, j), strict=True)
            )
            (cos, sin), (re, im) = map(Fraction, self.frame.cos_sin), self.frame.exact_origin
            yield re + (u * cos - v * sin) * self.unit, im + (u * sin + v * cos) * self.unit

    def holds(self, c: Point) -> bool:
        """Whether a point lies in the view."""
        cos, sin = map(Fraction, self.frame.cos_sin)
        x, y = ((a - b) / self.unit for a, b in zip(c, self.frame.exact_origin, strict=True))
        u, v = x * cos + y * sin, y * cos - x * sin
        return all(0 <= at - low <= side for at, low, side in zip((u, v), self.low, self.sides, strict=True))

    def same(self, a: tuple[int, Point, float], b: tuple[int, Point, float]) -> bool:
        near = SAME * self.unit * max(self.sides)
        return a[0] == b[0] and max(abs(p - q) for p, q in zip(a[1], b[1], strict=True)) < near


def _log2(value: Fraction) -> float:
    return math.log2(value.numerator) - math.log2(value.denominator)


def _power(exponent: float) -> Decimal:
    """2^exponent, to six digits."""
    return Context(prec=6, Emin=-(10**6)).power(Decimal(2), Decimal(exponent))


def _digits(point: tuple[Fraction, Fraction], size: float) -> tuple[str, str]:
    """Decimal digits, down to a millionth of the size."""
    places = max(0, math.ceil(-size * math.log10(2)) + 6)
    re, im = (f"{Decimal(round(part * 10**places)).scaleb(-places, Context(prec=10**6)):f}" for part in point)
    return re, im
