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
@click.option(
    "--from",
    "location",
    metavar="FILE",
    type=click.Path(),
    help="A location of Kalles Fraktaler (.kfr) or Fraktaler-3 (.toml): write the description of what it shows.",
)
def _init(name: str | None, location: str | None) -> None:
    """Write the description NAME that comes with mandeldask to a file here, to be edited; without NAME, list them."""
    from mandeldask.config import no_such, shipped, title

    if location is not None:
        _write_location(location, name)
        return
    there = shipped()
    if name is None:
        print_facts(*((f"{each:<23}", title(file)) for each, file in there.items()))
        click.echo()
        print_facts(("next", f"{command('run', 'lesson')}     computes one"))
        print_facts(("", f"{command('init', 'lesson')}    writes it here, to be edited"))
        return
    if name not in there:
        raise ConfigError(f"{name}: {no_such(name)}")
    text = re.sub(r"\A# yaml-language-server: .*\n#\n", "", there[name].read_text(encoding="utf-8"))
    write_description(Path(f"{there[name].stem}.yaml"), text, NEXT.get(os.path.dirname(name), ("run",)))


def _write_location(location: str, name: str | None) -> None:
    from mandeldask.config.locations import read_location, to_yaml

    stem = re.sub(r"[^A-Za-z0-9._-]", "-", name or Path(location).stem)
    described = read_location(location) | {"store": f"{stem}.zarr"}
    write_description(Path(f"{stem}.yaml"), to_yaml(described, f"From {Path(location).name}."))


def write_description(target: Path, text: str, then: tuple[str, ...] = ("run",)) -> None:
    """Write a description to a new file, and tell what to do with it; ConfigError where one is there."""
    try:
        with open(target, "x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        problem = f"{target} already exists, and was left unchanged: move it, or run this in another folder"
        raise ConfigError(problem) from None
    print_facts(("written", str(target)), ("next", f"{command(*then, str(target))}    once you have edited it"))
