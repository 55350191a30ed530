"""The file that a picture goes to: its name, and that it appears whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mandeldask.errors import ConfigError, StoreError

ENDINGS = (".png", ".tif", ".tiff", ".dzi")


def check_path(path: str | os.PathLike[str], what: str = "a picture", endings: Sequence[str] = ENDINGS) -> Path:
    """The path of a picture, or of another file, to be written; ConfigError where it cannot be."""
    target = Path(path)
    if target.suffix.lower() not in endings:
        raise ConfigError(f"{what}'s name must end in {', '.join(endings)}; got {target}")
    if os.path.isdir(target):
        raise ConfigError(f"{what} must be a file; {target} is a directory")
    if not os.path.isdir(target.parent):
        raise ConfigError(f"there is no directory {target.parent} to write {target.name} in: make it first")
    return target


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether mandeldask drew this picture. OSError where it cannot be read."""
    with open(path, "rb") as file:
        start = file.read(4096)  # of a PNG: after the header and the palette
    return b"tEXtSoftware\0mandeldask" in start or b"<!-- mandeldask" in start


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target`, which takes its place at the end. Nothing is left there if anything fails.

    Raises
    ------
    StoreError
        The disk is full.
    ConfigError
        Any other reason why the file cannot be written.
    """
    partial = target.with_name(f".mandeldask-{secrets.token_hex(6)}.partial{target.suffix}")
    try:
        yield partial
        os.replace(partial, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"the disk is full: {target} was not written. Free space or give another path") from error
        reason = error.strerror or error
        raise ConfigError(f"cannot write {target}: {reason}. Give a path that can be written") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # a folder
        with suppress(OSError):  # a read-only file system says so even of a file that is not there
            partial.unlink()


@contextmanager
def replacing_file(target: Path) -> Iterator[BinaryIO]:
    """As `replacing`, opened for writing."""
    with replacing(target) as partial, open(partial, "xb") as file:
        yield file


@contextmanager
def replacing_with_folder(target: Path, folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """As `replacing_file`, with a folder that belongs to the file."""
    if folder.exists() and not (target.exists() and is_ours(target)):
        raise ConfigError(f"{folder} is there already, from elsewhere: give another name")
    with replacing_file(target) as file, replacing(folder) as partial:
        partial.mkdir()
        yield file, partial
        if folder.exists():
            shutil.rmtree(folder)
