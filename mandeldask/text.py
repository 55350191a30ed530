"""Numbers, spans of time, paths and commands as a person says them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from itertools import accumulate
from pathlib import Path
from urllib.parse import unquote, urlsplit

Table = list[list[str]]
COLUMN = 13  # where the text of a fact begins, after its label
# What stays in one piece where a line is folded: a command, for it is copied; any other word.
UNBROKEN = re.compile(r"(?<=:) +(?:\S+ -m )?\S*mandeldask .*|\S*?`[^`]*`\S*|\S+")


def short_path(path: str) -> str:
    """A path as a user would type it from here; a URL as it is."""
    if is_url(path):
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def command(*words: str) -> str:
    """A command of mandeldask as it works when typed here."""
    arguments, program = shlex.join(words), Path(sys.argv[0])
    if program.parts[-2:] == ("mandeldask", "__main__.py"):
        return f"{shlex.quote(sys.orig_argv[0])} -m mandeldask {arguments}"
    if program.name.startswith("dask") and sys.argv[1:2] != ["mandeldask"]:
        return f"mandeldask {arguments}"  # of a scheduler or a worker, whose errors are read elsewhere
    return f"{_program('mandeldask')} {arguments}"


def option(name: str) -> str:
    """How a switch is given, by whoever reads it."""
    return f"--{name.replace('_', '-')} (in Python, {name}=True)"


def pip_install(extra: str) -> str:
    """The command that installs an extra of mandeldask here: of the checkout that it was installed from, if it was."""
    project = "mandeldask"
    with suppress(PackageNotFoundError):
        origin = json.loads(distribution("mandeldask").read_text("direct_url.json") or "{}")
        source = unquote(urlsplit(origin.get("url", "")).path)
        if "dir_info" in origin and os.path.isdir(source):
            project = short_path(source)
    return f"{_program('pip')} install {shlex.quote(f'{project}[{extra}]')}"


def _program(name: str) -> str:
    """How to call a program of this Python's environment: by its name alone where that finds it."""
    path = os.path.join(os.path.dirname(sys.executable), name)
    found = shutil.which(name)
    if not os.path.exists(path) or (found and os.path.samefile(found, path)):
        return name
    return shlex.quote(short_path(path))


def is_url(path: str) -> bool:
    """Whether a store is named by a URL, and not by a path."""
    return "://" in path


def printable(text: str) -> str:
    """Text from elsewhere, without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def fact(label: str, text: str, width: int | None = None) -> str:
    """A label, and what there is to say in the column beside it; folded to `width` columns where that is given.

    What is too long for the column, and is not to be folded, begins further left.
    """
    start = f"  {label:<{COLUMN - 3}} "
    if not width:
        return start + text
    first, *others = fold(text, width - COLUMN)
    if len(first) > width - COLUMN:
        start, first, others = start.rstrip(), "", [first, *others]
    further = [" " * min(COLUMN, max(0, width - len(line))) + line for line in others]
    return "\n".join([start + first] * bool(start + first) + further)


def fold(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, but for longer words; a command before four spaces stays whole."""
    command, gap, note = text.partition("    ")
    if len(text) > width and gap:
        return [command, *(f"  {line}" for line in fold(note, width - 2))]
    lines = [""]
    for piece in [text] if len(text) <= width else map(str.strip, UNBROKEN.findall(text)):
        if lines[-1] and len(lines[-1]) + 1 + len(piece) > width:
            lines.append("")
        lines[-1] += f" {piece}" if lines[-1] else piece
    return lines


def table(lines: Table, width: int | None = None) -> str:
    """Lines with columns as wide as their widest cell.

    Columns that do not fit in `width` follow in tables of their own, beside the first column again; what is too wide in
    the last column of a table is folded.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    fit = max(2, sum(end - 2 <= width for end in accumulate(w + 2 for w in widths))) if width else len(widths)
    shown = []
    for *cells, last in (line[:fit] for line in lines):
        start = "".join(f"{cell:{w}}  " for cell, w in zip(cells, widths, strict=False))
        first, *others = fold(last, max(10, width - len(start))) if width else [last]
        shown += [start + first, *(" " * len(start) + other for other in others)]
    text = "\n".join(map(str.rstrip, shown))
    further = [[line[0], *line[fit:]] for line in lines]
    return f"{text}\n\n{table(further, width)}" if len(widths) > fit else text


def plural(n: int, noun: str) -> str:
    """1 tile, 2 tiles."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def si(value: float) -> str:
    """A large number in three digits, with the SI prefix as a word would have it: 1.05 G."""
    for factor, prefix in ((1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g}"


def data_size(n: float) -> str:
    """Bytes as a person says them: 1.50 GiB."""
    for k, prefix in ((2**50, "P"), (2**40, "T"), (2**30, "G"), (2**20, "M"), (2**10, "K")):
        if n >= 0.9 * k:
            return f"{n / k:.2f} {prefix}iB"
    return f"{n:.0f} B"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def short_time(seconds: float) -> str:
    """Seconds that may be few: 2.31 s, 502 ms, 7 ms, 0.32 ms."""
    if seconds >= 0.9995:
        return duration(seconds)
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.2g} ms"
