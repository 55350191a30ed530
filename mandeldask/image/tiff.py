"""A pyramidal BigTIFF, tiled, from the field's levels: what QGIS, QuPath, libvips and Bio-Formats open."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.image.files import replace
from mandeldask.image.pyramid import pyramid, strips

if TYPE_CHECKING:
    from mandeldask.image.drawing import Picture

TILE = 512  # pixels a side


def write_tiff(picture: Picture, target: Path, progress: Callable[[int, int], object] | None = None) -> None:
    """Write a picture and its halves, until one tile holds it; see `Picture.save`."""
    try:
        tifffile: Any = importlib.import_module("tifffile")
    except ImportError:
        raise ConfigError("TIFF needs tifffile: pip install 'mandeldask[pictures]', or write a .png") from None
    levels = pyramid(picture, TILE)
    total, done = sum(level.shape[0] * level.shape[1] for level in levels), 0

    def tell(pixels: int) -> None:
        nonlocal done
        done += pixels
        if progress:
            progress(done, total)

    def write(file: BinaryIO) -> None:
        with tifffile.TiffWriter(file, bigtiff=True) as tiff:
            for i, level in enumerate(levels):
                tiff.write(
                    _tiles(level, tell),
                    shape=level.shape if level.palette else (*level.shape, 3),
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    compression="zlib",
                    maxworkers=1,
                    photometric="palette" if level.palette else "rgb",
                    colormap=np.array(level.palette, np.uint16).T * 257 if level.palette else None,
                    description=level.source.text if not i else None,
                    software="mandeldask",
                    metadata=None,
                    **({"subifds": len(levels) - 1} if not i else {"subfiletype": 1}),
                )

    replace(target, write)


def _tiles(picture: Picture, tell: Callable[[int], None]) -> Iterator[NDArray[np.uint8]]:
    """Tiles row by row; those at the right and lower edge are filled up."""
    for strip in strips(picture, TILE):
        for x in range(0, strip.shape[1], TILE):
            part = strip[:, x : x + TILE]
            tile = np.zeros((TILE, TILE, *strip.shape[2:]), np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            tell(part.shape[0] * part.shape[1])  # now: nobody asks for more after the last
            yield tile
