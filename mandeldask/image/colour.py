"""The options of a picture: colour maps by name, scales that lay them out over a field's values, light and size.

Pure, and the same on every machine.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import fields as fields_of
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.kernels import FIELDS
from mandeldask.text import pip_install

SCALES = ("mix", "log", "equalised", "root", "linear")
MEASURED = ("root", "log", "linear")  # scales by the values themselves, not by how many samples have them
SHADES = ("counts", "smooth", "distance")
LAYOUT = {"shade", "scale", "limits", "repeat", "period", "phase"}  # options of which one may exclude another
OF_A_FILE = {"size", "supersample"}  # options that are not of the look
MAX_SUPERSAMPLE = 8
NOT_COMPUTED, INTERIOR = 0, 255  # palette indices; from 1 to TONES the colours of the map
TONES = 254
GREY = (128, 128, 128)
# position, red, green, blue; linear in between
OWN = {
    "classic": (  # night, blue, white, gold, embers
        (0, 3, 6, 45),
        (0.3, 24, 82, 177),
        (0.55, 235, 248, 255),
        (0.75, 255, 196, 60),
        (0.9, 220, 95, 10),
        (1, 120, 20, 10),
    ),
}
LARGEST = 1e300  # of a number: what floats hold, with room
TOP = 0.999  # of the escaped samples lie below the last colour: a few deep ones would darken all others
TABLE_LIMIT = 2**17  # counts up to here are looked up; those beyond are few, and worked out one by one
EDGE = 1e-9  # of a tone, added before rounding: the last bits of a logarithm differ between machines
KNOTS = 4096  # of the curve from values to tones

Integers = NDArray[np.integer]
Tones = NDArray[np.float64]
Colour = tuple[int, int, int]
ToIndex = Callable[[Integers], NDArray[np.uint8]]
ToTone = Callable[[NDArray[Any]], Tones]


def palette(colormap: str = "classic", interior: str = "#000000", reverse: bool = False) -> list[Colour]:
    """The 256 colours (red, green, blue) of a picture: grey for not computed, 254 of the map, the interior.

    ConfigError for an unknown colour map, or an `interior` that is not "#rrggbb".
    """
    tones = [(int(r), int(g), int(b)) for r, g, b in gradient(colormap, TONES, reverse).round()]
    return [GREY, *tones, _rgb("interior", interior)]


def gradient(colormap: str, n: int, reverse: bool = False) -> NDArray[np.float64]:
    """`n` colours of a map from its first to its last, shape (n, 3), from 0 to 255 in sRGB.

    A name is looked up among our own, then `bokeh.palettes` (those of 256 colours, in lower case), then in `cmap`.
    """
    if not isinstance(colormap, str):
        raise ConfigError(f"colormap must be a name, such as classic; got {colormap!r}")
    at = np.linspace(0, 1, n)[:: -1 if reverse else 1]
    if colormap in OWN:
        where, *channels = np.array(OWN[colormap], float).T
        return np.stack([np.interp(at, where, channel) for channel in channels], axis=1)
    if colormap in _bokeh_names():
        known = getattr(importlib.import_module("bokeh.palettes"), _bokeh_names()[colormap])
        colours = np.array([_rgb("colormap", colour) for colour in known], float)
        return np.stack([np.interp(at * 255, np.arange(256), channel) for channel in colours.T], axis=1)
    cmap: Any = _cmap()
    if cmap:
        try:
            return np.asarray(cmap.Colormap(colormap)(at)[:, :3] * 255, np.float64)
        except (KeyError, TypeError, ValueError):
            pass
    names = [*OWN, *_bokeh_names()]
    more = "any of cmap's" if cmap else f"with `{pip_install('pictures')}` any of cmap's"
    near = _did_you_mean(colormap, [*names, *(cmap.Catalog().unique_keys() if cmap else ())])
    raise ConfigError(f"colormap must be one of {', '.join(names)}, or {more}; got {colormap!r}{near}")


@lru_cache(maxsize=1)
def _bokeh_names() -> dict[str, str]:
    """Our name of each of Bokeh's palettes of 256 colours, and Bokeh's own."""
    names = dir(importlib.import_module("bokeh.palettes"))
    return {name.removesuffix("256").lower(): name for name in names if name.endswith("256")}


def _cmap() -> Any:
    return importlib.import_module("cmap") if importlib.util.find_spec("cmap") else None


def _rgb(name: str, colour: str) -> Colour:
    """Red, green and blue, 0 to 255, of a colour "#rrggbb"; ConfigError for anything else."""
    if not isinstance(colour, str) or not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        raise ConfigError(f'{name} must be a colour "#rrggbb", such as "#000000"; got {colour!r}')
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _did_you_mean(value: object, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(value).lower(), list(choices), n=1)
    return f"; did you mean {near[0]}?" if near else ""


@dataclass(frozen=True)
class PictureOptions:
    """Colours, scale, light and size of a picture; ConfigError for a value that breaks one of these rules.

    Parameters
    ----------
    colormap : `classic`, a palette of `bokeh.palettes` in lower case, or a map of `cmap`
        The lowest escape time has the first colour; with `reverse` the last.
    scale : how values are laid out over the map, from the lowest to the 99.9th percentile
        `linear`, `root`, `log`, `equalised` (each tone covers the same area), or `mix`: half log, half equalised.
    limits : (low, high), the escape times between which `linear`, `root` and `log` are laid out in their place
        With them a value has one colour in all pictures.
    repeat : how many times the map is run through, there and back, from one end of the scale to the other
    period : in so many iterations it is run through once, there and back, in place of the named scale
    phase : where such rounds start: 0.5 starts with the map's last colour
    interior : "#rrggbb", the colour of the samples that did not escape
    shade : what is coloured
        `counts`, the escape times; `smooth`, the continuous escape times, without bands; or `distance`. By default
        smooth where that is to be had at little cost (see `Picture.shade`), else counts.
    light : (azimuth, height), in degrees as on maps
        Where the light comes from: clockwise from the top (315 is the upper left), and above the horizon. The escape
        time is taken for a hill that rises towards the set.
    size : pixels of the longer side, about
        Pixels are k samples apart, k = m 2^n with m below 8. Nothing is interpolated.
    supersample : 1 to 8
        A pixel is the mean, in linear light, of so many by so many samples. By default 2 or 3 where a size leaves as
        many to a pixel, else 1.
    """

    colormap: str = "classic"
    reverse: bool = False
    scale: str = "mix"
    limits: tuple[float, float] | None = None
    repeat: float | None = None
    period: float | None = None
    phase: float = 0.0
    interior: str = "#000000"
    shade: str | None = None
    light: tuple[float, float] | None = None
    size: int | None = None
    supersample: int | None = None

    def __post_init__(self) -> None:
        if self.scale == "equalized":
            object.__setattr__(self, "scale", "equalised")
        for name, choices in (("shade", SHADES), ("scale", SCALES)):
            if (value := getattr(self, name)) not in choices and (name, value) != ("shade", None):
                near = _did_you_mean(value, choices)
                raise ConfigError(f"{name} must be one of {', '.join(choices)}; got {value!r}{near}")
        if not isinstance(self.reverse, bool):
            raise ConfigError(f"reverse must be true or false; got {self.reverse!r}")
        gradient(self.colormap, 2)
        _rgb("interior", self.interior)
        self._check_rounds()
        if self.limits is not None:
            object.__setattr__(self, "limits", self._checked_limits(self.limits))
        if self.light is not None:
            object.__setattr__(self, "light", _light(self.light))
        for key, most, rule in (
            ("supersample", MAX_SUPERSAMPLE, f"from 1 to {MAX_SUPERSAMPLE}"),
            ("size", math.inf, "a number of pixels, at least 1"),
        ):
            value = getattr(self, key)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if value is not None and not (whole and 1 <= value <= most):
                raise ConfigError(f"{key} must be {rule}; got {value!r}")

    def _check_rounds(self) -> None:
        for key in ("repeat", "period", "phase"):
            value = getattr(self, key)
            if value is not None and not (_is_number(value) and (value > 0 or key == "phase")):
                raise ConfigError(f"{key} must be a number{'' if key == 'phase' else ' above 0'}; got {value!r}")
        if self.repeat and self.period:
            raise ConfigError("repeat and period exclude each other: rounds on the scale, or rounds of iterations")
        if self.phase and not (self.repeat or self.period):
            raise ConfigError("phase is where the rounds of a repeat or period start; give one of them")
        if self.period and self.shade == "distance":
            raise ConfigError("period counts iterations, and shade distance has none: give repeat")

    def _checked_limits(self, limits: Any) -> tuple[float, float]:
        pair = isinstance(limits, list | tuple) and len(limits) == 2 and all(map(_is_number, limits))
        if not pair or not 0 <= limits[0] < limits[1]:
            raise ConfigError(f"limits must be two escape times, [low, high], 0 or more and ascending; got {limits!r}")
        if self.period or self.shade == "distance" or self.scale not in MEASURED:
            names = ", ".join(MEASURED)
            raise ConfigError(f"limits go with a scale of {names}, and neither with period nor with shade distance")
        return float(limits[0]), float(limits[1])

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> PictureOptions:
        """As the constructor, with a ConfigError for a name that is no option."""
        known = [field.name for field in fields_of(cls)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ConfigError(f"unknown option of a picture: {', '.join(unknown)}; known are {', '.join(known)}")
        return cls(**options)

    @classmethod
    def over(cls, noted: Any, options: Mapping[str, Any]) -> PictureOptions:
        """As `of`, over what a store notes of its look, without what breaks a rule or excludes one of the options."""
        known = {field.name for field in fields_of(cls)} - OF_A_FILE
        items = noted.items() if isinstance(noted, dict) else ()
        look = {key: value for key, value in items if key in known and value is not None}
        for beneath in (look, {key: value for key, value in look.items() if key not in LAYOUT}):
            with suppress(ConfigError):
                return cls.of({**beneath, **options})
        return cls.of(options)

    @cached_property
    def palette(self) -> list[Colour]:
        """The 256 colours of a picture of counts."""
        return palette(self.colormap, self.interior, self.reverse)

    def check(self, shape: tuple[int, int], fields: Sequence[str] = tuple(FIELDS)) -> None:
        """Raise ConfigError where a field of this shape, with these parts or all, cannot be drawn so."""
        needed = {self.shade} - {"counts", None}
        if self.light and not {"smooth", "distance"} & set(fields):
            needed.add("smooth")
        if lacking := sorted(needed - set(fields), key=str):
            why = f"shade {self.shade}" if self.shade in lacking else "light"
            raise ConfigError(
                f"{why} needs the field {lacking[0]}, and an array of escape times does not say where its samples lie. "
                f"Draw a store or a view, or a dataset with {lacking[0]}"
            )
        if self.supersample and min(shape) < self.supersample:
            k = self.supersample
            raise ConfigError(f"supersample {k} needs as many samples a side; got {shape[0]} x {shape[1]}")

    def sampling(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Every how many-th sample is drawn, and how many a side make a pixel.

        The first is m 2^n with m below 8, so that most are read from a coarse level.
        """
        if self.size is None:
            return 1, self.supersample or 1
        if self.supersample:
            return _stride(max(shape), self.size * self.supersample), self.supersample
        apart = _stride(max(shape), self.size)
        return (1, apart) if apart in (1, 3) else (-(-apart // 2), 2)

    def tones(self, sample: NDArray[Any], interpolated: bool = False) -> ToTone:
        """The function from values to tones, from 0 (the map's first colour) to 1, laid out for a sample of them.

        `interpolated` between `KNOTS` values it is faster for values that are not integers.
        """
        if period := self.period:
            return lambda v: self._rounds(np.asarray(v, np.float64) / period)
        values = np.sort(np.asarray(sample, np.float64).ravel()) if sample.size else np.ones(1)
        if not interpolated:
            return lambda v: self._rounds(self._tone(v, values))
        low, high, start = self._ends(values)
        at = np.geomspace(start, high - low + start, KNOTS) + (low - start)
        known = self._tone(at, values)
        return lambda v: self._rounds(np.interp(v, at, known))

    def _tone(self, v: NDArray[Any], values: Tones) -> Tones:
        low, high, start = self._ends(values)
        v = np.clip(v, low, high)
        if self.scale == "linear":
            return np.asarray((v - low) / (high - low))
        if self.scale == "root":
            root = np.sqrt([max(low, 0), high])
            return np.asarray((np.sqrt(np.maximum(v, 0)) - root[0]) / (root[1] - root[0]))
        log = np.log((v - low + start) / start) / np.log((high - low + start) / start)
        equalised = np.searchsorted(values, v) / max(1, int(np.searchsorted(values, high)))
        return np.asarray({"log": log, "equalised": equalised, "mix": (log + equalised) / 2}[self.scale])

    def _ends(self, values: Tones) -> tuple[float, float, float]:
        """Lowest and highest value of the scale, and what the lowest counts as in a logarithm: at least 1."""
        low, high = self.limits or (values[0], max(values[0] + 1, values[round((values.size - 1) * TOP)]))
        return float(low), float(high), max(float(low), 1.0)

    def _rounds(self, t: Tones) -> Tones:
        if not (self.repeat or self.period):
            return t
        t = t * (self.repeat or 1.0) + self.phase
        return np.asarray(1 - np.abs(2 * (t - np.floor(t)) - 1))


def _stride(side: int, drawn: int) -> int:
    """Which samples of a side to draw, for about so many: each m 2^n-th, with m below 8."""
    step = 1 << max(0, (side // drawn).bit_length() - 3)
    return max(1, (2 * side + drawn * step) // (2 * drawn * step) * step)


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and bool(abs(value) <= LARGEST)


def _light(light: Any) -> tuple[float, float]:
    if isinstance(light, list | tuple) and len(light) == 2 and all(map(_is_number, light)) and 0 < light[1] <= 90:
        return float(light[0]), float(light[1])
    raise ConfigError(
        f"light must be azimuth and height in degrees, such as 315, 45, the height from above 0 to 90; got {light!r}"
    )


def palette_index(sample: Integers, max_iter: int, options: PictureOptions | None = None) -> ToIndex:
    """The function from escape times (integers of any shape) to palette indices (uint8 of that shape).

    0 not computed, 1 to 254 the map's tones, laid out for `sample` as the options' scale says, and 255 `max_iter`.
    Without rounds it never descends.
    """
    tones = (options or PictureOptions()).tones(sample[(sample > 0) & (sample < max_iter)])

    def index(counts: Integers) -> NDArray[np.uint8]:
        steps: NDArray[np.uint8] = np.minimum(1 + np.floor((tones(counts) + EDGE) * TONES), TONES).astype(np.uint8)
        steps[counts <= 0] = NOT_COMPUTED
        steps[counts >= max_iter] = INTERIOR
        return steps

    table = index(np.arange(min(max_iter, TABLE_LIMIT) + 1))

    def looked_up(counts: Integers) -> NDArray[np.uint8]:
        steps = np.asarray(table.take(counts.astype(np.intp, copy=False), mode="clip"), np.uint8)
        if max_iter > TABLE_LIMIT:
            steps[counts >= max_iter] = INTERIOR
            beyond = (counts > TABLE_LIMIT) & (counts < max_iter)
            steps[beyond] = index(counts[beyond])
        return steps

    return looked_up
