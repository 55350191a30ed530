"""Where a store lies: a folder, or a bucket's prefix, as a small value that travels to the workers.

Zarr's own stores read and write there. What is added here is what they lack: sizes, free bytes, removal, leftovers.
"""

from __future__ import annotations

import atexit
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from stat import S_ISREG
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import iothread, loop, sync
from zarr.storage import LocalStore

from mandeldask.errors import StoreError, check_type
from mandeldask.store.bucket import Bucket, UnsupportedError, checked_url

ENDING = r"\.[0-9a-f]{32}\.partial"  # of a temporary file of ours, or of zarr's LocalStore: a killed writer leaves it
PARTIAL = re.compile(rf"[^/]*{ENDING}")
SYNCS = 8  # at a time: a file system commits them together; three shards in turn take 6 ms, together 2
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # a file system without hard links
NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # one that cannot sync a folder
REMOVALS = 3
STOP_SECONDS = 10.0
OPENED = "/proc/self/fd"  # Linux: the files and folders that this process has open
MAX_METADATA = 2**22  # bytes of a zarr.json: with consolidated metadata, the deepest pyramid's has a tenth of it


@atexit.register
def _stop_zarr() -> None:
    """Wait for zarr's thread: zarr itself waits 0.2 s, which on a busy machine ends in a traceback (zarr 3.4)."""
    if loop[0] and iothread[0]:
        loop[0].call_soon_threadsafe(loop[0].stop)
        iothread[0].join(STOP_SECONDS)


