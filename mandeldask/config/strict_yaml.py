"""One YAML document, read strictly: no aliases, tags or duplicate keys, bounded in size and depth."""

from __future__ import annotations

import re
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from mandeldask.config.messages import one_line, show, show_key
from mandeldask.errors import ConfigError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 8


NUMBER = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"  # YAML 1.2: 1e5 is a number, 1:30 and 1_000 are not
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's composer, refusing what a run description has no use for as soon as it comes."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        for part in (Scanner, Parser, Composer, BaseResolver):
            part.__init__(self)
        self.depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refused("anchors and aliases (& and *) are not allowed: write the value out", event.start_mark)
        if getattr(event, "tag", None):
            raise _refused("tags (!) are not allowed: write the plain value", event.start_mark)
        if self.depth == MAX_DEPTH:
            raise _refused(f"nested more than {MAX_DEPTH} deep", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _refused(rule: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=rule, problem_mark=mark)


def read_yaml(data: bytes, source: str) -> Any:
    """The value of one YAML document: dicts, lists, text, Decimals, booleans, None."""
    if len(data) > MAX_BYTES:
        raise ConfigError(one_line(f"{source}: is longer than {MAX_BYTES // 1024} KiB"))
    try:
        node = _Loader(data.decode("utf-8-sig")).get_single_node()
        return None if node is None else _value(node)
    except UnicodeDecodeError as error:
        raise ConfigError(one_line(f"{source}: is not UTF-8 text (byte {error.start})")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(one_line(f"{source}{where}: {problem}")) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML lets chr() and int() fail
        raise ConfigError(one_line(f"{source}: is not YAML: {getattr(error, 'reason', error)}")) from None


def _value(node: Node) -> Any:
    if isinstance(node, SequenceNode):
        return [_value(item) for item in node.value]
    if isinstance(node, MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _value(key_node)
            if not isinstance(key, str):
                raise _refused(f"keys must be words; got {show(key)}", key_node.start_mark)
            if key in mapping:
                raise _refused(f"the key {show_key(key)} is given twice", key_node.start_mark)
            mapping[key] = _value(value_node)
        return mapping
    plain = isinstance(node, ScalarNode) and node.style is None  # not in quotes
    if plain and node.value in _WORDS:
        return _WORDS[node.value]
    if plain and re.fullmatch(NUMBER, node.value):
        with suppress(InvalidOperation):  # an exponent beyond what even Decimal takes stays text
            return Decimal(node.value)  # a float would lose digits
    return node.value
