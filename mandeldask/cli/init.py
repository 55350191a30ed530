"""The commands that write a description to edit: init, and find, which looks for places."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mandeldask.cli import options
from mandeldask.cli.group import cli, print_facts, typed
from mandeldask.errors import ConfigError
from mandeldask.text import command, is_url

if TYPE_CHECKING:
    from mandeldask.kernels.nuclei import Nucleus
    from mandeldask.view import View

SHOWN = 40  # characters of a coordinate
WIDTH = 4  # of a window around a copy of the set, over its size: the whole set is 2.5 wide
ROUNDS = 30  # of a period: in these 99 % of the samples that escape around a copy do (at 20 98 %, at 10 70 to 95)
# What a description of each folder is for
NEXT = {"films": ("zoom",), "clusters": ("run", "lesson", "--cluster")}


@cli.command("init")
@click.argument("name", required=False)
@click.option(
    "--from",
    "location",
    metavar="FILE",
    type=click.Path(),
    help="A location of Kalles Fraktaler (.kfr) or Fraktaler-3 (.toml): write the description of what it shows, to "
    "NAME.yaml.",
)
def _init(name: str | None, location: str | None) -> None:
    """Write the description NAME that comes with mandeldask to a file here, to be edited; without NAME, list them."""
    from mandeldask.config import no_such, shipped

    there = shipped()
    if location is not None:
        if name in there:
            raise ConfigError(f"{name} comes with mandeldask, and a file of that name would hide it: take another NAME")
        _write_location(location, name)
        return
    if name is None:
        print_facts(*((f"{each:<23}", _title(file)) for each, file in there.items()))
        click.echo()
        print_facts(("next", f"{command('run', 'lesson')}     computes one"))
        print_facts(("", f"{command('init', 'lesson')}    writes it here, to be edited"))
        return
    if name not in there:
        raise ConfigError(f"{name}: {no_such(name)}")
    text = re.sub(r"\A# yaml-language-server: .*\n#\n", "", there[name].read_text(encoding="utf-8"))
    _write_description(Path(f"{there[name].stem}.yaml"), text, NEXT.get(os.path.dirname(name), ("run",)))


def _title(file: Path) -> str:
    """The first line that says what a description is for."""
    lines = (line.lstrip("# ") for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    return next(line for line in lines if not line.startswith("yaml-language-server:"))


def _write_location(location: str, name: str | None) -> None:
    from mandeldask.config.locations import read_location, to_yaml

    stem = re.sub(r"[^A-Za-z0-9._-]", "-", name or Path(location).stem)
    described = read_location(location) | {"store": f"{stem}.zarr"}
    _write_description(Path(f"{stem}.yaml"), to_yaml(described, f"From {Path(location).name}."))


def _write_description(target: Path, text: str, then: tuple[str, ...] = ("run",)) -> None:
    """Write a description to a new file, and tell what to do with it.

    ConfigError where a file is there, and for one that could not be read again.
    """
    from mandeldask.config.reading import MAX_BYTES

    if len(text.encode()) > MAX_BYTES:
        raise ConfigError(
            f"{target} would have {len(text) // 1024} KiB, and descriptions of at most {MAX_BYTES // 1024} are read: "
            "cut the digits of the centre that its span does not need"
        )
    try:
        with open(target, "x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        problem = f"{target} already exists, and was left unchanged: move it, or run this in another folder"
        raise ConfigError(problem) from None
    print_facts(("written", str(target)), ("next", f"{command(*then, str(target))}    as it is, or edited"))


@cli.command("find")
@click.argument("place", metavar="CONFIG|STORE")
@click.option("--parts", type=int, default=3, show_default=True, help="Look at so many parts of the view a side.")
@click.option("--max-period", type=int, help="The highest period to look for; by default the description's max_iter.")
@click.option("--period", type=int, help="Take the first of this period; by default the first.")
@click.option("-o", "--out", metavar="FILE", type=click.Path(), help="Write a run description around it, FILE.yaml.")
@options.overrides
@options.as_json
def _find(
    place: str,
    parts: int,
    max_period: int | None,
    period: int | None,
    out: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find the nuclei in a view: periods, places to all their digits, sizes.

    Around each is a copy of the set, or a disc on the rim of a larger copy; copies come first.
    """
    from mandeldask.image import check_path
    from mandeldask.kernels.nuclei import find
    from mandeldask.progress import Bar

    if out:
        check_path(out, "a run description", (".yaml", ".yml"))
    if period is not None and period < 1:
        raise ConfigError(f"period must be at least 1; got {period}")
    view, max_iter = _view_of(place, overrides)
    with Bar("discs", quiet=as_json) as bar:
        found = find(view, max_iter if max_period is None else max_period, parts, bar.count)
    chosen = [nucleus for nucleus in found if period in (None, nucleus.period)]
    if as_json:
        click.echo(json.dumps({"nuclei": [asdict(nucleus) for nucleus in found]}, default=str))
    if not chosen:
        which = f"of period {period}" if period else f"of a period up to {max_period or max_iter}"
        raise ConfigError(f"no nucleus {which} was found there: take more --parts, or a larger --max-period")
    if not as_json:
        for nucleus in found:
            re_, im = (text if len(text) < SHOWN else f"{text[: SHOWN - 3]}..." for text in nucleus.centre)
            print_facts((f"period {nucleus.period}", f"{nucleus.kind} at [{re_}, {im}], size {nucleus.size}"))
    if not (out or as_json):
        more = [] if period else ["--period", str(chosen[0].period)]
        print_facts(("next", f"{typed(*more, '-o', 'copy.yaml')}    writes a run description around it"))
    if out:
        _write_around(chosen[0], Path(out), max_iter)


def _view_of(place: str, overrides: tuple[str, ...]) -> tuple[View, int]:
    """The view and the max_iter of a run description, or of a store."""
    from mandeldask.config import load
    from mandeldask.store import open_store

    if os.path.isdir(place) or is_url(place):
        d = open_store(place).description
        return d.view, d.max_iter
    config = load(place, overrides)
    return config.view, config.max_iter


def _write_around(nucleus: Nucleus, out: Path, max_iter: int) -> None:
    from mandeldask.config.locations import around, to_yaml

    enough = max(max_iter, ROUNDS * nucleus.period)
    described = around(nucleus.centre, WIDTH * nucleus.size, (1024, 1024), enough, f"{out.stem}.zarr")
    _write_description(out, to_yaml(described, f"Around the nucleus of period {nucleus.period}, size {nucleus.size}."))
