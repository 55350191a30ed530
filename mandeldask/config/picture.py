"""How the picture of a run looks: the options of `mandeldask image`, kept with what they belong to."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, Strict

from mandeldask.config.values import Count, Section, Text


def _number(value: Any) -> Any:
    return value if isinstance(value, bool | str) else float(value)


Number = Annotated[float, BeforeValidator(_number), Strict(), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]


class PictureDescription(Section):
    """What is left out is as `mandeldask image` has it; which values go together is checked where it is drawn."""

    colormap: Text | None = Field(
        None, description="classic, a palette of Bokeh, or a map of cmap.", examples=["magma"]
    )
    reverse: Annotated[bool, Strict()] | None = Field(None, description="The map from its last colour to its first.")
    scale: Text | None = Field(None, description="mix, log, equalised or linear.", examples=["log"])
    repeat: Positive | None = Field(
        None, description="Run through the map, there and back, so many times on the scale.", examples=[3]
    )
    period: Positive | None = Field(
        None, description="Run through the map, there and back, once in so many iterations.", examples=[50]
    )
    phase: Number | None = Field(None, description="Where the rounds start.", examples=[0.5])
    interior: Text | None = Field(
        None, description="Colour of the samples that do not escape, #rrggbb.", examples=["#000000"]
    )
    shade: Text | None = Field(
        None, description="What is coloured: counts, or the field smooth or distance.", examples=["smooth"]
    )
    light: tuple[Number, Number] | None = Field(
        None, description="Slopes under a light: [azimuth, height] in degrees.", examples=[[315, 45]]
    )
    supersample: Count | None = Field(None, description="Samples a side of a pixel: 1, 2, 4 or 8.", examples=[2])
    size: Count | None = Field(None, description="Pixels of the longer side, about.", examples=[2048])
