"""Escape times -> colours -> PNG: a palette picture, written in bands, so that it may outgrow memory."""

from __future__ import annotations

import difflib
import errno
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise, product
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError, StoreError

SCALES = ("mix", "log", "equalised", "linear")
COLORMAPS = ("classic", "cividis", "greys", "inferno", "magma", "plasma", "turbo", "viridis")

NOT_COMPUTED, INTERIOR = 0, 255  # palette indices; from 1 to TONES the colours of the map
TONES = 254
GREY = (128, 128, 128)
CLASSIC = np.array(  # position, red, green, blue; linear in between: night, blue, white, gold, embers
    [
        (0, 3, 6, 45),
        (0.3, 24, 82, 177),
        (0.55, 235, 248, 255),
        (0.75, 255, 196, 60),
        (0.9, 220, 95, 10),
        (1, 120, 20, 10),
    ]
)
TOP = 0.999  # of the escaped samples lie below the last colour: a few deep ones would darken all others
PATCHES, PATCH_SIDE = 24, 48  # the scale is laid out for 24 x 24 patches: within 0.02 of the exact histogram

LIMIT = 2**31 - 1  # of a PNG's side, and of max_iter
TABLE_LIMIT = 2**20  # bytes, one a count; beyond, the thresholds are searched
BAND_BYTES, BAND_ROWS = 2**24, 2048  # of palette indices: 512 rows of 32768 columns
BLOCK_SAMPLES = 2**20  # read at a time

Integers = NDArray[np.integer]
Colour = tuple[int, int, int]
ToIndex = Callable[[Integers], NDArray[np.uint8]]


def write_png(
    counts: Any,
    max_iter: int,
    path: str | os.PathLike[str],
    *,
    colormap: str = "classic",
    scale: str = "mix",
    interior: str = "#000000",
    size: int | None = None,
    description: str = "",
    progress: Callable[[int, int], object] | None = None,
) -> tuple[int, int]:
    """Write a field of escape times as an 8-bit palette PNG, y upwards, and give its (rows, columns).

    Parameters
    ----------
    counts : zarr.Array, NumPy array or what slices alike; integers, shape (y, x), y ascending
        Escape times in iterations: 0 not computed (drawn grey), `max_iter` not escaped (drawn in `interior`).
    max_iter : from 1 to 2**31 - 1
        The cap the field was computed with.
    path : file name ending in .png
        The picture appears whole or not at all; one of the same name is replaced.
    colormap : one of `COLORMAPS`
        The lowest escape time has the first colour. `classic` is our own, the others are `bokeh.palettes`.
    scale : one of `SCALES`
        `linear`, `log`, `equalised` (each colour covers the same area), or `mix`: half log, half equalised.
        Laid out for at most 1152 x 1152 samples (24 x 24 patches, the same for all chunks and sizes), up to
        the escape time that 99.9 % of the escaped ones do not exceed.
    interior : "#rrggbb"
        The colour of what did not escape.
    size : pixels, optional
        Of the longer side, about: every k-th sample is drawn, k the whole number nearest to side / size.
        Samples are exact; nothing is resampled.
    description : text, optional
        Kept in the PNG as its `Description`.
    progress : callable, optional
        Called with (rows done, rows of the picture) after each band.

    Raises
    ------
    ConfigError
        An argument that breaks one of these rules, or a path that cannot be written.
    StoreError
        The field cannot be read, or the disk is full.

    Notes
    -----
    Memory does not grow with the field: a band of 16 MiB, about as much to read it, and the chunks that zarr
    decodes at once. A band is whole rows of chunks. Where one does not fit (chunks of 512 rows in pictures
    of more than 32768 columns) it is fewer rows, and each band that crosses a chunk decodes it again.
    """
    _check_field(counts, max_iter)
    _check_choice("scale", scale, SCALES)
    target, colours, layout = check_path(path), palette(colormap, interior), _layout(counts, size)
    to_index = palette_index(_sample(counts), int(max_iter), scale)

    def rows() -> Iterator[memoryview]:
        done = 0
        for band in _bands(counts, layout, to_index):
            yield from (row.data for row in band)
            done += len(band)
            if progress:
                progress(done, layout.rows)

    _replace(target, lambda file: _encode(file, layout, colours, description, rows()))
    return layout.rows, layout.columns


