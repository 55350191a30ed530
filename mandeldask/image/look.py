"""What a picture looks like: every choice in one small value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mandeldask.errors import ConfigError
from mandeldask.image.colour import Scale, check_choice, gradient, rgb

SHADES = ("counts", "smooth", "distance")


@dataclass(frozen=True)
class Look:
    """Colours, scale and light of a picture.

    Parameters
    ----------
    colormap : str
        `classic` is our own; then the names of `bokeh.palettes` in lower case, then those of `cmap`.
        The lowest escape time has the first colour.
    reverse : bool
        The map from its last colour to its first.
    scale, repeat, period, phase
        How values are laid out over the map: see `mandeldask.image.Scale`.
    interior : "#rrggbb"
        The colour of what did not escape.
    shade : one of `SHADES`
        What is coloured: the escape time; `smooth`, the continuous one; `distance`, how near the set is. The latter
        two need the field of that name.
    light : (azimuth, height), optional
        In degrees, as on maps: where the light comes from, clockwise from the top (315 is the upper left), and how
        high it stands. The escape time is taken for a hill that rises towards the set. Needs the field smooth, or
        else distance.

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

    def __post_init__(self) -> None:
        check_choice("shade", self.shade, SHADES)
        if not isinstance(self.reverse, bool):
            raise ConfigError(f"reverse must be true or false; got {self.reverse!r}")
        gradient(self.colormap, 2)
        rgb("interior", self.interior)
        _ = self.layout
        if self.period and self.shade == "distance":
            raise ConfigError("period counts iterations, and shade distance has none: give repeat")
        if self.light is not None:
            object.__setattr__(self, "light", _light(self.light))

    @cached_property
    def layout(self) -> Scale:
        return Scale(self.scale, self.repeat, self.period, self.phase)

    @property
    def flat(self) -> bool:
        """Whether 256 colours are enough."""
        return self.shade == "counts" and not self.light

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that it needs of a view which is computed for it."""
        more = {self.shade} - {"counts"} | ({"smooth"} if self.light else set())
        return "escape_time", *sorted(more)


def _light(light: object) -> tuple[float, float]:
    numbers = isinstance(light, list | tuple) and len(light) == 2
    if numbers and all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in light):  # type: ignore[attr-defined]
        azimuth, height = map(float, light)  # type: ignore[call-overload]
        if math.isfinite(azimuth) and 0 < height <= 90:
            return azimuth, height
    raise ConfigError(
        f"light must be azimuth and height in degrees, such as 315, 45, the height from above 0 to 90; got {light!r}"
    )
