"""PNG as a stream. Rows come in bands, so that a picture may outgrow memory.

Source: PNG specification, third edition, https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.image.colour import Colour
from mandeldask.image.files import replacing_file

Pixels = NDArray[np.uint8]  # (rows, columns) of palette indices, or (rows, columns, 3) of sRGB
Progress = Callable[[int, int], object]  # is told pixels done, and all of them

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PALETTE, TRUECOLOUR = 3, 2
NONE, UP = 0, 2  # row filters: nothing, or the row above, is subtracted before compression
LEVEL = 6  # of zlib
SIDE_LIMIT = 2**31 - 1


class Raster(Protocol):
    """A picture as the writers of files take it: its rows and columns, palette, and rows from the top down."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def palette(self) -> list[Colour] | None: ...
    def bands(self) -> Iterator[Pixels]: ...


@dataclass
class PixelCount:
    """Tells how many pixels were handed to a writer, of all in the levels of a picture."""

    levels: Sequence[Raster]
    progress: Progress | None = None
    done: int = 0

    def over(self, bands: Iterable[Pixels]) -> Iterator[Pixels]:
        total = sum(math.prod(level.shape) for level in self.levels)
        for band in bands:
            self.done += band.shape[0] * band.shape[1]
            if self.progress:
                self.progress(self.done, total)
            yield band


def write_png(target: Path, levels: Sequence[Raster], text: str, progress: Progress | None = None) -> None:
    """Write a picture, the first of its levels; ConfigError where it is too large for a PNG."""
    picture = levels[0]
    if max(picture.shape) > SIDE_LIMIT:
        raise ConfigError(f"a PNG has at most {SIDE_LIMIT} pixels a side; got {max(picture.shape)}: give a size")
    with replacing_file(target) as file:
        bands = PixelCount([picture], progress).over(picture.bands())
        encode(file, picture.shape, bands, picture.palette, texts(text))


def texts(description: str) -> dict[str, str]:
    """What a PNG says of itself."""
    return {"Software": "mandeldask"} | ({"Description": description} if description else {})


def encode(
    file: BinaryIO,
    shape: tuple[int, int],
    bands: Iterable[Pixels],
    palette: list[Colour] | None = None,
    texts: dict[str, str] | None = None,
) -> None:
    """Write bands of rows as one PNG: indices of the `palette`, sRGB without one."""
    kind = TRUECOLOUR if palette is None else PALETTE
    file.write(SIGNATURE)
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], 8, kind, 0, 0, 0))
    if palette is not None:
        _chunk(file, b"PLTE", bytes(np.array(palette, np.uint8)))
    for key, text in (texts or {}).items():
        _chunk(file, b"tEXt", f"{key}\0".encode() + text.replace("\0", " ").encode("latin-1", "replace"))
    deflate = zlib.compressobj(LEVEL)
    above = np.zeros(shape[1] * 3, np.uint8)
    for band in bands:
        rows = band.reshape(len(band), -1)
        filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
        if palette is None:
            filtered[:, 0] = UP
            np.subtract(rows, np.concatenate([above[np.newaxis], rows[:-1]]), out=filtered[:, 1:])
            above = rows[-1].copy()
        else:
            filtered[:, 0] = NONE
            filtered[:, 1:] = rows
        _chunk(file, b"IDAT", deflate.compress(filtered.data))
    _chunk(file, b"IDAT", deflate.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    if data or kind != b"IDAT":
        file.write(struct.pack(">I", len(data)) + kind)
        file.write(data)
        file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