def palette(colormap: str = "classic", interior: str = "#000000") -> list[Colour]:
    """The 256 colours (red, green, blue) of a picture: grey for not computed, 254 of the map, the interior.

    Raises
    ------
    ConfigError
        A colour map that is not in `COLORMAPS`, or an `interior` that is not "#rrggbb".
    """
    _check_choice("colormap", colormap, COLORMAPS)
    if not isinstance(interior, str) or not re.fullmatch("#[0-9a-fA-F]{6}", interior):
        raise ConfigError(f'interior must be a colour "#rrggbb", such as "#000000"; got {interior!r}')
    if colormap == "classic":
        at, *channels = CLASSIC.T
        levels = [np.interp(np.linspace(0, 1, TONES), at, channel).round() for channel in channels]
        tones = [(int(r), int(g), int(b)) for r, g, b in zip(*levels, strict=True)]
    else:
        import bokeh.palettes  # takes 0.15 s

        known = getattr(bokeh.palettes, f"{colormap.capitalize()}256")
        tones = [_rgb(known[round(i)]) for i in np.linspace(0, 255, TONES)]
    return [GREY, *tones, _rgb(interior)]


def palette_index(sample: Integers, max_iter: int, scale: str = "mix") -> ToIndex:
    """The function from escape times (integers of any shape) to palette indices (uint8 of that shape).

    It never descends: 0 not computed, 1 to 254 the map's tones, laid out for `sample`, and 255 `max_iter`.
    """
    thresholds = _thresholds(sample, max_iter, scale)
    if max_iter > TABLE_LIMIT:
        return lambda counts: np.searchsorted(thresholds, counts, side="right").astype(np.uint8)
    table = np.searchsorted(thresholds, np.arange(max_iter + 1), side="right").astype(np.uint8)
    return lambda counts: table.take(counts.astype(np.intp, copy=False), mode="clip")


