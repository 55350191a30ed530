"""What a user is told of a description that breaks a rule: the key, the rule, the value, what to write instead."""

from __future__ import annotations

import difflib
import json
import operator
import re
from collections.abc import Collection, Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mandeldask.config.clusters import KINDS, QUEUES
from mandeldask.config.words import bare, line, show
from mandeldask.errors import ConfigError

MAX_ERRORS = 5

Keys = tuple[str | int, ...]  # ("view", "shape", 0) is view.shape[0]

# What pydantic calls the fault, and what a user is told of it.
_RULES = {
    "extra_forbidden": "is no key here",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be an integer",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_type": "must be a mapping, KEY: VALUE",
    "string_type": "must be text (in quotes if it looks like a number)",
    "too_long": "must have {max_length} values",
    "tuple_type": "must be a list",
    "union_tag_invalid": "must be a mapping, KEY: VALUE",
    "value_error": "{error}",
}


class Faults:
    """The words for faults in these sections of a description, each by its keys."""

    def __init__(self, sections: Mapping[Keys, type[BaseModel]]) -> None:
        self.sections = sections
        self.names = {section: list(model.model_fields) for section, model in sections.items()}

    def told(self, error: ValidationError, source: str, changes: Collection[tuple[str, ...]]) -> str:
        """A line for each of the first faults; `changes` are the keys that were set on the command line."""
        faults = error.errors(include_url=False)
        lines = []
        for fault in faults[:MAX_ERRORS]:
            keys, _ = _place(fault["loc"])
            set_here = keys and any(all(map(operator.eq, changed, keys)) for changed in changes)
            lines.append(line(f"{source}{' with --set' if set_here else ''}: {self._explain(fault)}"))
        if len(faults) > MAX_ERRORS:
            lines.append(line(f"{source}: and {len(faults) - MAX_ERRORS} more"))
        return "\n".join(lines)

    def _explain(self, fault: ErrorDetails) -> str:
        """Key, rule, value and remedy of one fault."""
        keys, section = _place(fault["loc"])
        context = fault.get("ctx", {})
        rule = _RULES[fault["type"]].format_map(context) if fault["type"] in _RULES else fault["msg"]
        key = "".join(f"[{k}]" if isinstance(k, int) else f".{bare(k)}" for k in keys).lstrip(".")
        if isinstance(context.get("error"), ConfigError):  # by View, which names the key and the value
            return f"{key}.{rule}" if re.split(r"\W", rule)[0] in self.names[keys] else f"{key}: {rule}"
        if fault["type"] == "extra_forbidden":
            return f"{key} {rule}{self._did_you_mean(keys[-1], section)}. Permitted: {', '.join(self.names[section])}"
        if fault["type"] == "union_tag_invalid" and isinstance(fault["input"], dict):
            kinds = ", ".join(kind for name in KINDS for kind in (QUEUES if name == "queue" else (name,)))
            return f"{key}.kind must be one of {kinds}; got {show(fault['input'].get('kind'))}"
        got = "" if fault["type"] == "missing" else f"; got {show(fault['input'])}"
        return f"{key} {rule}{got}{self._example(keys, section, fault['type'])}".lstrip()

    def _did_you_mean(self, word: object, section: Keys) -> str:
        close = difflib.get_close_matches(str(word)[:50].lower(), self.names[section], n=1)
        close += [".".join(map(str, (*other[:1], word))) for other, names in self.names.items() if word in names]
        return f"; did you mean {close[0]}" if close else ""

    def _example(self, keys: Keys, section: Keys, fault: str) -> str:
        names = [key for key in keys if isinstance(key, str)]
        field = self.sections[section].model_fields.get(names[-1]) if names and section in self.sections else None
        if not field or not field.examples or fault == "literal_error":
            return ""
        return f"; for example {names[-1]}: {json.dumps(field.examples[0])}"


def _place(location: Keys) -> tuple[Keys, Keys]:
    """The keys of a fault as the file has them, and the section of its last name; a cluster's kind is no key."""
    if location[:1] == ("cluster",) and location[1:2] and location[1] in KINDS:
        return ("cluster", *location[2:]), location[:2]
    names = tuple(key for key in location if isinstance(key, str))
    return location, names[:-1]
