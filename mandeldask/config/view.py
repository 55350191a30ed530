"""Which samples of the complex plane: the keys of `view`, to a `View`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    PlainValidator,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from mandeldask.config.strict_yaml import NUMBER
from mandeldask.config.values import Section, Side
from mandeldask.view import LOG_POLAR, LogPolar, Number, Registration, Turned, View


def _coordinate(value: Any) -> Any:
    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not (number or (isinstance(value, str) and re.fullmatch(NUMBER, value))):
        raise ValueError('must be a finite number, bare or in quotes (-0.75, "1e-5")')
    return value


Coordinate = Annotated[
    Number,
    PlainValidator(_coordinate),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{NUMBER}$"}]}),
]


class ViewDescription(Section):
    """Which samples of the complex plane: x and y, or centre and span; or, in a log-polar strip, centre and radius."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["x", "y"]}, {"required": ["centre", "span"]}, {"required": ["centre", "radius"]}]
        }
    )

    x: tuple[Coordinate, Coordinate] | None = Field(
        None, description="Bounds of the real part, [low, high].", examples=[[-2, 1]]
    )
    y: tuple[Coordinate, Coordinate] | None = Field(
        None, description="Bounds of the imaginary part, [low, high].", examples=[[-1.5, 1.5]]
    )
    centre: tuple[Coordinate, Coordinate] | None = Field(
        None,
        description="The point in the middle, [re, im]. All digits count, in quotes or not.",
        examples=[["-0.743643887037151", "0.131825904205330"]],
    )
    span: Coordinate | None = Field(
        None,
        description="Distance from the first column to the last (gridline), or width of the window (pixel).",
        examples=["1e-5"],
    )
    rotation: Coordinate | None = Field(
        None,
        description="Degrees by which the rectangle is turned anticlockwise about its centre, from -360 to 360; "
        "with centre and span, or with centre and the bounds x and y of the offsets from it.",
        examples=["30"],
    )
    projection: Literal["log-polar"] | None = Field(
        None,
        description="log-polar: columns are angles over a full turn, rows are radii in equal ratios; with centre and "
        "radius. When left out, a rectangle.",
        examples=["log-polar"],
    )
    radius: tuple[Coordinate, Coordinate] | None = Field(
        None,
        description="Of a log-polar strip, [inner, outer]: the first and the last row. The rows follow from the "
        "columns, 1 + ln(outer / inner) columns / 2 pi.",
        examples=[["1e-9", 2]],
    )
    shape: tuple[Side, Side] = Field(description="Samples: [rows (y), columns (x)].", examples=[[1000, 1000]])
    registration: Registration = Field(
        "gridline",
        description="gridline: the first and last samples lie on the bounds, as numpy.linspace has it. "
        "pixel: samples lie at the centres of cells that fill the bounds.",
        examples=["pixel"],
    )

    def build(self) -> View:
        """The `View` described; ConfigError where it breaks one of the view's own rules."""
        names = ("x", "y", "centre", "span", "rotation", "projection", "radius")
        values = {key: getattr(self, key) for key in names if getattr(self, key) is not None}
        given = set(values)
        if given == {"x", "y"}:
            return View(**values, shape=self.shape, registration=self.registration)
        if given - {"rotation"} == {"centre", "span"}:
            return View.around(**values, shape=self.shape, registration=self.registration)
        if given == {"x", "y", "centre", "rotation"}:
            frame = Turned(values.pop("centre"), values.pop("rotation"))
            return View(**values, shape=self.shape, registration=self.registration, frame=frame)
        if given == {"projection", "centre", "radius"}:
            if self.registration != "gridline":
                raise ValueError("with projection log-polar has registration gridline")
            return View.log_polar(values["centre"], values["radius"], self.shape[1], self.shape[0])
        needs = "x and y, or centre and span, and not both"
        if given & {"projection", "radius"}:
            needs = "projection, centre and radius for a log-polar strip"
        elif "rotation" in given:
            needs = "centre and span for a rotation"
        raise ValueError(f"needs {needs}; has {', '.join(values) or 'none'}")


def _build(value: Any, read: ValidatorFunctionWrapHandler) -> View:
    if isinstance(value, View):
        return value
    described: ViewDescription = read(value)
    return described.build()


def _dump(view: View) -> dict[str, Any]:
    single = ("span", "rotation")
    given = {key: digits[0] if key in single else digits for key, digits in view.given.items()}
    if isinstance(view.frame, LogPolar):
        given["projection"] = LOG_POLAR
    return {**given, "shape": list(view.shape), "registration": view.registration}


AnyView = Annotated[  # a View, read from a ViewDescription or taken as it is
    View,
    GetPydanticSchema(lambda _, handler: handler.generate_schema(ViewDescription)),
    WrapValidator(_build),
    PlainSerializer(_dump),
]