def _thresholds(sample: Integers, max_iter: int, scale: str) -> NDArray[np.int64]:
    """The lowest escape time of each palette index from 1 to 255, by bisection: a tone never descends."""
    escaped = np.sort(sample[(sample > 0) & (sample < max_iter)])
    wanted = np.arange(1, TONES) / TONES - 1e-9  # the last bits of a logarithm differ between machines
    low, high = np.ones(TONES - 1, np.int64), np.full(TONES - 1, max_iter, np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        reached = _tone(middle, escaped if escaped.size else np.array([1, max_iter]), scale) >= wanted
        low, high = np.where(reached, low, np.minimum(middle + 1, high)), np.where(reached, middle, high)
    return np.concatenate([[1], low, [max_iter]])


def _tone(n: NDArray[np.int64], escaped: Integers, scale: str) -> NDArray[np.float64]:
    """Escape times on a scale from 0 to 1, for the sorted escape times of a sample."""
    low = int(escaped[0])
    high = max(low + 1, int(escaped[round((escaped.size - 1) * TOP)]))
    n = np.clip(n, low, high)
    if scale == "linear":
        return (n - low) / (high - low)
    log = np.log(n / low) / np.log(high / low)
    equalised = np.searchsorted(escaped, n) / np.searchsorted(escaped, high)
    return np.asarray({"log": log, "equalised": equalised, "mix": (log + equalised) / 2}[scale])


def _sample(counts: Any) -> Integers:
    """At most 1152 x 1152 samples of a field, in patches spread over it by its shape alone."""

    def windows(n: int) -> list[slice]:
        middles = [(2 * i + 1) * n // (2 * PATCHES) for i in range(PATCHES)]  # on a chunk's edge, often: start there
        starts = [min(middle, n - PATCH_SIDE) for middle in middles]
        return [slice(i, i + PATCH_SIDE) for i in starts] if n > PATCHES * PATCH_SIDE else [slice(0, n)]

    return np.concatenate([_read(counts, *window).ravel() for window in product(*map(windows, counts.shape))])


class _Layout(NamedTuple):
    """Rows and columns of the picture; which samples: each k-th, in bands and blocks of so many."""

    rows: int
    columns: int
    stride: int
    band: int
    block: int


def _layout(counts: Any, size: int | None) -> _Layout:
    if size is not None and (isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1):
        raise ConfigError(f"size must be a number of pixels, at least 1; got {size!r}")
    stride = max(1, (2 * max(counts.shape) + size) // (2 * size)) if size else 1
    rows, columns = (-(-n // stride) for n in counts.shape)
    if max(rows, columns) > LIMIT:
        raise ConfigError(f"a PNG has at most {LIMIT} pixels a side; got {max(rows, columns)}: give a size")
    chunks = getattr(counts, "chunks", None) or (1, 1)  # of a shard, those inside; Dask lists every one
    chunk_rows, chunk_columns = (c[0] if isinstance(c, tuple) else c for c in chunks)
    band = _whole(chunk_rows, min(BAND_ROWS, max(1, BAND_BYTES // columns) * stride))
    return _Layout(rows, columns, stride, band, _whole(chunk_columns, max(1, BLOCK_SAMPLES // band)))


def _whole(chunk: int, room: int) -> int:
    """As many whole chunks as there is room for, or what there is room for of one."""
    return room // chunk * chunk or room


def _bands(counts: Any, layout: _Layout, to_index: ToIndex) -> Iterator[NDArray[np.uint8]]:
    """Palette indices, shape (rows of a band, columns of the picture), from the top of the picture down."""
    k = layout.stride
    starts = [-(-x // k) for x in range(0, counts.shape[1], layout.block)] + [layout.columns]
    for first in reversed(range(0, counts.shape[0], layout.band)):
        y = slice(-(-first // k) * k, min(first + layout.band, counts.shape[0]), k)
        band = np.empty((max(0, -(-(y.stop - y.start) // k)), layout.columns), np.uint8)
        for start, stop in pairwise(starts):
            if band.size and start < stop:
                band[:, start:stop] = to_index(_read(counts, y, slice(start * k, (stop - 1) * k + 1, k)))
        yield band[::-1]


def _read(counts: Any, y: slice, x: slice) -> Integers:
    try:
        return np.asarray(counts[y, x])
    except (OSError, ValueError, RuntimeError) as error:  # of a file, a checksum, a codec
        where = f"rows {y.start} to {y.stop - 1}, columns {x.start} to {x.stop - 1}"
        raise StoreError(f"cannot read {where} of the field: {error}. Is the store whole?") from error


def _encode(
    file: BinaryIO, layout: _Layout, colours: list[Colour], description: str, rows: Iterator[memoryview]
) -> None:
    import png  # type: ignore[import-untyped]  # pypng has no types

    texts = {"Software": "mandeldask", "Description": description.replace("\0", " ")}

    def texts_then_rows() -> Iterator[memoryview]:  # pypng asks for the first row once the palette is written
        for key, text in texts.items():
            if text:
                png.write_chunk(file, b"tEXt", f"{key}\0{text}".encode("latin-1", "replace"))
        yield from rows

    png.Writer(layout.columns, layout.rows, palette=colours, bitdepth=8).write_packed(file, texts_then_rows())


def _replace(target: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file beside the target that then takes its place; if anything fails, leave nothing."""
    partial = target.with_name(f".mandeldask-{secrets.token_hex(6)}.partial")
    try:
        with open(partial, "xb") as file:
            write(file)
        os.replace(partial, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"the disk is full: {target} was not written. Free space or give another path") from error
        why = error.strerror or error
        raise ConfigError(f"cannot write {target}: {why}. Give a path that can be written") from error
    finally:
        with suppress(OSError):  # a read-only file system says so even of a file that is not there
            partial.unlink()


def _check_field(counts: Any, max_iter: int) -> None:
    if isinstance(max_iter, bool) or not isinstance(max_iter, int | np.integer) or not 1 <= max_iter <= LIMIT:
        raise ConfigError(f"max_iter must be an integer from 1 to {LIMIT}; got {max_iter!r}")
    shape, dtype = getattr(counts, "shape", ()), getattr(counts, "dtype", None)
    if len(shape) != 2 or 0 in shape or dtype is None or np.dtype(dtype).kind not in "iu":
        raise ConfigError(f"a field must be integers of shape (rows, columns); got {dtype} of shape {shape}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value).lower(), choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{name} must be one of {', '.join(choices)}; got {value!r}{hint}")


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Is this a picture that mandeldask drew? OSError where it cannot be read."""
    with open(path, "rb") as file:
        return b"tEXtSoftware\0mandeldask" in file.read(2048)  # after the header and the palette


def check_path(path: str | os.PathLike[str]) -> Path:
    """The path of a picture to be written; ConfigError where none can be."""
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ConfigError(f"a picture's name must end in .png; got {target}")
    if os.path.isdir(target):
        raise ConfigError(f"a picture must be a file; {target} is a directory")
    if not os.path.isdir(target.parent):
        raise ConfigError(f"there is no directory {target.parent} to write {target.name} in: make it first")
    return target


def _rgb(colour: str) -> Colour:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue
