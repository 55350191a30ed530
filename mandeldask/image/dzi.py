"""Deep Zoom: a small XML file and a folder of tiles, which OpenSeadragon and its like show from any web server.

Source: https://learn.microsoft.com/en-us/previous-versions/windows/silverlight/dotnet-windows-silverlight/cc645077(v=vs.95)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from xml.sax.saxutils import escape

from mandeldask.image import png
from mandeldask.image.files import replace_with_folder
from mandeldask.image.pyramid import pyramid, strips

if TYPE_CHECKING:
    from mandeldask.image.drawing import Picture

TILE = 512  # pixels a side


def write_dzi(picture: Picture, target: Path, progress: Callable[[int, int], object] | None = None) -> None:
    """Write NAME.dzi and the folder NAME_files, PNG tiles of each level down to one pixel; see `Picture.save`."""
    levels = pyramid(picture, 1)
    total, done = sum(level.shape[0] * level.shape[1] for level in levels), 0

    def write(file: BinaryIO, folder: Path) -> None:
        nonlocal done
        for number, level in enumerate(reversed(levels)):
            inside = folder / str(number)
            inside.mkdir()
            for i, strip in enumerate(strips(level, TILE)):
                for j, x in enumerate(range(0, strip.shape[1], TILE)):
                    tile = strip[:, x : x + TILE]
                    with open(inside / f"{j}_{i}.png", "wb") as out:
                        png.encode(out, tile.shape[:2], [tile], level.palette)
                done += strip.shape[0] * strip.shape[1]
                if progress:
                    progress(done, total)
        file.write(_description(picture).encode())

    replace_with_folder(target, target.with_name(f"{target.stem}_files"), write)


def _description(picture: Picture) -> str:
    rows, columns = picture.shape
    text = escape(picture.source.text).replace("--", "- -")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<!-- mandeldask: {text} -->\n"
        f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="png" Overlap="0" TileSize="{TILE}">\n'
        f'  <Size Width="{columns}" Height="{rows}"/>\n'
        "</Image>\n"
    )
