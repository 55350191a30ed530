"""The base of every section of a description, and the types of its values."""

from __future__ import annotations

import operator
import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    WithJsonSchema,
)

from mandeldask.view import MAX_SIDE

_BYTES = r"[0-9]{1,15}(\.[0-9]{1,15})? ?([kmgtpKMGTP]i?)?[bB]?"  # a part of what dask.utils.parse_bytes reads


def integer(value: Any) -> Any:
    """An integer in any of its spellings, as int; anything else as it came."""
    if isinstance(value, float | Decimal) and float(value).is_integer() and value == int(value):
        return int(value)  # 1e5
    return operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


def _byte_size(value: Any) -> str | int:
    size = integer(value)
    if isinstance(size, str) and re.fullmatch(_BYTES, size) and re.search("[1-9]", size):
        return size
    if isinstance(size, int) and not isinstance(size, bool) and 0 < size < 10**18:
        return size
    raise ValueError("must be a size above zero, a number and a unit")


def _path(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be a path of printable characters")
    return value


Side = Annotated[int, Strict(), Field(ge=1, le=MAX_SIDE), BeforeValidator(integer)]
Count = Annotated[int, Strict(), Field(ge=1), BeforeValidator(integer)]
ByteSize = Annotated[
    str | int,
    PlainValidator(_byte_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_BYTES}$"}]}),
]
Text = Annotated[str, Strict(), Field(min_length=1, max_length=1000)]
Path = Annotated[str, Strict(), AfterValidator(_path)]


class Section(BaseModel):
    """A mapping with the keys it names, and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid")
