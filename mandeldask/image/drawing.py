"""A picture of a field: what it looks like, and how many samples a pixel; drawn in bands, whatever its size."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.image import png
from mandeldask.image.colour import Colour, ToIndex, ToTone, gradient, palette, palette_index, rgb
from mandeldask.image.files import check_path, replace
from mandeldask.image.look import Look
from mandeldask.image.shade import STEPS, Floats, averaged, linear, lit, toned
from mandeldask.image.source import Source, Stored, hold, sampled
from mandeldask.view import View

SAMPLE_SIDE = 1024  # the scale is laid out for so many samples a side: within 0.0005 of the exact histogram
SIDE_LIMIT = 2**31 - 1  # of a PNG
BAND_BYTES = 2**24  # of pixels: 512 rows of 32768 columns with a palette
BLOCK_SAMPLES = {True: 2**20, False: 2**18}  # read and coloured at a time, with a palette and without
SHOWN_SIDE = 800  # pixels of a picture in a notebook
SUPERSAMPLES = (1, 2, 4, 8)

Progress = Callable[[int, int], object]
Item = TypeVar("Item")


def picture(
    field: Any,
    *,
    size: int | None = None,
    supersample: int = 1,
    max_iter: int | None = None,
    **look: Any,
) -> Picture:
    """A picture of a field, which a notebook shows, and `save` writes to a file of any size.

    Parameters
    ----------
    field : path of a store, Store, array, Dataset or View
        An array of escape times is int of shape (y, x), y ascending: NumPy's, Dask's (computed now) or xarray's. What
        `mandeldask.open` gives will do; but only a path is read level by level, in bounded memory. Of a View every
        k-th sample is computed, now and here: a look at what a run would give.
    size : pixels, optional
        Of the longer side, about: every k-th sample is drawn, k = m 2^n with m below 8. Nothing is resampled.
    supersample : 1, 2, 4 or 8
        A pixel is the mean, in linear light, of so many by so many samples.
    max_iter : int, optional
        Of an array: the cap it was computed with; by default its largest value. Of a View: the cap to take; 1000
        by default. A store knows its own.
    **look
        See `mandeldask.image.Look`: colormap, reverse, scale, repeat, period, phase, interior, shade, light.

    Raises
    ------
    ConfigError
        An argument that breaks a rule, or a look that needs a field which is not there.
    StoreError
        The store cannot be read.
    """
    from mandeldask.store import Store, open_store

    chosen = _look(look)
    _check_sizes(size, supersample)
    source: Source
    if isinstance(field, View):
        source = sampled(field, chosen.fields, max_iter, (size or SHOWN_SIDE) * supersample)
        return Picture(source, chosen, 1, supersample)
    if isinstance(field, str | os.PathLike | Store):
        source = Stored(field if isinstance(field, Store) else open_store(field))
    else:
        source = hold(field, max_iter)
    _check_fields(source.fields, chosen)
    return Picture(source, chosen, _stride(source.shape, size, supersample), supersample)


@dataclass(frozen=True)
class Picture:
    """Every `stride`-th sample of a field in colours, `supersample` by `supersample` of them a pixel; y upwards."""

    source: Source
    look: Look
    stride: int = 1
    supersample: int = 1
    scale_of: Picture | None = None
    """Another picture of the same field, whose scale this one shares."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of pixels; those at the upper and right edge are the mean of what samples there are."""
        rows, columns = (-(-n // (self.stride * self.supersample)) for n in self.source.shape)
        return rows, columns

    @property
    def flat(self) -> bool:
        """Whether it is drawn with a palette of 256 colours."""
        return self.look.flat and self.supersample == 1

    @cached_property
    def palette(self) -> list[Colour] | None:
        return palette(self.look.colormap, self.look.interior, self.look.reverse) if self.flat else None

    @property
    def missing(self) -> int:
        """Tiles of the store that are not computed, drawn grey."""
        return self.source.missing

    @property
    def samples_read(self) -> int:
        """Samples of each field that are read to draw it."""
        rows, columns = self.shape
        return rows * columns * self.supersample**2 * self.source.cost(self.stride)

    def half(self) -> Picture:
        """The same at half the size, in the same colours."""
        return dataclasses.replace(self, stride=2 * self.stride, scale_of=self.scale_of or self)

    def bands(self) -> Iterator[NDArray[np.uint8]]:
        """Rows of pixels from the top of the picture down: palette indices, or sRGB with a last axis of 3.

        They are drawn one ahead, in a thread: who takes them compresses them meanwhile, without the interpreter's lock.
        """
        return _ahead(self._bands())

    def save(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Write a file: PNG, a pyramidal BigTIFF or a Deep Zoom image, as the name ends (.png, .tif, .dzi).

        It appears whole or not at all; one of the same name is replaced. `progress` is called with pixels done and
        all of them.

        Raises
        ------
        ConfigError
            A path that cannot be written, a format that needs a package which is not there.
        StoreError
            The field cannot be read, or the disk is full.
        """
        target = check_path(path)
        if target.suffix.lower() == ".dzi":
            from mandeldask.image.dzi import write_dzi

            write_dzi(self, target, progress)
        elif target.suffix.lower() == ".png":
            self._check_side()
            replace(target, lambda file: self._png(file, progress))
        else:
            from mandeldask.image.tiff import write_tiff

            write_tiff(self, target, progress)

    def _png(self, file: Any, progress: Progress | None) -> None:
        def bands() -> Iterator[NDArray[np.uint8]]:
            done = 0
            for band in self.bands():
                yield band
                done += band.shape[0] * band.shape[1]
                if progress:
                    progress(done, self.shape[0] * self.shape[1])

        png.encode(file, self.shape, bands(), self.palette, self.texts)

    @property
    def texts(self) -> dict[str, str]:
        """What a file says of its picture."""
        return {"Software": "mandeldask"} | ({"Description": self.source.text} if self.source.text else {})

    def _check_side(self) -> None:
        if max(self.shape) > SIDE_LIMIT:
            raise ConfigError(f"a PNG has at most {SIDE_LIMIT} pixels a side; got {max(self.shape)}: give a size")

    def _repr_png_(self) -> bytes:
        shown = self
        while max(shown.shape) > 2 * SHOWN_SIDE:
            shown = shown.half()
        file = io.BytesIO()
        shown._png(file, None)
        return file.getvalue()

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"<Picture of {columns} x {rows} pixels: {self.source.text or 'a field'}>"

    # ---- drawing

    def _bands(self) -> Iterator[NDArray[np.uint8]]:
        rows, columns = self.shape
        height, width = self._block()
        for first in reversed(range(0, rows, height)):
            last = min(first + height, rows)
            band = np.empty((last - first, columns) if self.flat else (last - first, columns, 3), np.uint8)
            for start, end in pairwise([*range(0, columns, width), columns]):
                band[:, start:end] = self._draw(slice(first, last), slice(start, end))
            yield band[::-1]

    def _block(self) -> tuple[int, int]:
        """Rows and columns of pixels that are drawn at once; whole chunks where they fit."""
        k, columns = self.supersample, self.shape[1]
        rows_read, columns_read = (max(1, n // k) for n in self.source.chunk(self.stride))
        height = _whole(rows_read, max(1, BAND_BYTES // (columns * (1 if self.flat else 3))))
        height = min(height, self.shape[0])
        samples = height * k * k * self.source.cost(self.stride)
        return height, _whole(columns_read, max(1, BLOCK_SAMPLES[self.flat] // samples))

    def _draw(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        k, look = self.supersample, self.look
        y, x = (
            slice(s.start * k, min(s.stop * k, -(-n // self.stride)))
            for s, n in zip((rows, columns), self.source.shape, strict=True)
        )
        counts = self._read("escape_time", y, x)
        colours = self._colours
        if colours.index:
            index = colours.index(counts)
            if self.flat:
                return index
            light = colours.map.take(index, axis=0)
        else:
            assert colours.tone is not None
            tones = colours.tone(colours.value(self._read(look.shade, y, x)))
            light = toned(counts, self.source.max_iter, tones, colours.map, rgb("interior", look.interior))
        if look.light:
            escaped = (counts > 0) & (counts < self.source.max_iter)
            light *= np.where(escaped, lit(self._hill(y, x), look.light), np.float32(1))[..., np.newaxis]
        return averaged(light, k)

    def _hill(self, rows: slice, columns: slice) -> NDArray[Any]:
        """The field that light falls on, with a sample more on each side; NaN beyond the field."""
        name = "smooth" if "smooth" in self.source.fields else "distance"
        sides = [-(-n // self.stride) for n in self.source.shape]
        y, x = (slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip((rows, columns), sides, strict=True))
        hill = np.full((rows.stop - rows.start + 2, columns.stop - columns.start + 2), np.nan)
        top, left = y.start - rows.start + 1, x.start - columns.start + 1
        field = self._read(name, y, x)
        with np.errstate(divide="ignore", invalid="ignore"):
            hill[top : top + field.shape[0], left : left + field.shape[1]] = (
                field if name == "smooth" else -np.log2(field)
            )
        return hill

    def _read(self, name: str, rows: slice, columns: slice) -> NDArray[Any]:
        return self.source.read(name, rows, columns, self.stride)

    @cached_property
    def _colours(self) -> _Colours:
        if self.scale_of:
            return self.scale_of._colours
        return _lay_out(self.source, self.look)


@dataclass(frozen=True)
class _Colours:
    """From what is read to what is drawn, laid out for a field as a whole."""

    map: Floats  # linear light: the palette, or STEPS of the colour map
    index: ToIndex | None = None
    tone: ToTone | None = None
    reach: float = 0.0

    def value(self, samples: NDArray[Any]) -> NDArray[Any]:
        """What the scale is laid over: the escape time, or how many times nearer the set than the farthest sample."""
        if not self.reach:
            return samples
        with np.errstate(divide="ignore"):
            return self.reach / samples.astype(np.float64)


def _lay_out(source: Source, look: Look) -> _Colours:
    stride = 1
    while max(source.shape) > SAMPLE_SIDE * stride:
        stride *= 2
    whole = [slice(0, -(-n // stride)) for n in source.shape]
    counts = source.read("escape_time", whole[0], whole[1], stride)
    if look.shade == "counts":
        colours = linear(palette(look.colormap, look.interior, look.reverse))
        return _Colours(colours, palette_index(counts.ravel(), source.max_iter, look.layout))
    values = source.read(look.shade, whole[0], whole[1], stride)
    escaped = values[(counts > 0) & (counts < source.max_iter) & np.isfinite(values)].astype(np.float64)
    reach = float(escaped.max(initial=1e-300)) if look.shade == "distance" else 0.0
    if reach:
        escaped = reach / escaped[escaped > 0]
    colours = linear(gradient(look.colormap, STEPS, look.reverse))
    return _Colours(colours, tone=look.layout.curve(escaped), reach=reach)


def check_look(
    shape: tuple[int, int], fields: tuple[str, ...], *, size: int | None = None, supersample: int = 1, **look: Any
) -> None:
    """Raise ConfigError where `picture` would, before there is a field of this shape with these parts."""
    _check_fields(fields, _look(look))
    _check_sizes(size, supersample)
    _stride(shape, size, supersample)


def _look(look: dict[str, Any]) -> Look:
    try:
        return Look(**look)
    except TypeError:
        known = ", ".join(f.name for f in dataclasses.fields(Look))
        raise ConfigError(f"a look has {known}; got {', '.join(look)}") from None


def _check_fields(fields: tuple[str, ...], look: Look) -> None:
    needed = {look.shade} - {"counts"}
    if look.light and not {"smooth", "distance"} & set(fields):
        needed.add("smooth")
    lacking = sorted(needed - set(fields))
    if lacking:
        why = f"shade {look.shade}" if look.shade in lacking else "light"
        wanted = ",".join([*fields, *lacking])
        raise ConfigError(
            f"{why} needs the field {lacking[0]}, and there is {', '.join(fields)} alone; compute it with "
            f"`mandeldask run CONFIG --out NEW --set fields=[{wanted}]`"
        )


def _check_sizes(size: int | None, supersample: int) -> None:
    if isinstance(supersample, bool) or supersample not in SUPERSAMPLES:
        raise ConfigError(f"supersample must be one of {', '.join(map(str, SUPERSAMPLES))}; got {supersample!r}")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1):
        raise ConfigError(f"size must be a number of pixels, at least 1; got {size!r}")


def _stride(shape: tuple[int, int], size: int | None, supersample: int) -> int:
    """Every how manieth sample: m 2^n with m below 8, so that most are read from a level."""
    if min(shape) < supersample:
        raise ConfigError(f"supersample {supersample} needs as many samples a side; got {shape[0]} x {shape[1]}")
    if size is None:
        return 1
    side, drawn = max(shape), size * supersample
    step = 1 << max(0, (side // drawn).bit_length() - 3)
    return max(1, (2 * side + drawn * step) // (2 * drawn * step) * step)


def _whole(chunk: int, room: int) -> int:
    """As many whole chunks as there is room for, or what there is room for of one."""
    return room // chunk * chunk or room


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, each made in a thread while the one before it is used."""
    with ThreadPoolExecutor(1, "mandeldask-picture") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
