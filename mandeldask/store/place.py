"""Where a store's bytes lie: keys and values, each value whole or not there at all.

A place is a small value that travels to the workers. `place_of` gives the one that a path or a URL stands for.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mandeldask.errors import StoreError
from mandeldask.store.objects import Objects, objects_of

PARTIAL = re.compile(r"[^/]*\.[0-9a-f]{32}\.partial")  # what a writer that was killed leaves, zarr's and ours


class Place(Protocol):
    """A folder or a bucket's prefix. Keys are made by this package of its own numbers and names: never from input."""

    @property
    def url(self) -> str:
        """The absolute path or the URL: what a person types, and another process opens."""
        ...

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes | None:
        """The value, or `size` bytes from `start`, counted from its end where negative; None where no such key is."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Write the value; it appears at once and whole, or not at all."""
        ...

    def create(self, key: str, value: bytes) -> bool:
        """As `put`, where nothing is; False where something is."""
        ...

    def delete(self, key: str) -> None:
        """Remove a value; nothing where none is."""
        ...

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """The keys below a prefix, each as it goes on after `prefix/`, and the bytes of its value."""
        ...

    def names(self) -> list[str]:
        """What lies at the top: files and folders; [] where nothing is."""
        ...

    def remove(self) -> None:
        """Remove everything."""
        ...

    def sweep(self, older: float) -> int:
        """Remove the partial files that writers who were killed left before Unix time `older`; their bytes."""
        ...

    def free(self) -> int | None:
        """Bytes that are free; None where that cannot be known."""
        ...

    def zarr(self, read_only: bool = True) -> Any:
        """The place as a store of zarr's."""
        ...

    def above(self) -> Sequence[Place]:
        """The places that this one lies in, the nearest first."""
        ...


AnyPath = str | os.PathLike[str] | Place


@dataclass(frozen=True)
class Folder:
    """A folder of a file system."""

    url: str

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes | None:
        path = self._path(key)
        try:
            # a pipe is not waited for, and a symbolic link at the end not followed: neither is a value
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO):
                return None
            raise
        with file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return None
            if start:
                file.seek(start if start > 0 else max(0, status.st_size + start))
            return file.read() if size is None else file.read(size)

    def put(self, key: str, value: bytes) -> None:
        path = self._path(key)
        partial = self._write(path, value, self.url)
        try:
            os.replace(partial, path)
        except OSError:
            _discard(partial)
            raise

    def create(self, key: str, value: bytes) -> bool:
        path = os.path.join(self.url, key)
        if os.path.lexists(path):
            return False
        partial = self._write(path, value, "/")
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            os.replace(partial, path)
            return True
        finally:
            _discard(partial)
        return True

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.remove(self._path(key))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        return _walk(os.path.dirname(self._path(f"{prefix}/any")), "")

    def names(self) -> list[str]:
        return sorted(os.listdir(self.url)) if os.path.isdir(self.url) else []

    def remove(self) -> None:
        # renamed first: an interrupted removal leaves no half store behind
        path = os.path.realpath(self.url)  # a symbolic link stays, and leads to the new store
        doomed = f"{path}.removed-{uuid.uuid4().hex[:8]}"
        os.rename(path, doomed)
        shutil.rmtree(doomed)

    def sweep(self, older: float) -> int:
        swept = 0
        for folder, _, files in os.walk(self.url):
            for name in files:
                path = os.path.join(folder, name)
                if PARTIAL.fullmatch(name):
                    with suppress(FileNotFoundError):
                        status = os.stat(path)
                        if status.st_mtime < older:
                            os.remove(path)
                            swept += status.st_size
        return swept

    def free(self) -> int | None:
        path = Path(self.url)
        with suppress(OSError):
            return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
        return None

    def zarr(self, read_only: bool = True) -> Any:
        from zarr.storage import LocalStore  # as in `objects`: what only some need is imported where they need it

        return LocalStore(self.url, read_only=read_only)

    def _path(self, key: str) -> str:
        """The file of a key. A store may lie behind a symbolic link, but none within it may lead out of it."""
        path, parts = self.url, key.split("/")
        for part in parts[:-1]:
            path = os.path.join(path, part)
            if os.path.islink(path):
                raise StoreError(
                    f"{self.url} has a symbolic link on the way to {key}: put the folder itself in its place"
                )
        return os.path.join(path, parts[-1])

    def above(self) -> list[Folder]:
        return [Folder(str(path)) for path in Path(self.url).parents]

    def _write(self, path: str, value: bytes, above: str) -> str:
        """Write a partial file; folders are made only below one that is there: a store that was removed stays so."""
        partial = f"{path}.{uuid.uuid4().hex}.partial"
        try:
            folder = os.path.realpath(os.path.dirname(path))  # a store may lie behind a symbolic link
            if not os.path.isdir(folder) and os.path.isdir(above):
                os.makedirs(folder, exist_ok=True)
            with open(partial, "xb", buffering=0) as file:
                rest = memoryview(value)
                while rest:  # a disk that fills up takes a part
                    rest = rest[file.write(rest) :]
        except OSError:
            _discard(partial)
            raise
        return partial


def place_of(path: AnyPath) -> Place:
    """The place that a path or a URL stands for; a place is itself.

    Raises
    ------
    StoreError
        A URL of a kind that is not known, or what can be no path.
    """
    if isinstance(path, Folder | Objects):
        return path
    text = os.fspath(path)  # type: ignore[arg-type]  # there are no other places
    if "://" in text:
        return objects_of(text)
    text = os.path.expanduser(text)
    if re.match("[a-zA-Z][a-zA-Z0-9+.-]+:/", text):
        raise StoreError(f"a URL is given as text, SCHEME://BUCKET/PREFIX: a Path has lost a slash of it; got {text}")
    if not text or "\0" in text or any(len(os.fsencode(part)) > 255 for part in Path(text).parts):
        raise StoreError(f"a store needs a path; got {text!r}")
    return Folder(os.path.abspath(text))


def _discard(path: str) -> None:
    with suppress(OSError):
        os.remove(path)


def _walk(folder: str, start: str) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{start}{entry.name}/")
        else:  # a symbolic link or a pipe holds nothing
            with suppress(FileNotFoundError):
                file = entry.is_file(follow_symlinks=False)
                yield f"{start}{entry.name}", entry.stat(follow_symlinks=False).st_size if file else 0
