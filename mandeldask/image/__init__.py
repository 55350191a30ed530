"""Fields -> colours -> pictures: PNG, pyramidal TIFF and Deep Zoom of any size, and what a notebook shows."""

from __future__ import annotations

from mandeldask.image.colour import GREY, SCALES, PictureOptions, gradient, palette, palette_index
from mandeldask.image.files import Pixels, check_path, is_ours, replacing
from mandeldask.image.render import Picture, averaged, linear, picture, srgb_curve
from mandeldask.image.samples import samples_of

__all__ = [
    "GREY",
    "SCALES",
    "Picture",
    "PictureOptions",
    "Pixels",
    "averaged",
    "check_path",
    "gradient",
    "is_ours",
    "linear",
    "palette",
    "palette_index",
    "picture",
    "replacing",
    "samples_of",
    "srgb_curve",
]
