"""One YAML 1.2 document, read strictly: no anchors, aliases, tags or duplicate keys; numbers keep all their digits."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import yaml

from mandeldask.config.messages import config_error, show
from mandeldask.errors import ConfigError

MAX_BYTES = 64 * 1024
NUMBER = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"  # YAML 1.2: 1e5 is a number, 1:30 and 1_000 are not
CORE_SCHEMA = {
    "null": r"null|Null|NULL|~|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "float": NUMBER,
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 (as PyYAML has it)
        None: [(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{words})\Z")) for tag, words in CORE_SCHEMA.items()]
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
            _refuse("anchors, aliases and tags (&, * and !) are not allowed: write the value out", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                _refuse(f"keys must be words; got {show(key)}", key_node.start_mark)
            if key in mapping:
                _refuse(f"the key {key} is given twice", key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping

    def construct_number(self, node: yaml.ScalarNode) -> Decimal | str:
        try:
            return Decimal(node.value)  # a float would lose digits
        except InvalidOperation:  # an exponent beyond Decimal's
            return str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def _refuse(rule: str, mark: yaml.Mark) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=rule, problem_mark=mark)


def read_yaml(data: bytes, source: str) -> Any:
    """The value of one YAML document: dicts, lists, text, Decimals, booleans, None."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{source}: is longer than {MAX_BYTES // 1024} KiB")
    try:
        return yaml.load(data.decode("utf-8-sig"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise config_error(f"{source}{where}: {', '.join(filter(None, (error.context, error.problem)))}") from None
    except RecursionError:
        raise config_error(f"{source}: is nested too deep") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML lets chr() and int() fail
        raise config_error(f"{source}: is not YAML in UTF-8: {getattr(error, 'reason', error)}") from None
