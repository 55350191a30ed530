"""The command that writes a description to edit: init."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from mandeldask.cli.group import cli, print_facts
from mandeldask.errors import ConfigError
from mandeldask.text import command

# What a description of each folder is for
NEXT = {"films": ("zoom",), "clusters": ("run", "lesson", "--cluster")}


@cli.command("init")
@click.argument("name", required=False)
def _init(name: str | None) -> None:
    """Write the description NAME that comes with mandeldask to a file here, to be edited; without NAME, list them."""
    from mandeldask.config import no_such, shipped, title

    there = shipped()
    if name is None:
        print_facts(*((f"{each:<23}", title(file)) for each, file in there.items()))
        click.echo()
        print_facts(("next", f"{command('run', 'lesson')}     computes one"))
        print_facts(("", f"{command('init', 'lesson')}    writes it here, to be edited"))
        return
    if name not in there:
        raise ConfigError(f"{name}: {no_such(name)}")
    target = Path(f"{there[name].stem}.yaml")
    text = re.sub(r"\A# yaml-language-server: .*\n#\n", "", there[name].read_text(encoding="utf-8"))
    try:
        with open(target, "x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        problem = f"{target} already exists, and was left unchanged: move it, or run this in another folder"
        raise ConfigError(problem) from None
    then = NEXT.get(os.path.dirname(name), ("run",))
    print_facts(("written", str(target)), ("next", f"{command(*then, str(target))}    once you have edited it"))
