"""Values and lines as an error message shows them: short, on one line, nothing that a terminal would obey."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice

MAX_LINE = 400  # characters of one message


def bare(key: object) -> str:
    """A key: as it is where that is plain, else as a value."""
    return key if isinstance(key, str) and re.fullmatch(r"[\w-]{1,40}", key) else show(key)


def line(text: str) -> str:
    """`text` on one line of bounded length, control characters escaped."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= MAX_LINE else f"{text[: MAX_LINE - 103]}...{text[-100:]}"


def show(value: object, level: int = 3) -> str:
    """A value as a YAML file has it, in a few words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**40 else "an integer of more than 40 digits"
    if isinstance(value, dict) and level:
        items = (f"{bare(key)}: {show(item, level - 1)}" for key, item in value.items())
        return f"{{{_first_few(items)}}}"
    if isinstance(value, list | tuple) and level:
        return f"[{_first_few(show(item, level - 1) for item in value)}]"
    text = str(value) if isinstance(value, Decimal) else reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:30]}...{text[-27:]}"


def _first_few(items: Iterator[str]) -> str:
    few = list(islice(items, 4))
    return ", ".join(few if len(few) < 4 else [*few[:3], "..."])
