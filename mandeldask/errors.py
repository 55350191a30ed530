"""What can go wrong by a user's or a machine's doing: the rule, the value and the remedy, never a traceback."""

from __future__ import annotations

import reprlib
from types import UnionType


class MandeldaskError(Exception):
    """An error to be told in a line or two; `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(MandeldaskError, ValueError):
    """A view, run description or argument that breaks a rule."""

    exit_code = 2


class StoreError(MandeldaskError):
    """A store that cannot be used: of another field, of another program, unwritable, full, busy."""

    exit_code = 3


class DamagedError(StoreError):
    """A part of a store that is missing or cannot be read; the rest can. `problem` says what is wrong with the part."""

    def __init__(self, message: str, problem: str = "") -> None:
        super().__init__(message, problem)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.args[0])


class ReplacedError(StoreError):
    """The store cannot be seen any more, or another has its place."""


class ClusterError(MandeldaskError):
    """A cluster that cannot be started, was lost, or is too small for the tiles."""

    exit_code = 5


class JobCancelledError(MandeldaskError):
    """A job that was cancelled before its end."""

    exit_code = 130


def check_type(name: str, value: object, types: type | UnionType, takes: str, hint: str = "") -> None:
    """ConfigError for an argument of a wrong type; `takes` says what it has to be, `hint` what goes elsewhere."""
    if not isinstance(value, types):
        raise ConfigError(f"{name} must be {takes}; got {reprlib.repr(value)}" + f". {hint}" * bool(hint))
