"""The descriptions that come with mandeldask, by their names: whoever lists them needs nothing that reads one."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from mandeldask.text import command


def shipped() -> dict[str, Path]:
    """Their files by their names: lesson, gallery/shell, films/seahorse-valley, clusters/slurm."""
    package = Path(__file__).parents[1]
    folder = next(filter(Path.is_dir, (package / "configs", package.parent / "configs")))  # installed, or a checkout
    files = sorted(folder.rglob("*.yaml"), key=lambda file: (len(file.parts), file))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def locate(path: str | os.PathLike[str]) -> str:
    """The path of the description of that name, unless something is at that path; else the path as it is."""
    name = os.fspath(path)
    return name if os.path.lexists(name) else os.fspath(shipped().get(name, name))


def no_such(name: str) -> str:
    """What to say of a name that is neither a file nor a description's."""
    close = difflib.get_close_matches(re.sub(r"\.ya?ml$", "", name)[-50:], shipped(), n=1)
    hint = f"did you mean `{close[0]}`? " if close else ""
    return f"no description of that name comes with mandeldask; {hint}`{command('init')}` lists those that do"
