"""Frames -> an H.264 file that any player opens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from mandeldask.errors import ConfigError
from mandeldask.image.files import check_path, replacing
from mandeldask.zoom.texture import Pixels

ENCODER = "libx264"
QUALITY = "18"  # constant rate factor of x264: 18 counts as visually lossless
SUFFIXES = (".mp4", ".mkv", ".mov")


def need_av() -> Any:
    """The module av; ConfigError where it is missing, or was built without the encoder."""
    try:
        import av
    except ImportError as error:
        raise ConfigError(
            f'a film needs PyAV, which cannot be imported here ({error}); pip install "mandeldask[zoom]"'
        ) from None
    if ENCODER not in av.codecs_available:
        raise ConfigError(
            f"a film needs a PyAV with the encoder {ENCODER}, as PyPI's wheels have it; this one lacks it"
        )
    return av


def check_target(path: str | os.PathLike[str]) -> Path:
    """The path of a film to be written; ConfigError where none can be."""
    return check_path(path, "a film", SUFFIXES)


def write(target: Path, frames: Iterator[Pixels], size: tuple[int, int], rate: Fraction, title: str) -> None:
    """Encode frames (RGB, shape (height, width, 3)) as H.264, yuv420p, BT.709; the film appears whole or not at all.

    Raises
    ------
    StoreError
        The disk is full.
    """
    av = need_av()
    options = {"movflags": "+faststart"}
    with replacing(target) as partial, av.open(os.fspath(partial), "w", options=options) as container:
        container.metadata["title"] = title
        container.metadata["encoded_by"] = "mandeldask"
        stream = container.add_stream(ENCODER, rate=rate, options={"crf": QUALITY})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # 16 to 235
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", src_colorspace="ITU709", dst_colorspace="ITU709")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
