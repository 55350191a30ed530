"""The options of a picture, checked, in one frozen value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mandeldask.errors import ConfigError
from mandeldask.image.colour import Colour, Scale, check_choice, gradient, palette, rgb

SHADES = ("counts", "smooth", "distance")
SUPERSAMPLES = (1, 2, 4, 8)


@dataclass(frozen=True)
class PictureOptions:
    """Colours, scale, light and size of a picture.

    Parameters
    ----------
    colormap : `classic`, a palette of `bokeh.palettes` in lower case, or a map of `cmap`
        The lowest escape time has the first colour; with `reverse` the last.
    scale, repeat, period, phase : how values are laid out over the map, see `mandeldask.image.Scale`
    interior : "#rrggbb", the colour of the samples that did not escape
    shade : what is coloured
        `counts`, the escape times; or the field of that name: `smooth`, the continuous escape times, or `distance`.
    light : (azimuth, height), in degrees as on maps
        Where the light comes from: clockwise from the top (315 is the upper left), and above the horizon. The escape
        time is taken for a hill that rises towards the set. It needs the field smooth or distance.
    size : pixels of the longer side, about
        Every k-th sample is drawn, k = m 2^n with m below 8. Nothing is resampled.
    supersample : 1, 2, 4 or 8
        A pixel is the mean, in linear light, of so many by so many samples.

    Raises
    ------
    ConfigError
        A value that breaks one of these rules.
    """

    colormap: str = "classic"
    reverse: bool = False
    scale: str = "mix"
    repeat: float | None = None
    period: float | None = None
    phase: float = 0.0
    interior: str = "#000000"
    shade: str = "counts"
    light: tuple[float, float] | None = None
    size: int | None = None
    supersample: int = 1

    def __post_init__(self) -> None:
        check_choice("shade", self.shade, SHADES)
        if not isinstance(self.reverse, bool):
            raise ConfigError(f"reverse must be true or false; got {self.reverse!r}")
        gradient(self.colormap, 2)
        rgb("interior", self.interior)
        _ = self.value_scale
        if self.period and self.shade == "distance":
            raise ConfigError("period counts iterations, and shade distance has none: give repeat")
        if self.light is not None:
            object.__setattr__(self, "light", _light(self.light))
        if isinstance(self.supersample, bool) or self.supersample not in SUPERSAMPLES:
            known = ", ".join(map(str, SUPERSAMPLES))
            raise ConfigError(f"supersample must be one of {known}; got {self.supersample!r}")
        whole = isinstance(self.size, int | np.integer) and not isinstance(self.size, bool)
        if self.size is not None and not (whole and self.size >= 1):
            raise ConfigError(f"size must be a number of pixels, at least 1; got {self.size!r}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> PictureOptions:
        """As the constructor, with a ConfigError for a name that is no option."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ConfigError(f"unknown option of a picture: {', '.join(unknown)}; known are {', '.join(known)}")
        return cls(**options)

    @cached_property
    def value_scale(self) -> Scale:
        return Scale(self.scale, self.repeat, self.period, self.phase)

    @cached_property
    def palette(self) -> list[Colour] | None:
        """The 256 colours of a picture that needs no others, else None."""
        flat = self.shade == "counts" and not self.light and self.supersample == 1
        return self.count_colours if flat else None

    @cached_property
    def count_colours(self) -> list[Colour]:
        return palette(self.colormap, self.interior, self.reverse)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields to compute for a picture of a view."""
        more = {self.shade} - {"counts"} | ({"smooth"} if self.light else set())
        return "escape_time", *sorted(more)

    def check(self, shape: tuple[int, int], fields: Sequence[str]) -> None:
        """Raise ConfigError where a field of this shape with these parts cannot be drawn so."""
        needed = {self.shade} - {"counts"}
        if self.light and not {"smooth", "distance"} & set(fields):
            needed.add("smooth")
        lacking = sorted(needed - set(fields))
        if lacking:
            why = f"shade {self.shade}" if self.shade in lacking else "light"
            raise ConfigError(
                f"{why} needs the field {lacking[0]}; the store has {', '.join(fields)} only. Compute it with "
                f"`mandeldask run CONFIG --out NEW --set fields=[{','.join([*fields, *lacking])}]`"
            )
        if min(shape) < self.supersample:
            raise ConfigError(
                f"supersample {self.supersample} needs as many samples a side; got {shape[0]} x {shape[1]}"
            )

    def stride(self, shape: tuple[int, int]) -> int:
        """Draw every `stride`-th sample: m 2^n with m below 8, so that most are read from a coarse level."""
        if self.size is None:
            return 1
        side, drawn = max(shape), self.size * self.supersample
        step = 1 << max(0, (side // drawn).bit_length() - 3)
        return max(1, (2 * side + drawn * step) // (2 * drawn * step) * step)


def _light(light: Any) -> tuple[float, float]:
    numbers = isinstance(light, list | tuple) and len(light) == 2
    if numbers and all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in light):
        azimuth, height = map(float, light)
        if math.isfinite(azimuth) and 0 < height <= 90:
            return azimuth, height
    raise ConfigError(
        f"light must be azimuth and height in degrees, such as 315, 45, the height from above 0 to 90; got {light!r}"
    )
