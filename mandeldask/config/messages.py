"""What a user is told of a description that breaks a rule: the key, the rule, the value, what to write instead.

Every line is short and printable: whatever a file holds, a terminal is given nothing that it would obey.
"""

from __future__ import annotations

import difflib
import json
import operator
import re
import reprlib
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from itertools import islice

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mandeldask.errors import ConfigError

MAX_ERRORS = 5
MAX_LINE = 400  # characters

Keys = tuple[str | int, ...]  # ("view", "shape", 0) is view.shape[0]
Sections = Mapping[Keys, type[BaseModel]]

# What pydantic calls the fault, and what a user is told of it.
_RULES = {
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be an integer",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_attributes_type": "must be a mapping, KEY: VALUE",
    "model_type": "must be a mapping, KEY: VALUE",
    "string_type": "must be text (in quotes if it looks like a number)",
    "too_long": "must have {max_length} values",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}


def explain(error: ValidationError, sections: Sections, source: str, changes: Collection[tuple[str, ...]]) -> str:
    """A line for each of the first faults. `changes` are the keys that were set on the command line."""
    faults = error.errors(include_url=False)
    lines = []
    for fault in faults[:MAX_ERRORS]:
        keys, _ = _place(fault["loc"], sections)
        set_here = keys and any(all(map(operator.eq, changed, keys)) for changed in changes)
        lines.append(one_line(f"{source}{' with --set' if set_here else ''}: {_explain(fault, sections)}"))
    if len(faults) > MAX_ERRORS:
        lines.append(one_line(f"{source}: and {len(faults) - MAX_ERRORS} more"))
    return "\n".join(lines)


def _explain(fault: ErrorDetails, sections: Sections) -> str:
    """Key, rule, value and remedy of one fault."""
    keys, section = _place(fault["loc"], sections)
    context = fault.get("ctx", {})
    key = "".join(f"[{k}]" if isinstance(k, int) else f".{show_key(k)}" for k in keys).lstrip(".")
    if fault["type"] == "extra_forbidden":
        permitted = list(sections[section].model_fields)
        return (
            f"unknown key `{key}`{_did_you_mean(str(keys[-1]), permitted, sections)} Permitted: {', '.join(permitted)}"
        )
    if fault["type"].startswith("union_tag") and isinstance(fault["input"], dict):
        return f"{key}.kind must be one of {context['expected_tags']}; got {show(fault['input'].get('kind'))}"
    rule = _RULES[fault["type"]].format_map(context) if fault["type"] in _RULES else fault["msg"]
    if isinstance(context.get("error"), ConfigError):  # by View, which names the key and the value
        return f"{key}.{rule}" if re.split(r"\W", rule)[0] in sections[keys].model_fields else f"{key}: {rule}"
    got = "" if fault["type"] == "missing" else f"; got {show(fault['input'])}"
    return f"{key} {rule}{got}{_example(keys, section, fault['type'], sections)}".lstrip()


def _did_you_mean(word: str, permitted: list[str], sections: Sections) -> str:
    close = difflib.get_close_matches(word[:50].lower(), permitted, n=1)
    close += [".".join(map(str, (*keys[:1], word))) for keys, model in sections.items() if word in model.model_fields]
    return f"; did you mean `{close[0]}`?" if close else "."


def _example(keys: Keys, section: Keys, fault: str, sections: Sections) -> str:
    names = [key for key in keys if isinstance(key, str)]
    field = sections[section].model_fields.get(names[-1]) if names and section in sections else None
    if not field or not field.examples or fault == "literal_error":
        return ""
    return f"; for example {names[-1]}: {json.dumps(field.examples[0])}"


def _place(location: Keys, sections: Sections) -> tuple[Keys, Keys]:
    """The keys of a fault as the file has them, and the section of its last name; a cluster's kind is no key."""
    if location[:1] == ("cluster",) and location[:2] in sections:
        return ("cluster", *location[2:]), location[:2]
    return location, tuple(key for key in location if isinstance(key, str))[:-1]


def one_line(text: str) -> str:
    """`text` on one line of bounded length, control characters escaped."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= MAX_LINE else f"{text[: MAX_LINE - 103]}...{text[-100:]}"


def show_key(key: object) -> str:
    """A key: as it is where that is plain, else as a value."""
    return key if isinstance(key, str) and re.fullmatch(r"[\w-]{1,40}", key) else show(key)


def show(value: object, depth: int = 3) -> str:
    """A value as a YAML file has it, in a few words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**40 else "an integer of more than 40 digits"
    if isinstance(value, dict) and depth:
        return f"{{{_first_few(f'{show_key(key)}: {show(item, depth - 1)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple) and depth:
        return f"[{_first_few(show(item, depth - 1) for item in value)}]"
    text = str(value) if isinstance(value, Decimal) else reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:30]}...{text[-27:]}"


def _first_few(items: Iterator[str]) -> str:
    few = list(islice(items, 4))
    return ", ".join(few if len(few) < 4 else [*few[:3], "..."])
