"""What a film shows: a centre, from one span to another; and the two views that hold all samples of it."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cached_property
from typing import Any, get_args

from mandeldask.config.reading import read_file
from mandeldask.config.values import integer, plain
from mandeldask.errors import ConfigError
from mandeldask.image import PictureOptions
from mandeldask.kernels import Proof
from mandeldask.view import Arithmetic, Number, TooDeepError, View, as_centre
from mandeldask.view.exact import DECIMALS, decimal, exact, finite_pair, logarithm
from mandeldask.view.rules import check_digits

SIDES = (64, 8192)  # of a frame; beyond, few players follow
MAX_FRAMES = 10**6
MAX_RATE = 240
CORE = 2  # samples of the core a pixel of the last frame, each way
COLUMNS = 256  # the strip's columns are a multiple: they can be halved eight times
MARGIN = 8  # rows of the strip beyond the corners of the first frame

ROUND = 10  # octaves in which a deep film runs through its colours, there and back

COLOURS = tuple(option.name for option in fields(PictureOptions) if option.name not in ("size", "supersample"))
KEYS = ("centre", "from", "to", "size", "fps", "seconds", "max_iter", "proof", "out", "cluster", *COLOURS, "kernel")


@dataclass(frozen=True)
class Film:
    """A zoom into `centre`, the width of a frame falling evenly in its logarithm from `first` to `last`.

    Where binary64 cannot resolve the last frame, all samples are counted in exact arithmetic. ConfigError for any value
    that breaks a rule, for a centre with too few digits, and for a strip over more than 541 orders of magnitude.
    """

    centre: tuple[Number, Number]  # re, im
    first: Number  # width of the first frame in the units of c
    last: Number  # of the last one, which is narrower
    size: tuple[int, int] = (1280, 720)  # width and height of a frame in pixels, both even, as H.264 has it
    fps: Number = 30  # frames a second
    seconds: Number = 10
    max_iter: int = 1000
    proof: Proof | None = None  # in exact arithmetic; by default double-double, as full takes seconds a hard sample

    def __post_init__(self) -> None:
        for name, most in (("fps", MAX_RATE), ("seconds", MAX_FRAMES)):
            if not 0 < exact(name, getattr(self, name)) <= most:
                raise ConfigError(f"{name} must be above 0, at most {most}; got {getattr(self, name)}")
        self._check_size()
        object.__setattr__(self, "size", tuple(self.size))
        if type(self.max_iter) is not int or not 1 <= self.max_iter < 2**31:
            raise ConfigError(f"max_iter must be an integer from 1 to {2**31 - 1}; got {self.max_iter!r}")
        if not 2 <= self.frames <= MAX_FRAMES:
            raise ConfigError(f"a film has 2 to {MAX_FRAMES} frames; fps times seconds make {self.frames}")
        finite_pair("centre", self.centre, "[re, im]")
        if not exact("from", self.first) > exact("to", self.last) > 0:
            raise ConfigError(
                f"from must be wider than to, and both above 0, for a film goes in; got {self.first} and {self.last}"
            )
        if self.proof not in (None, *get_args(Proof)):
            raise ConfigError(f"proof must be one of {', '.join(get_args(Proof))}; got {self.proof!r}")
        if self.proof and self.arithmetic != "exact":
            raise ConfigError(f"proof is of exact arithmetic, and to {self.last} binary64 will do: leave it out")
        if self.arithmetic == "exact":
            check_digits(self.centre, "a last span", self.last)
        _ = self.strip  # refuses what does not fit in one

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Film:
        """The film that the keys of a description make; ConfigError names what is missing."""
        missing = [key for key in ("centre", "from", "to") if key not in values]
        if missing:
            raise ConfigError(f"a film needs centre, from and to; {', '.join(missing)} is missing")
        given = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        if "max_iter" in given:
            given["max_iter"] = integer(given["max_iter"])  # 1e5
        if isinstance(size := given.get("size"), str):  # 1280x720
            size = size.split("x")
        if isinstance(size, list | tuple):
            given["size"] = tuple(int(n) if isinstance(n, str) and n.isdecimal() else integer(n) for n in size)
        return cls(**given, first=values["from"], last=values["to"])

    def _check_size(self) -> None:
        size, (low, high) = self.size, SIDES
        pair = isinstance(size, list | tuple) and len(size) == 2
        if not pair or not all(type(n) is int and low <= n <= high and n % 2 == 0 for n in size):
            shown = "x".join(map(str, size)) if isinstance(size, list | tuple) else repr(size)
            rule = f"width and height of a frame in pixels, even and from {low} to {high}, such as 1280x720"
            raise ConfigError(f"size must be {rule}; got {shown}")

    @property
    def frames(self) -> int:
        """How many; the first shows the span `first`, the last `last`."""
        return round(exact("fps", self.fps) * exact("seconds", self.seconds))

    @property
    def rate(self) -> Fraction:
        """Frames a second."""
        return exact("fps", self.fps).limit_denominator(1001)

    def span(self, frame: int) -> Decimal:
        """The width of a frame, by its number from 0."""
        first, last = decimal("from", self.first), decimal("to", self.last)
        if frame == self.frames - 1:
            return last
        share = DECIMALS.divide(Decimal(frame), Decimal(self.frames - 1))
        return DECIMALS.multiply(first, DECIMALS.power(DECIMALS.divide(last, first), share))

    @property
    def octaves(self) -> float:
        """How many times the width is halved."""
        return (logarithm(decimal("from", self.first)) - logarithm(decimal("to", self.last))) / math.log(2)

    @property
    def corner(self) -> float:
        """Pixels from the middle of a frame to its corner."""
        return math.hypot(*self.size) / 2

    @property
    def columns(self) -> int:
        """Of the strip: in the corner of every frame they are at most a pixel apart."""
        return math.ceil(2 * math.pi * self.corner / COLUMNS) * COLUMNS

    @cached_property
    def arithmetic(self) -> Arithmetic:
        """Of all samples: exact where binary64 cannot tell those of the last frame apart."""
        try:
            for view in (self._core("binary64"), self._strip("binary64")):
                view.check_resolved()
        except TooDeepError:
            return "exact"
        return "binary64"

    @cached_property
    def strip(self) -> View:
        """The log-polar strip from the last frame's inner circle to the corners of the first frame."""
        return self._strip(self.arithmetic)

    @cached_property
    def core(self) -> View:
        """The last frame, at `CORE` samples a pixel each way."""
        return self._core(self.arithmetic)

    def _strip(self, arithmetic: Arithmetic) -> View:
        width, height = self.size
        number: Any = float if arithmetic == "binary64" else lambda value: decimal("a span", value)
        beyond = number(math.exp(MARGIN * 2 * math.pi / self.columns))
        with localcontext(DECIMALS):  # the caller's may be of fewer digits
            outer = number(self.first) / width * number(self.corner) * beyond
            inner = number(self.last) / width * min(width, height) / 2
        return View.log_polar(self.centre, (inner, outer), self.columns, arithmetic=arithmetic)

    def _core(self, arithmetic: Arithmetic) -> View:
        width, height = self.size
        return View.around(self.centre, self.last, (CORE * height, CORE * width), "pixel", arithmetic=arithmetic)

    def described(self, shade: str | None) -> dict[str, Any]:
        """What the descriptions of strip and core have in common; exact fields keep what is shaded, beside counts."""
        if self.arithmetic == "binary64":
            return {"max_iter": self.max_iter}
        fields = ("escape_time", "smooth", *(["distance"] if shade == "distance" else []))
        return {"max_iter": self.max_iter, "fields": fields, "proof": self.proof or "double-double"}

    def colours(self, options: PictureOptions) -> PictureOptions:
        """Those of the film: over hundreds of octaves a frame has a few tones of a scale that does not repeat."""
        if self.arithmetic == "binary64" or options.repeat or options.period or options.limits:
            return options
        scale = "equalised" if options.scale == "mix" else options.scale
        return replace(options, scale=scale, repeat=self.octaves / ROUND)

    @property
    def samples_a_pixel(self) -> float:
        """Samples to compute for a pixel of the film; to render each frame by itself takes 1, without any smoothing."""
        return (self.strip.size + self.core.size) / (self.frames * self.size[0] * self.size[1])


def read_film(path: str | os.PathLike[str] | None, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The keys of a film's YAML file, none without a path, with `changes` over them.

    ConfigError where the file cannot be read, or is no mapping of `KEYS`.
    """
    given: Any = {} if path is None else read_file(path)
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: a film's description is a mapping, KEY: VALUE")
    film = as_centre(given, str(path))
    for key in (str(key)[:50] for key in film if key not in KEYS):
        close = difflib.get_close_matches(key.lower(), KEYS, n=1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        raise ConfigError(f"{path}: unknown key `{key}`; {hint}Permitted: {', '.join(KEYS)}")
    film |= {key: plain(film[key]) for key in film.keys() & set(COLOURS)}
    changed = {key: value for key, value in (changes or {}).items() if value is not None}
    return film | as_centre(changed, "the options")