@dataclass(frozen=True)
class Place:
    """A folder of a file system, or a bucket's prefix. Each process finds the credentials of a bucket by itself.

    `url` is the absolute path, or SCHEME://BUCKET/PREFIX. Keys are made by this package of its own names and numbers.
    """

    url: str

    def __fspath__(self) -> str:
        return self.url

    @property
    def is_folder(self) -> bool:
        return "://" not in self.url

    def zarr(self) -> Any:
        """Zarr's store, to read."""
        return LocalStore(self.url, read_only=True) if self.is_folder else self._bucket

    @property
    def _bucket(self) -> Bucket:
        return Bucket(self.url)

    def get(self, key: str) -> bytes | None:
        """A small value; None where no such key is. One that is larger than any metadata reads as empty."""
        size = self.size(key)
        if not size or size > MAX_METADATA:
            return None if size is None else b""
        if self.is_folder:
            return Path(self, key).read_bytes()
        value = sync(self.zarr().get(key, default_buffer_prototype()))
        return value.to_bytes() if value else b""

    @contextmanager
    def pinned(self) -> Iterator[Place]:
        """A place that stays the folder that it is now, whatever takes its name meanwhile.

        FileNotFoundError where there is no folder. A bucket has no such handle, nor has a system without /proc.
        """
        if not self.is_folder:
            yield self
            return
        opened = os.open(self.url, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield type(self)(f"{OPENED}/{opened}") if os.path.isdir(OPENED) else self
        except OSError as error:  # named as the user knows it
            if isinstance(error.filename, str):
                error.filename = error.filename.replace(f"{OPENED}/{opened}", self.url, 1)
            raise
        finally:
            os.close(opened)

    def put(self, key: str, value: bytes) -> None:
        """Write a value; it appears at once and whole, or not at all."""
        self.put_all([(key, value)])

    def put_all(self, values: Iterable[tuple[str, Any]]) -> None:
        """Write values in their order, each as `put`; on return they outlast a power cut.

        FileNotFoundError where the store was moved or removed: it is not made again by what is written.
        """
        if self.is_folder:
            with self.pinned() as here:
                _write(here.url, values)
            return
        for key, value in values:
            sync(self._bucket.with_read_only().set(key, _buffer(value)))

    def create(self, key: str, value: bytes) -> None:
        """As `put`, but leave alone what is there: of several who create a key, one does."""
        if self.is_folder:  # may be a symbolic link that leads to a store which was just removed
            _write(os.path.realpath(self.url), [(key, value)], exclusive=True)
            return
        try:
            sync(self._bucket.with_read_only().set_if_not_exists(key, _buffer(value)))
        except UnsupportedError:
            if self.size(key) is None:  # no such guarantee here: the last of several wins
                self.put(key, value)

    def delete(self, key: str) -> None:
        """Remove a value; nothing where none is."""
        sync(self.zarr().with_read_only().delete(key))

    def size(self, key: str) -> int | None:
        """Bytes of a value, 0 for what is no regular file; None where none is."""
        stamp = self.stamp(key)
        return stamp[0] if stamp else None

    def stamp(self, key: str) -> tuple[int, ...] | None:
        """The size and what else changes when a value is replaced; None where none is."""
        if not self.is_folder:
            return self._bucket.stamp(key)
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.lstat(os.path.join(self.url, key))
            size = status.st_size if S_ISREG(status.st_mode) else 0
            return size, status.st_mtime_ns, status.st_ino
        return None

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """The keys below a prefix, each as it goes on after `prefix/`, with the bytes of its value.

        Raises StoreError where a folder on the way is a symbolic link: it may lead to another person's files.
        """
        if not self.is_folder:
            return self._bucket.sizes(prefix)
        path = self.url
        for part in filter(None, prefix.split("/")):
            path = os.path.join(path, part)
            if os.path.islink(path):
                raise StoreError(f"{path} is a symbolic link: put the folder itself in its place")
        return _walk(path, "")

    def names(self) -> list[str]:
        """What lies at the top: files and folders; [] where nothing is."""
        if self.is_folder:
            return sorted(os.listdir(self.url)) if os.path.isdir(self.url) else []
        return self._bucket.names()

    def remove(self) -> None:
        """Remove everything: a folder is renamed first, a bucket's root goes last, so that no half store is left."""
        if not self.is_folder:
            self._bucket.remove()
            return
        path = os.path.realpath(self.url)  # a symbolic link to the store stays
        doomed = f"{path}.removed-{uuid.uuid4().hex}"  # what nobody types
        os.rename(path, doomed)
        for _ in range(REMOVALS):  # a late worker may write there meanwhile
            shutil.rmtree(doomed, ignore_errors=True)
        if os.path.exists(doomed):
            shutil.rmtree(doomed)

    def sweep_removed(self) -> Iterator[str]:
        """Remove the folders that `remove` had renamed when it was killed; each is told before it goes."""
        path = Path(os.path.realpath(self.url))
        left = re.compile(re.escape(path.name) + r"\.removed-[0-9a-f]{32}")
        for doomed in (p for p in path.parent.iterdir() if left.fullmatch(p.name)) if self.is_folder else ():
            yield str(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self, older: float) -> int:
        """Remove temporary files that killed writers left before Unix time `older`; the bytes of it.

        Empty files, as a power cut leaves them, links and pipes in the place of shards go too.
        """
        swept = 0
        for where, _, files in os.walk(self.url) if self.is_folder else ():
            shards = re.search("/c/[0-9]+$", where)
            for path in (os.path.join(where, name) for name in files):
                with suppress(FileNotFoundError):
                    status = os.lstat(path)
                    empty = shards and not (S_ISREG(status.st_mode) and status.st_size)
                    if empty or (PARTIAL.fullmatch(os.path.basename(path)) and status.st_mtime < older):
                        os.remove(path)
                        swept += status.st_size
        return swept

    def free(self) -> int | None:
        """Bytes that are free; None where that cannot be known."""
        with suppress(OSError):
            if self.is_folder:
                return shutil.disk_usage(next(p for p in (self, *self.above()) if os.path.exists(p))).free
        return None

    def above(self) -> list[Place]:
        """The places that this one lies in, the nearest first."""
        if self.is_folder:
            return [Place(str(path)) for path in Path(self).parents]
        parts = self.url.split("/")
        return [Place("/".join(parts[:n])) for n in range(len(parts) - 1, 2, -1)]


AnyPath = str | os.PathLike[str]


def place_of(path: AnyPath) -> Place:
    """The place that a path or a URL stands for; a place is itself. StoreError for text that can be neither."""
    if isinstance(path, Place):
        return path
    check_type("store", path, str | os.PathLike, "a path or a URL")
    text = os.fspath(path)
    if "://" in text:
        return Place(checked_url(text))
    text = os.path.expanduser(text)
    if re.match("[a-zA-Z][a-zA-Z0-9+.-]+:/", text):
        raise StoreError(f"a URL is given as text, SCHEME://BUCKET/PREFIX: a Path has lost a slash of it; got {text}")
    if not text or "\0" in text or any(len(os.fsencode(part)) > 255 for part in Path(text).parts):
        raise StoreError(f"a store needs a path; got {text!r}")
    return Place(os.path.abspath(text))


def _buffer(value: Any) -> Any:
    """What zarr's stores take, of bytes."""
    return default_buffer_prototype().buffer.from_bytes(value)


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


def _write(root: str, values: Iterable[tuple[str, Any]], exclusive: bool = False) -> None:
    """Write files below a folder, in their order: each appears whole, and none before all of them are on the disk.

    On return their names are on the disk too. An `exclusive` file leaves alone what is there. Zarr's LocalStore waits
    for no disk: for half a minute a power cut leaves an empty file of the right name.
    """
    partial: list[tuple[str, str]] = []  # a file, and what it is called until it is whole
    folders: set[str] = set()
    try:
        for key, value in values:
            path = os.path.join(root, key)
            folders |= _made(os.path.dirname(path))
            partial.append((path, f"{path}.{uuid.uuid4().hex}.partial"))
            with open(partial[-1][1], "xb") as file:
                file.write(value)
        _sync(written for _, written in partial)
        for path, written in partial:
            _link(written, path) if exclusive else os.replace(written, path)
            folders.add(os.path.dirname(path))
        _sync(folders)
    finally:
        for _, written in partial:
            with suppress(OSError):  # mostly there is none any more
                os.remove(written)


def _link(written: str, path: str) -> None:
    """Give a file its name, unless another has it."""
    try:
        os.link(written, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if not os.path.lexists(path):  # no such guarantee here: the last of several wins
            os.replace(written, path)


def _made(folder: str) -> set[str]:
    """Make a folder, and those above it that are missing; the folders that have a new one in them."""
    missing = [*takewhile(lambda path: not path.is_dir(), (Path(folder), *Path(folder).parents))]
    os.makedirs(folder, exist_ok=True)
    return {str(path.parent) for path in missing}


def _sync(paths: Iterable[str]) -> None:
    with ThreadPoolExecutor(SYNCS) as pool:
        list(pool.map(_sync_one, paths))


def _sync_one(path: str) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(opened)
