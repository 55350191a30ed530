"""Colour maps by name, and the scales that lay them out over a field's values. Pure, and the same on every machine."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError

SCALES = ("mix", "log", "equalised", "linear")
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

    Raises
    ------
    ConfigError
        An unknown colour map, or an `interior` that is not "#rrggbb".
    """
    tones = [(int(r), int(g), int(b)) for r, g, b in gradient(colormap, TONES, reverse).round()]
    return [GREY, *tones, rgb("interior", interior)]


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
        colours = np.array([rgb("colormap", colour) for colour in known], float)
        return np.stack([np.interp(at * 255, np.arange(256), channel) for channel in colours.T], axis=1)
    cmap: Any = _cmap()
    if cmap:
        try:
            return np.asarray(cmap.Colormap(colormap)(at)[:, :3] * 255, np.float64)
        except (KeyError, TypeError, ValueError):
            pass
    raise ConfigError(_unknown(colormap, cmap))


def rgb(name: str, colour: str) -> Colour:
    """Red, green and blue, 0 to 255, of a colour "#rrggbb"; ConfigError for anything else."""
    if not isinstance(colour, str) or not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        raise ConfigError(f'{name} must be a colour "#rrggbb", such as "#000000"; got {colour!r}')
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


@dataclass(frozen=True)
class Scale:
    """How values are laid out over a colour map.

    Parameters
    ----------
    name : one of `SCALES`
        `linear`, `log`, `equalised` (each tone covers the same area), or `mix`: half log, half equalised. It reaches
        from the lowest value to the 99.9th percentile.
    repeat : float, optional
        How many times the map is run through, there and back, from one end of the scale to the other.
    period : float, optional
        The map is run through, there and back, once in so many iterations, in place of the named scale.
    phase : float
        Where such rounds start: 0.5 starts with the map's last colour.

    Raises
    ------
    ConfigError
        An unknown name; a period or repeat that is not above 0, or both; a phase without either.
    """

    name: str = "mix"
    repeat: float | None = None
    period: float | None = None
    phase: float = 0.0

    def __post_init__(self) -> None:
        check_choice("scale", self.name, SCALES)
        for key in ("repeat", "period", "phase"):
            value = getattr(self, key)
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and not (number and (value > 0 or key == "phase")):
                raise ConfigError(f"{key} must be a number{'' if key == 'phase' else ' above 0'}; got {value!r}")
        if self.repeat and self.period:
            raise ConfigError("repeat and period exclude each other: rounds on the scale, or rounds of iterations")
        if self.phase and not (self.repeat or self.period):
            raise ConfigError("phase is where the rounds of a repeat or period start; give one of them")

    def tones(self, sample: NDArray[Any]) -> ToTone:
        """The function from values to tones, from 0 (the map's first colour) to 1, laid out for a sample of them."""
        values, period = _sorted(sample), self.period
        if period:
            return lambda v: self._rounds(np.asarray(v, np.float64) / period)
        return lambda v: self._rounds(self._tone(v, values))

    def curve(self, sample: NDArray[Any]) -> ToTone:
        """As `tones`, interpolated between `KNOTS` values: faster for values that are not integers."""
        if self.period:
            return self.tones(sample)
        values = _sorted(sample)
        low, high, start = _ends(values)
        at = np.geomspace(start, high - low + start, KNOTS) + (low - start)
        known = self._tone(at, values)
        return lambda v: self._rounds(np.interp(v, at, known))

    def _tone(self, v: NDArray[Any], values: Tones) -> Tones:
        low, high, start = _ends(values)
        v = np.clip(v, low, high)
        if self.name == "linear":
            return np.asarray((v - low) / (high - low))
        log = np.log((v - low + start) / start) / np.log((high - low + start) / start)
        equalised = np.searchsorted(values, v) / max(1, int(np.searchsorted(values, high)))
        return np.asarray({"log": log, "equalised": equalised, "mix": (log + equalised) / 2}[self.name])

    def _rounds(self, t: Tones) -> Tones:
        if not (self.repeat or self.period):
            return t
        t = t * (self.repeat or 1.0) + self.phase
        return np.asarray(1 - np.abs(2 * (t - np.floor(t)) - 1))


def _sorted(sample: NDArray[Any]) -> Tones:
    return np.sort(np.asarray(sample, np.float64).ravel()) if sample.size else np.ones(1)


def _ends(values: Tones) -> tuple[float, float, float]:
    """Lowest and highest value of a scale, and what the lowest counts as in a logarithm: itself, but 1 at least."""
    low = float(values[0])
    high = max(low + 1, float(values[round((values.size - 1) * TOP)]))
    return low, high, max(low, 1.0)


def palette_index(sample: Integers, max_iter: int, scale: Scale | None = None) -> ToIndex:
    """The function from escape times (integers of any shape) to palette indices (uint8 of that shape).

    0 not computed, 1 to 254 the map's tones, laid out for `sample`, and 255 `max_iter`. Without rounds it never
    descends.
    """
    tones = (scale or Scale()).tones(sample[(sample > 0) & (sample < max_iter)])

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


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError where a value is none of the choices."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}; got {value!r}{_did_you_mean(value, choices)}")


def _did_you_mean(value: object, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(value).lower(), list(choices), n=1)
    return f"; did you mean {near[0]}?" if near else ""


@lru_cache(maxsize=1)
def _bokeh_names() -> dict[str, str]:
    """Our name of each of Bokeh's palettes of 256 colours, and Bokeh's own."""
    palettes: Any = importlib.import_module("bokeh.palettes")
    known = (name for name in dir(palettes) if name.endswith("256"))
    return {name.removesuffix("256").lower(): name for name in known}


def _cmap() -> Any:
    return importlib.import_module("cmap") if importlib.util.find_spec("cmap") else None


def _unknown(colormap: str, cmap: Any) -> str:
    names = [*OWN, *_bokeh_names()]
    more = "any of cmap's" if cmap else "with `pip install 'mandeldask[pictures]'` any of cmap's"
    known = [*names, *(cmap.Catalog().unique_keys() if cmap else ())]
    return f"colormap must be one of {', '.join(names)}, or {more}; got {colormap!r}{_did_you_mean(colormap, known)}"
