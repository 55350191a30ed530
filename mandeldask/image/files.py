"""Pictures as files: PNG, and pyramids of tiles, each level half the size of the last, as BigTIFF and Deep Zoom.

Rows come in bands, so that a picture may outgrow memory. QGIS, QuPath, libvips and Bio-Formats open the BigTIFF;
OpenSeadragon shows the Deep Zoom image from any web server.

Sources: PNG specification, third edition, https://www.w3.org/TR/png-3/
https://learn.microsoft.com/en-us/previous-versions/windows/silverlight/dotnet-windows-silverlight/cc645077(v=vs.95)
"""

from __future__ import annotations

import errno
import importlib
import math
import os
import secrets
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError, StoreError
from mandeldask.image.colour import Colour
from mandeldask.text import pip_install
from mandeldask.view import MAX_SIDE

Pixels = NDArray[np.uint8]  # (rows, columns) of palette indices, or (rows, columns, 3) of sRGB
Progress = Callable[[int, int], object]  # is told pixels done, and all of them
Count = Callable[[Iterable[Pixels]], Iterator[Pixels]]  # hands bands or tiles on, and tells of them

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PALETTE, TRUECOLOUR = 3, 2
NONE, UP = 0, 2  # row filters: nothing, or the row above, is subtracted before compression
LEVEL = 6  # of zlib
TILE = 512  # pixels a side, of a pyramid
SMALLEST = {".png": MAX_SIDE, ".tif": TILE, ".tiff": TILE, ".dzi": 1}  # side of the last level, by the name's ending


class _Raster(Protocol):
    """A picture as it is written: its rows and columns, palette, and rows from the top down."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def palette(self) -> list[Colour] | None: ...
    def bands(self) -> Iterator[Pixels]: ...
    def pyramid(self, side: int) -> Sequence[_Raster]: ...


def check_path(path: str | os.PathLike[str], what: str = "a picture", endings: Iterable[str] = SMALLEST) -> Path:
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

    StoreError where the disk is full, ConfigError for any other reason why the file cannot be written.
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


def write(path: str | os.PathLike[str], picture: _Raster, text: str, progress: Progress | None = None) -> None:
    """Write a picture as its name ends; `text` describes it. ConfigError, StoreError: as for `Picture.save`."""
    target = check_path(path)
    ending = target.suffix.lower()
    levels = picture.pyramid(SMALLEST[ending])
    count = _counter(sum(math.prod(level.shape) for level in levels), progress)
    writer = {".png": _write_png, ".dzi": _write_deep_zoom}.get(ending, _write_tiff)
    with replacing(target) as partial, open(partial, "xb") as file:
        writer(file, target, levels, text, count)


def _counter(total: int, progress: Progress | None) -> Count:
    done = 0

    def count(bands: Iterable[Pixels]) -> Iterator[Pixels]:
        nonlocal done
        for band in bands:
            done += band.shape[0] * band.shape[1]
            if progress:
                progress(done, total)
            yield band

    return count


def _write_png(file: BinaryIO, _: Path, levels: Sequence[_Raster], text: str, count: Count) -> None:
    encode(file, levels[0].shape, count(levels[0].bands()), levels[0].palette, text)


def encode(
    file: BinaryIO,
    shape: tuple[int, int],
    bands: Iterable[Pixels],
    palette: list[Colour] | None = None,
    text: str | None = None,
) -> None:
    """Write bands of rows as one PNG: indices of the `palette`, sRGB without one. `text` describes it; None: a part."""
    kind, row_filter = (TRUECOLOUR, UP) if palette is None else (PALETTE, NONE)
    file.write(SIGNATURE)
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], 8, kind, 0, 0, 0))
    if palette is not None:
        _chunk(file, b"PLTE", bytes(np.array(palette, np.uint8)))
    if text is not None:
        _chunk(file, b"tEXt", b"Software\0mandeldask")
    if text:
        _chunk(file, b"tEXt", b"Description\0" + text.replace("\0", " ").encode("latin-1", "replace"))
    deflate = zlib.compressobj(LEVEL)
    above = np.zeros((1, shape[1] * 3), np.uint8)
    for band in bands:
        rows = band.reshape(len(band), -1)
        if palette is None:
            rows, above = rows - np.concatenate([above, rows[:-1]]), rows[-1:]
        _chunk(file, b"IDAT", deflate.compress(np.insert(rows, 0, row_filter, axis=1).data))
    _chunk(file, b"IDAT", deflate.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    if data or kind != b"IDAT":
        file.write(struct.pack(">I", len(data)) + kind)
        file.write(data)
        file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _write_tiff(file: BinaryIO, _: Path, levels: Sequence[_Raster], text: str, count: Count) -> None:
    """The levels of a picture, the largest first, as one tiled BigTIFF."""
    try:
        tifffile: Any = importlib.import_module("tifffile")
    except ImportError:
        raise ConfigError(f"TIFF needs tifffile: {pip_install('pictures')}, or write a .png") from None
    with tifffile.TiffWriter(file, bigtiff=True) as tiff:
        for i, level in enumerate(levels):
            tiff.write(
                map(_filled, count(_tiles(level))),
                shape=level.shape if level.palette else (*level.shape, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="zlib",
                maxworkers=1,
                photometric="palette" if level.palette else "rgb",
                colormap=np.array(level.palette, np.uint16).T * 257 if level.palette else None,
                description=None if i else text,
                software="mandeldask",
                metadata=None,
                **({"subfiletype": 1} if i else {"subifds": len(levels) - 1}),
            )


def _filled(tile: Pixels) -> Pixels:
    """A tile of full size."""
    return np.pad(tile, [(0, side - n) for side, n in zip((TILE, TILE, 3), tile.shape, strict=False)])


def _write_deep_zoom(file: BinaryIO, target: Path, levels: Sequence[_Raster], text: str, count: Count) -> None:
    """NAME.dzi, and the folder NAME_files with PNG tiles of each level. The last level is one pixel."""
    folder = target.with_name(f"{target.stem}_files")
    if folder.exists() and not (target.exists() and is_ours(target)):
        raise ConfigError(f"{folder} is there already, from elsewhere: give another name")
    with replacing(folder) as partial:
        for number, level in enumerate(reversed(levels)):
            (partial / str(number)).mkdir(parents=True)
            across = -(-level.shape[1] // TILE)
            for i, tile in enumerate(count(_tiles(level))):
                with open(partial / f"{number}/{i % across}_{i // across}.png", "wb") as out:
                    encode(out, tile.shape[:2], [tile], level.palette)
        rows, columns = levels[0].shape
        file.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<!-- mandeldask: {escape(text).replace('--', '- -')} -->\n"
            f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="png" Overlap="0" TileSize="{TILE}">\n'
            f'  <Size Width="{columns}" Height="{rows}"/>\n'
            "</Image>\n".encode()
        )
        if folder.exists():
            shutil.rmtree(folder)


def _tiles(picture: _Raster) -> Iterator[Pixels]:
    """The tiles of a picture row by row; those at the right and lower edge may be smaller."""
    for strip in _strips(picture.bands()):
        for x in range(0, strip.shape[1], TILE):
            yield strip[:, x : x + TILE]


def _strips(bands: Iterator[Pixels]) -> Iterator[Pixels]:
    """Bands cut anew: `TILE` rows each, and the last with what is left."""
    rest = next(bands)
    for band in bands:
        while len(rest) >= TILE:
            yield rest[:TILE]
            rest = rest[TILE:]
        rest = np.concatenate([rest, band])
    for y in range(0, len(rest), TILE):
        yield rest[y : y + TILE]
