"""Fields -> colours -> pictures: PNG, pyramidal TIFF and Deep Zoom of any size, and what a notebook shows."""

from __future__ import annotations

from mandeldask.image.colour import GREY, SCALES, Scale, ToIndex, gradient, palette, palette_index
from mandeldask.image.files import check_path, is_ours
from mandeldask.image.options import SHADES, PictureOptions
from mandeldask.image.render import Picture, picture

__all__ = [
    "GREY",
    "SCALES",
    "SHADES",
    "Picture",
    "PictureOptions",
    "Scale",
    "ToIndex",
    "check_path",
    "gradient",
    "is_ours",
    "palette",
    "palette_index",
    "picture",
]
