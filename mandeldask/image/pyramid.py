"""Pictures as pyramids of tiles, each level half the size of the last: BigTIFF and Deep Zoom.

QGIS, QuPath, libvips and Bio-Formats open the BigTIFF. OpenSeadragon shows the Deep Zoom image from any web server:
https://learn.microsoft.com/en-us/previous-versions/windows/silverlight/dotnet-windows-silverlight/cc645077(v=vs.95)
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import escape

import numpy as np

from mandeldask.errors import ConfigError
from mandeldask.image.files import replacing_file, replacing_with_folder
from mandeldask.image.png import PixelCount, Pixels, Progress, Raster, encode

TILE = 512  # pixels a side


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
    count = PixelCount(levels, progress)
    with replacing_file(target) as file, tifffile.TiffWriter(file, bigtiff=True) as tiff:
        for i, level in enumerate(levels):
            tiff.write(
                _full_tiles(count.over(tiles(level))),
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
    count = PixelCount(levels, progress)
    with replacing_with_folder(target, target.with_name(f"{target.stem}_files")) as (file, folder):
        for number, level in enumerate(reversed(levels)):
            inside = folder / str(number)
            inside.mkdir()
            across = -(-level.shape[1] // TILE)
            for i, tile in enumerate(count.over(tiles(level))):
                with open(inside / f"{i % across}_{i // across}.png", "wb") as out:
                    encode(out, tile.shape[:2], [tile], level.palette)
        _write_description(file, levels[0].shape, text)


def tiles(picture: Raster) -> Iterator[Pixels]:
    """The tiles of a picture row by row; those at the right and lower edge may be smaller."""
    for strip in strips(picture.bands(), TILE):
        for x in range(0, strip.shape[1], TILE):
            yield strip[:, x : x + TILE]


def strips(bands: Iterable[Pixels], rows: int) -> Iterator[Pixels]:
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
