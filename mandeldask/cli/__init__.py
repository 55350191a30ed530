"""The commands: parse, call, print. Heavy imports wait until a command runs, so that --help is quick."""

from __future__ import annotations

from mandeldask.cli import area, clusters, computing, init, jobs, lab, stores, zoom  # noqa: F401 (each adds its commands)
from mandeldask.cli.group import Commands, cli

__all__ = ["Commands", "cli", "main"]


def main() -> None:
    """The `mandeldask` command."""
    cli(prog_name="mandeldask")
