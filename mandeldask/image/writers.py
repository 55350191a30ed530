"""Pictures as files: PNG, and pyramids of tiles, each level half the size of the last, as BigTIFF and Deep Zoom.

Rows come in bands, so that a picture may outgrow memory. QGIS, QuPath, libvips and Bio-Formats open the BigTIFF;
OpenSeadragon shows the Deep Zoom image from any web server.

Sources: PNG specification, third edition, https://www.w3.org/TR/png-3/
https://learn.microsoft.com/en-us/previous-versions/windows/silverlight/dotnet-windows-silverlight/cc645077(v=vs.95)
"""

from __future__ import annotations

import importlib
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.image.colour import Colour
from mandeldask.image.files import replacing_file, replacing_with_folder

Pixels = NDArray[np.uint8]  # (rows, columns) of palette indices, or (rows, columns, 3) of sRGB
Progress = Callable[[int, int], object]  # is told pixels done, and all of them

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PALETTE, TRUECOLOUR = 3, 2
NONE, UP = 0, 2  # row filters: nothing, or the row above, is subtracted before compression
LEVEL = 6  # of zlib
SIDE_LIMIT = 2**31 - 1
TILE = 512  # pixels a side, of a pyramid


class Raster(Protocol):
    """A picture as the writers of files take it: its rows and columns, palette, and rows from the top down."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def palette(self) -> list[Colour] | None: ...
    def bands(self) -> Iterator[Pixels]: ...


@dataclass
class _PixelCount:
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
        bands = _PixelCount([picture], progress).over(picture.bands())
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


def write_tiff(target: Path, levels: Sequence[Raster], text: str, progress: Progress | None = None) -> None:
    """Write the levels of a picture, the largest first, as one tiled BigTIFF.

    Raises
    ------
    ConfigError
        tifffile is not installed.
    """
    try:
        tifffile: Any = importlib.import_module("tifffile")
    except ImportError:
        raise ConfigError("TIFF needs tifffile: pip install 'mandeldask[pictures]', or write a .png") from None
    count = _PixelCount(levels, progress)
    with replacing_file(target) as file, tifffile.TiffWriter(file, bigtiff=True) as tiff:
        for i, level in enumerate(levels):
            tiff.write(
                _full_tiles(count.over(_tiles(level))),
                shape=level.shape if level.palette else (*level.shape, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="zlib",
                maxworkers=1,
                photometric="palette" if level.palette else "rgb",
                colormap=np.array(level.palette, np.uint16).T * 257 if level.palette else None,
                description=text if not i else None,
                software="mandeldask",
                metadata=None,
                **({"subifds": len(levels) - 1} if not i else {"subfiletype": 1}),
            )


def write_deep_zoom(target: Path, levels: Sequence[Raster], text: str, progress: Progress | None = None) -> None:
    """Write NAME.dzi and the folder NAME_files with PNG tiles of each level. The last level is one pixel."""
    count = _PixelCount(levels, progress)
    with replacing_with_folder(target, target.with_name(f"{target.stem}_files")) as (file, folder):
        for number, level in enumerate(reversed(levels)):
            inside = folder / str(number)
            inside.mkdir()
            across = -(-level.shape[1] // TILE)
            for i, tile in enumerate(count.over(_tiles(level))):
                with open(inside / f"{i % across}_{i // across}.png", "wb") as out:
                    encode(out, tile.shape[:2], [tile], level.palette)
        _write_description(file, levels[0].shape, text)


def _tiles(picture: Raster) -> Iterator[Pixels]:
    """The tiles of a picture row by row; those at the right and lower edge may be smaller."""
    for strip in _strips(picture.bands(), TILE):
        for x in range(0, strip.shape[1], TILE):
            yield strip[:, x : x + TILE]


def _strips(bands: Iterable[Pixels], rows: int) -> Iterator[Pixels]:
    """Bands cut anew: `rows` rows each, and the last with what is left."""
    kept: list[Pixels] = []
    height = 0
    for band in bands:
        start = 0
        while start < len(band):
            part = band[start : start + rows - height]
            kept.append(part)
            height += len(part)
            start += len(part)
            if height == rows:
                yield np.concatenate(kept)
                kept, height = [], 0
    if kept:
        yield np.concatenate(kept)


def _full_tiles(cut: Iterable[Pixels]) -> Iterator[Pixels]:
    """The tiles, filled up to their full size."""
    for part in cut:
        tile = np.zeros((TILE, TILE, *part.shape[2:]), np.uint8)
        tile[: part.shape[0], : part.shape[1]] = part
        yield tile


def _write_description(file: BinaryIO, shape: tuple[int, int], text: str) -> None:
    text = escape(text).replace("--", "- -")
    file.write(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<!-- mandeldask: {text} -->\n"
        f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="png" Overlap="0" TileSize="{TILE}">\n'
        f'  <Size Width="{shape[1]}" Height="{shape[0]}"/>\n'
        "</Image>\n".encode()
    )
