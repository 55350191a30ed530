"""The file a picture goes to: its name, and that it appears whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mandeldask.errors import ConfigError, MandeldaskError, StoreError

KINDS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".dzi": "Deep Zoom"}


def check_path(path: str | os.PathLike[str]) -> Path:
    """The path of a picture to be written; ConfigError where none can be."""
    target = Path(path)
    if target.suffix.lower() not in KINDS:
        raise ConfigError(f"a picture's name must end in .png, .tif, .tiff or .dzi; got {target}")
    if os.path.isdir(target):
        raise ConfigError(f"a picture must be a file; {target} is a directory")
    if not os.path.isdir(target.parent):
        raise ConfigError(f"there is no directory {target.parent} to write {target.name} in: make it first")
    return target


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Is this a picture that mandeldask drew? OSError where it cannot be read."""
    with open(path, "rb") as file:
        start = file.read(4096)  # of a PNG: after the header and the palette
    return b"tEXtSoftware\0mandeldask" in start or b"<!-- mandeldask" in start


def replace(target: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file beside the target that then takes its place; if anything fails, leave nothing."""
    partial = _partial(target)
    try:
        with open(partial, "xb") as file:
            write(file)
        os.replace(partial, target)
    except OSError as error:
        raise _why(target, error) from error
    finally:
        with suppress(OSError):  # a read-only file system says so even of a file that is not there
            partial.unlink()


def replace_with_folder(target: Path, folder: Path, write: Callable[[BinaryIO, Path], None]) -> None:
    """As `replace`, of a file and a folder that belongs to it."""
    if folder.exists() and not (target.exists() and is_ours(target)):
        raise ConfigError(f"{folder} is there already, from elsewhere: give another name")
    partial = _partial(folder)
    try:
        partial.mkdir()
        replace(target, lambda file: _fill(file, partial, folder, write))
    except OSError as error:
        raise _why(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(file: BinaryIO, partial: Path, folder: Path, write: Callable[[BinaryIO, Path], None]) -> None:
    write(file, partial)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)


def _partial(target: Path) -> Path:
    return target.with_name(f".mandeldask-{secrets.token_hex(6)}.partial")


def _why(target: Path, error: OSError) -> MandeldaskError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"the disk is full: {target} was not written. Free space or give another path")
    return ConfigError(f"cannot write {target}: {error.strerror or error}. Give a path that can be written")
