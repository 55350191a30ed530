"""Which samples of the complex plane: the keys of `view`, to a `View`, which checks them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from mandeldask.config.strict_yaml import NUMBER
from mandeldask.config.values import Section, Side
from mandeldask.view import LOG_POLAR, LogPolar, Registration, Turned, View

Coordinate = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{NUMBER}$"}]})
]


class ViewDescription(Section):
    """Which samples of the complex plane: x and y, or centre and span; or, in a log-polar strip, centre and radius."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["x", "y"]}, {"required": ["centre", "span"]}, {"required": ["centre", "radius"]}]
        }
    )

    x: tuple[Coordinate, Coordinate] | None = Field(None, description="Bounds of the real part, [low, high].")
    y: tuple[Coordinate, Coordinate] | None = Field(None, description="Bounds of the imaginary part, [low, high].")
    centre: tuple[Coordinate, Coordinate] | None = Field(
        None, description="The point in the middle, [re, im]. All digits count, in quotes or not."
    )
    span: Coordinate | None = Field(
        None, description="Distance from the first column to the last (gridline), or width of the window (pixel)."
    )
    rotation: Coordinate | None = Field(
        None,
        description="Degrees by which the rectangle is turned anticlockwise about its centre, from -360 to 360; "
        "with centre and span, or with centre and the bounds x and y of the offsets from it.",
    )
    projection: Literal["log-polar"] | None = Field(
        None,
        description="log-polar: columns are angles over a full turn, rows are radii in equal ratios; with centre and "
        "radius. When left out, a rectangle.",
    )
    radius: tuple[Coordinate, Coordinate] | None = Field(
        None,
        description="Of a log-polar strip, [inner, outer]: the first and the last row. The rows follow from the "
        "columns, 1 + ln(outer / inner) columns / 2 pi.",
    )
    shape: tuple[Side, Side] = Field(description="Samples: [rows (y), columns (x)].")
    registration: Registration = Field(
        "gridline",
        description="gridline: the first and last samples lie on the bounds, as numpy.linspace has it. "
        "pixel: samples lie at the centres of cells that fill the bounds.",
    )

    def build(self) -> View:
        """The `View` described; ConfigError where it breaks one of the view's rules."""
        placed = {key: value for key, value in self if value is not None and key not in ("shape", "registration")}
        shape, registration = self.shape, self.registration
        match sorted(placed):
            case ["x", "y"]:
                return View(**placed, shape=shape, registration=registration)
            case ["centre", "span"] | ["centre", "rotation", "span"]:
                return View.around(**placed, shape=shape, registration=registration)
            case ["centre", "rotation", "x", "y"]:
                frame = Turned(placed["centre"], placed["rotation"])
                return View(placed["x"], placed["y"], shape, registration, frame)
            case ["centre", "projection", "radius"] if registration == "gridline":
                return View.log_polar(placed["centre"], placed["radius"], shape[1], shape[0])
        raise ValueError(
            "needs x and y; or centre and span, with rotation if wanted; or projection, centre and radius for a "
            f"log-polar strip, with registration gridline; has {', '.join(placed) or 'none'}"
        )


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
