"""The base of every section of a description, and the types of its values."""

from __future__ import annotations

import operator
import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

from mandeldask.view import MAX_SIDE

BYTES = r"[0-9]{1,15}(\.[0-9]{1,15})? ?([kmgtpKMGTP]i?)?[bB]?"  # a part of what dask.utils.parse_bytes reads


class Section(BaseModel):
    """A mapping with the keys it names, and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def integer(value: Any) -> Any:
    """An integer in any of its spellings, as int; anything else as it came."""
    if isinstance(value, float | Decimal) and float(value).is_integer():
        return int(value)  # 1e5
    return operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


def _bytes(value: Any) -> str:
    size = str(integer(value))
    if not re.fullmatch(BYTES, size) or not re.search("[1-9]", size):
        raise ValueError("must be a size above zero, such as 4GiB")
    return size


def _path(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be a path of printable characters")
    return value


Side = Annotated[int, Strict(), Field(ge=1, le=MAX_SIDE), BeforeValidator(integer)]
Count = Annotated[int, Strict(), Field(ge=1), BeforeValidator(integer)]
ByteSize = Annotated[str, BeforeValidator(_bytes, json_schema_input_type=str | int)]
Text = Annotated[str, Strict(), Field(min_length=1, max_length=1000)]
Path = Annotated[str, Strict(), AfterValidator(_path)]
