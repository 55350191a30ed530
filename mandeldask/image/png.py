"""PNG as a stream: rows come in bands, so that a picture may outgrow memory.

Source: PNG specification, third edition, https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mandeldask.image.colour import Colour

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PALETTE, TRUECOLOUR = 3, 2
NONE, SUB, UP = 0, 1, 2  # what is taken from a row before it is compressed
LEVEL = 6  # of zlib


def encode(
    file: BinaryIO,
    shape: tuple[int, int],
    bands: Iterable[NDArray[np.uint8]],
    palette: list[Colour] | None = None,
    texts: dict[str, str] | None = None,
) -> None:
    """Write bands of rows, from the top of the picture down, as one PNG.

    `bands` have shape (rows, columns), indices of the `palette`; without one (rows, columns, 3), sRGB.
    """
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
