"""The American spelling of `centre`, which is read wherever the British one is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from mandeldask.errors import ConfigError

Function = TypeVar("Function", bound=Callable[..., Any])


def as_centre(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What is given, with `centre` in place of `center`; ConfigError where both are."""
    if {"centre", "center"} <= given.keys():
        raise ConfigError(f"{where}: centre and center are the same key; give one of them")
    return {"centre" if key == "center" else key: value for key, value in given.items()}


def takes_center(function: Function) -> Function:
    """Let a function with a parameter `centre` be called with `center` too."""

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        return function(*args, **as_centre(given, function.__qualname__))

    return cast(Function, call)
