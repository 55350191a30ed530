"""Places of other programs as run descriptions: Kalles Fraktaler's .kfr and Fraktaler-3's .toml.

Both show a window of height 4 / zoom around a centre.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import yaml

from mandeldask.config.reading import MAX_LINE, parse
from mandeldask.config.values import integer
from mandeldask.errors import ConfigError
from mandeldask.view.exact import MAX_DIGITS, decimal
from mandeldask.view.rules import check_shape

MAX_BYTES = 2 * MAX_DIGITS + 64 * 1024  # of a file: the digits of a centre, and all else
SHAPE = 1080, 1920
HEIGHT = 4  # of the window at zoom 1
ROUGHLY = Context(prec=17)  # digits of a span
AS_WRITTEN = Context(prec=MAX_BYTES, traps=[])  # what is beyond all range is infinite, to be refused by its name
Found = dict[str, Any]


def read_location(path: str | os.PathLike[str]) -> Found:
    """The run description, as a mapping, of what a location file shows.

    ConfigError where it cannot be read, lacks something, or shows something else than the Mandelbrot set.
    """
    file = Path(path)
    text = _text(file)
    try:
        found = _kfr(text) if re.search("^(Re|Im|Zoom|Iterations):", text, re.MULTILINE) else _toml(text)
        described = _described(**found)
    except KeyError as error:
        raise ConfigError(f"{file}: lacks {error.args[0]}, and is no location that can be read") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{file}: is neither a location of Kalles Fraktaler, nor one of Fraktaler-3, which is TOML: {error}"
        ) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{file}: {error}"[:MAX_LINE]) from None
    parse(described, str(file))
    return described


def _text(file: Path) -> str:
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise ConfigError(f"{file}: is not text, and a location of Kalles Fraktaler or Fraktaler-3 is") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{file}: is no location: that is a file of at most {MAX_BYTES // 1024} KiB")
    return text


def to_yaml(described: Mapping[str, Any], title: str) -> str:
    """A run description as a file to be edited."""
    written = yaml.safe_dump(described, default_flow_style=None, sort_keys=False, width=math.inf)
    return f"# {title}\n{written}"


def around(
    centre: tuple[str, str], span: Decimal, shape: tuple[int, int], max_iter: int, store: str, rotation: str = "0"
) -> Found:
    """The run description, as a mapping, of a window of width `span`."""
    view: Found = {"centre": list(centre), "span": f"{span:e}", "shape": list(shape), "registration": "pixel"}
    if decimal("rotation", rotation):
        view["rotation"] = rotation
    return {"view": view, "max_iter": max_iter, "fields": ["escape_time", "smooth"], "store": store}


def _described(
    re: Any, im: Any, zoom: Any, iterations: Any, rotation: Any = 0, shape: tuple[int, int] = SHAPE
) -> Found:
    centre = [f"{decimal(name, value):f}" for name, value in (("the real part", re), ("the imaginary part", im))]
    if (magnified := decimal("zoom", zoom)) <= 0:
        raise ValueError(f"zoom must be positive; got {zoom}")
    if not str(iterations).isdecimal():
        raise ValueError(f"iterations must be a whole number; got {iterations}")
    height = ROUGHLY.divide(Decimal(HEIGHT), magnified)
    span = ROUGHLY.divide(ROUGHLY.multiply(height, Decimal(shape[1])), Decimal(shape[0]))
    return around((centre[0], centre[1]), span, shape, int(iterations), "location.zarr", str(rotation))


def _kfr(text: str) -> Found:
    lines = dict(re.findall(r"^([A-Za-z]+): *(\S*) *\r?$", text, re.MULTILINE))
    _refuse_other_sets(lines.get("FractalType", "0"), lines.get("Power", "2"))
    if float(lines.get("StretchAmount", 0) or 0) or float(lines.get("Ratio", 360) or 360) != 360:
        raise ValueError("is stretched, and a view is not: take the stretch out there")
    found = {"re": lines["Re"], "im": lines["Im"], "zoom": lines["Zoom"], "iterations": lines["Iterations"]}
    return found | {"rotation": lines.get("RotateAngle", lines.get("Rotate", "0")) or "0"}


def _toml(text: str) -> Found:
    read = tomllib.loads(text, parse_float=AS_WRITTEN.create_decimal)
    place, transform, image, bailout = (
        _table(name, read.get(name, {})) for name in ("location", "transform", "image", "bailout")
    )
    formulas = read.get("formula", [])
    for each in formulas if isinstance(formulas, list) else [formulas]:
        formula = _table("formula", each)
        odd = any(formula.get(key) for key in ("abs_x", "abs_y", "neg_x", "neg_y"))
        _refuse_other_sets("1" if odd else "0", formula.get("power", formula.get("p", 2)))
    if transform.get("stretch_amount") or transform.get("reflect") or transform.get("exponential_map"):
        raise ValueError("is stretched, reflected or mapped, and a view is not: take that out there")
    return {
        "re": place["real"],
        "im": place["imag"],
        "zoom": place["zoom"],
        "iterations": bailout.get("iterations", 1024),
        "rotation": transform.get("rotate", 0),
        "shape": check_shape((integer(image.get("height", 576)), integer(image.get("width", 1024)))),
    }


def _table(name: str, value: Any) -> Found:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a table, as Fraktaler-3 writes it; got {value!r}")
    return value


def _refuse_other_sets(kind: Any, power: Any) -> None:
    if str(kind) != "0" or str(power) != "2":
        raise ValueError("shows another set than Mandelbrot's, which alone is computed here")
