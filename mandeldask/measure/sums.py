"""The result file: a line of parameters, then a line for each row of blocks that was counted; JSON each."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from mandeldask.errors import ConfigError, StoreError

Row = tuple[int, int]  # grid, row of blocks


class Sums:
    """Counts by grid and row of blocks. A line is written once a row is counted, and never changed."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        self.file = file
        self.counts: dict[Row, list[int]] = {}

    def add(self, row: Row, counts: list[int]) -> None:
        self.counts[row] = counts
        self._write({"grid": row[0], "row": row[1], "counts": counts})

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.file:
            self.file.write(json.dumps(line).encode() + b"\n")
            self.file.flush()

    def begin(self, parameters: Mapping[str, Any], path: str) -> None:
        """Read what the file holds, or write the first line of a new one.

        ConfigError where it is of other parameters, or no such file; it stays as it is.
        """
        assert self.file is not None
        lines = self.file.read().split(b"\n")
        try:
            if not lines[:-1] and not json.dumps(dict(parameters)).encode().startswith(lines[-1]):
                raise ValueError("no line of ours")  # noqa: TRY301
            first, *rows = [json.loads(line) for line in lines[:-1]] or [dict(parameters)]
            other = {key: first.get(key) for key in parameters if first.get(key) != parameters[key]}
            self.counts = {(int(line["grid"]), int(line["row"])): [int(n) for n in line["counts"]] for line in rows}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ConfigError(f"{path} holds no counts of `mandeldask area`: name another file with --out") from None
        if other:
            name, value = next(iter(other.items()))
            raise ConfigError(
                f"{path} holds counts of {name} {value}, not {parameters[name]}: "
                f"give the same parameters to go on with it, or another --out"
            )
        self.file.truncate(self.file.tell() - len(lines[-1]))  # a line that was cut off
        self.file.seek(0, os.SEEK_END)
        if not self.file.tell():
            self._write(parameters)


@contextmanager
def kept(path: str | os.PathLike[str] | None, parameters: Mapping[str, Any]) -> Iterator[Sums]:
    """The sums in a file; in memory alone where none is named. StoreError while another process counts into it."""
    if path is None:
        yield Sums()
        return
    with open(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another process counts into {os.fspath(path)}: wait for it, or name another --out"
            ) from None
        file.seek(0)
        sums = Sums(file)
        sums.begin(parameters, os.fspath(path))
        yield sums
