"""What a key of a run description may hold: types of values, as pydantic reads them."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, WithJsonSchema

from mandeldask.kernels import AUTO, kernel_names
from mandeldask.view import MAX_SIDE

NUMBER = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"  # YAML 1.2: 1e5 is a number, 1:30 and 1_000 are not
BYTES = r"[0-9]{1,15}(\.[0-9]{1,15})? ?([kmgtpKMGTP]i?)?[bB]?"  # a part of what dask.utils.parse_bytes reads
ADDRESS = r"^(tcp|tls|ws|wss|ucx)://\S+$"


class Section(BaseModel):
    """A mapping with the keys it names, and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def integer(value: Any) -> Any:
    """An integer in any of its spellings, as int; anything else as it came."""
    if isinstance(value, float | Decimal) and float(value).is_integer():
        return int(value)  # 1e5
    return operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


def plain(value: Any) -> Any:
    """A value of YAML with its numbers as other programs take them: int or float, where a view keeps all digits."""
    if isinstance(value, Decimal):
        whole = value.as_tuple().exponent == 0 and abs(value) < 2**63
        return int(value) if whole else float(value)
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


def _bytes(value: Any) -> str:
    size = str(integer(value))
    if not re.fullmatch(BYTES, size) or not re.search("[1-9]", size):
        raise ValueError("must be a size above zero, such as 4GiB")
    return size


def _address(value: str) -> str:
    try:
        (urlsplit(value).hostname or "").encode("idna")  # as a look-up of the name would, for as long as it takes
        if re.search(ADDRESS, value):
            return value
    except ValueError:
        pass
    dashboard = " (http:// is that of its dashboard)" if value.startswith("http") else ""
    raise ValueError(f"must be that of a scheduler, tcp://HOST:PORT or tls://HOST:PORT{dashboard}")


def _path(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be a path of printable characters")
    return value


def _kernel(value: str) -> str:
    if value not in kernel_names():
        raise ValueError(f"must be {', '.join(kernel_names()[:-1])} or {AUTO}")
    return value


Count = Annotated[int, Strict(), Field(ge=1), BeforeValidator(integer)]
Side = Annotated[int, Strict(), Field(ge=1, le=MAX_SIDE), BeforeValidator(integer)]
ByteSize = Annotated[str, BeforeValidator(_bytes, json_schema_input_type=str | int)]
Text = Annotated[str, Strict(), Field(min_length=1, max_length=1000)]
Path = Annotated[str, Strict(), AfterValidator(_path)]
Arguments = Annotated[dict[str, Any], BeforeValidator(plain)]  # of another program
Address = Annotated[str, Strict(), AfterValidator(_address)]
KernelName = Annotated[str, Strict(), AfterValidator(_kernel)]
Minutes = Annotated[str, Strict(), Field(pattern=r"^([0-9]+-)?[0-9]{1,3}:[0-5][0-9](:[0-5][0-9])?$")]
Coordinate = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{NUMBER}$"}]})
]
Pair = tuple[Coordinate, Coordinate]
