"""What a user is told of a description that breaks a rule: key, rule and value, on a line that a terminal can show."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping
from decimal import Decimal

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mandeldask.errors import ConfigError
from mandeldask.text import printable

MAX_ERRORS = 5
MAX_LINE = 400  # characters

Sections = Mapping[tuple[str | int, ...], type[BaseModel]]  # ("cluster", "local"): the section and its kind

# Where pydantic speaks of Python, its name of the fault and what is said instead.
_RULES = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be an integer",
    "model_attributes_type": "must be a mapping, KEY: VALUE",
    "model_type": "must be a mapping, KEY: VALUE",
    "string_type": "must be text (in quotes if it looks like a number)",
    "tuple_type": "must be a list",
    "union_tag_invalid": "kind must be one of {expected_tags}; got {tag}",
}


class _Shown(reprlib.Repr):
    def repr_Decimal(self, value: Decimal, level: int) -> str:  # noqa: N802 (named for the type)
        return self.repr_int(value, level).removeprefix("Decimal('").removesuffix("')")  # type: ignore[arg-type]


show = _Shown().repr


def explain(error: ValidationError, source: str, sections: Sections) -> ConfigError:
    """A line for each of the first faults; `sections` are the models by their places."""
    faults = error.errors(include_url=False)
    lines = [config_error(f"{source}: {_explain(fault, sections)}") for fault in faults[:MAX_ERRORS]]
    more = [f"{source}: and {len(faults) - MAX_ERRORS} more"] if len(faults) > MAX_ERRORS else []
    return ConfigError("\n".join([*map(str, lines), *more]))


def _explain(fault: ErrorDetails, sections: Sections) -> str:
    location = fault["loc"]
    if location[0:1] == ("cluster",):
        location = "cluster", *location[2:]  # without its kind
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if fault["type"] == "extra_forbidden":
        there = [*sections[fault["loc"][:-1]].model_fields]
        elsewhere = [
            ".".join(map(str, (*section[:1], name))) for section in sections for name in sections[section].model_fields
        ]
        close = difflib.get_close_matches(str(location[-1])[:50].lower(), [*there, *elsewhere], n=1)
        return f"unknown key `{key}`; " + (f"did you mean `{close[0]}`?" if close else f"there are {', '.join(there)}")
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] in _RULES:
        rule = _RULES[fault["type"]].format_map(fault.get("ctx", {}))
    else:
        rule = re.sub(r"^\w+ should", "must", fault["msg"].removeprefix("Value error, "))
    if isinstance(fault["input"], Mapping):  # the rule is one of several keys, and names them
        return f"{key}: {rule}"
    return f"{key} {rule}; got {show(fault['input'])}".lstrip()


def config_error(text: str) -> ConfigError:
    """An error on one line of bounded length."""
    line = printable(text)
    return ConfigError(line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 103]}...{line[-100:]}")
