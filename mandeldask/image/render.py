"""Draw a picture of a field in bands, whatever its size."""

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

from mandeldask.image.colour import Colour, gradient, palette_index, rgb
from mandeldask.image.files import Pixels, Progress, encode, write
from mandeldask.image.options import PictureOptions
from mandeldask.image.samples import Samples, computed, samples_of
from mandeldask.image.shade import STEPS, Floats, averaged, linear, lit, to_srgb, toned
from mandeldask.view import View

SCALE_SIDE = 1024  # the scale is laid out for so many samples a side: within 0.0005 of the exact histogram
BAND_BYTES = 2**24  # of pixels: 512 rows of 32768 columns with a palette
BLOCK_SIDE = {True: 1024, False: 512}  # samples, read and coloured at a time, with a palette and without
NOTEBOOK_SIDE = 800  # pixels of a picture in a notebook
Item = TypeVar("Item")


def picture(field: Any, *, max_iter: int | None = None, **options: Any) -> Picture:
    """A picture of a field, which a notebook shows, and `save` writes to a file of any size.

    Parameters
    ----------
    field : path of a store, Store, array, Dataset or View
        An array of escape times is int of shape (y, x), y ascending: NumPy's, Dask's (computed now) or xarray's. What
        `mandeldask.open` returns is accepted too; but only a path is read level by level, in bounded memory. Of a View
        every k-th sample is computed now, in this process: a preview of what a run would give.
    max_iter : int, optional
        Of an array: the cap it was computed with; by default its largest value. Of a View: the cap to take; 1000
        by default. A store knows its own.
    **options
        size, supersample, colormap, reverse, scale, repeat, period, phase, interior, shade, light: see
        `mandeldask.image.PictureOptions`.

    Raises
    ------
    ConfigError
        An argument that breaks a rule, or an option that needs a field which is not there.
    StoreError
        The store cannot be read.
    """
    chosen = PictureOptions.of(options)
    if isinstance(field, View):
        side = (chosen.size or NOTEBOOK_SIDE) * chosen.supersample
        return Picture(computed(field, chosen.fields, max_iter, side), chosen)
    samples = samples_of(field, max_iter)
    chosen.check(samples.shape, samples.fields)
    return Picture(samples, chosen, chosen.stride(samples.shape))


@dataclass(frozen=True)
class Picture:
    """Every `stride`-th sample of a field in colours, y upwards."""

    samples: Samples
    options: PictureOptions
    stride: int = 1
    scale_of: Picture | None = None
    """Another picture of the same field, whose scale this one shares."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of pixels; those at the upper and right edge are the mean of what samples there are."""
        rows, columns = (-(-n // (self.stride * self.options.supersample)) for n in self.samples.shape)
        return rows, columns

    @property
    def palette(self) -> list[Colour] | None:
        """The 256 colours that it is drawn with; None where it needs more."""
        return self.options.palette

    @property
    def missing(self) -> int:
        """Tiles of the store that are not computed, drawn grey."""
        return self.samples.missing

    @property
    def samples_read(self) -> int:
        """Samples of each field that are read to draw it."""
        rows, columns = self.shape
        return rows * columns * (self.options.supersample * self.samples.step(self.stride)[1]) ** 2

    def pyramid(self, side: int) -> list[Picture]:
        """The picture and its halves, each half of the last, rounded up, until no side is longer than `side`."""
        levels = [self]
        while max(levels[-1].shape) > side:
            levels.append(dataclasses.replace(self, stride=2 * levels[-1].stride, scale_of=self.scale_of or self))
        return levels

    def bands(self) -> Iterator[Pixels]:
        """Rows of pixels from the top of the picture down: palette indices, or sRGB with a last axis of 3.

        A thread draws one band ahead, while the caller compresses the last one without the interpreter's lock.
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
        write(path, self, self.samples.text, progress)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        small = self.pyramid(2 * NOTEBOOK_SIDE)[-1]
        encode(file, small.shape, small.bands(), small.palette, self.samples.text)
        return file.getvalue()

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"<Picture of {columns} x {rows} pixels: {self.samples.text or 'a field'}>"

    def _bands(self) -> Iterator[Pixels]:
        rows, columns = self.shape
        height, width = self._block()
        for first in reversed(range(0, rows, height)):
            last = min(first + height, rows)
            band = np.empty((last - first, columns) if self.palette else (last - first, columns, 3), np.uint8)
            for start, end in pairwise([*range(0, columns, width), columns]):
                band[:, start:end] = self._draw(slice(first, last), slice(start, end))
            yield band[::-1]

    def _block(self) -> tuple[int, int]:
        """Rows and columns of pixels that are drawn at once: whole chunks where they fit, so that each is read once."""
        k, columns, flat = self.options.supersample, self.shape[1], bool(self.palette)
        side = max(1, BLOCK_SIDE[flat] // (k * self.samples.step(self.stride)[1]))
        rows_read, columns_read = (max(1, n // k) for n in self.samples.chunk(self.stride))
        height = _whole(rows_read, max(1, min(side, BAND_BYTES // (columns * (1 if flat else 3)))))
        return height, _whole(columns_read, max(1, side * side // height))

    def _draw(self, rows: slice, columns: slice) -> Pixels:
        k, options, max_iter = self.options.supersample, self.options, self.samples.max_iter
        y, x = (
            slice(s.start * k, min(s.stop * k, -(-n // self.stride)))
            for s, n in zip((rows, columns), self.samples.shape, strict=True)
        )
        counts = self.samples.read("escape_time", y, x, self.stride)
        if options.shade == "counts":
            index = self._layout(counts)
            if self.palette:
                return index
            light = self._map.take(index, axis=1)
        else:
            tones = self._layout(self.samples.read(options.shade, y, x, self.stride))
            light = toned(counts, max_iter, tones, self._map, rgb("interior", options.interior))
        if options.light:
            escaped = (counts > 0) & (counts < max_iter)
            light *= np.where(escaped, lit(self._hill(y, x), options.light), np.float32(1))
            np.minimum(light, 1, out=light)
        return to_srgb(averaged(light, k))

    def _hill(self, rows: slice, columns: slice) -> NDArray[Any]:
        """The field that light falls on, with a sample more on each side; NaN beyond the field."""
        name = "smooth" if "smooth" in self.samples.fields else "distance"
        sides = [-(-n // self.stride) for n in self.samples.shape]
        y, x = (slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip((rows, columns), sides, strict=True))
        hill = np.full((rows.stop - rows.start + 2, columns.stop - columns.start + 2), np.nan)
        top, left = y.start - rows.start + 1, x.start - columns.start + 1
        field = self.samples.read(name, y, x, self.stride)
        with np.errstate(divide="ignore", invalid="ignore"):
            hill[top : top + field.shape[0], left : left + field.shape[1]] = (
                field if name == "smooth" else -np.log2(field)
            )
        return hill

    @cached_property
    def _map(self) -> Floats:
        """Colours in linear light: the palette of the escape times, or `STEPS` of the colour map."""
        o = self.options
        return linear(o.count_colours if o.shade == "counts" else gradient(o.colormap, STEPS, o.reverse))

    @cached_property
    def _layout(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        return self.scale_of._layout if self.scale_of else _lay_out(self.samples, self.options)


def _lay_out(samples: Samples, options: PictureOptions) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """From escape times to palette indices, or from the values of another field to tones; the same for all of it."""
    stride = 1
    while max(samples.shape) > SCALE_SIDE * stride:
        stride *= 2
    y, x = (slice(0, -(-n // stride)) for n in samples.shape)
    counts = samples.read("escape_time", y, x, stride)
    if options.shade == "counts":
        return palette_index(counts.ravel(), samples.max_iter, options.value_scale)
    values = samples.read(options.shade, y, x, stride)
    escaped = values[(counts > 0) & (counts < samples.max_iter) & np.isfinite(values)].astype(np.float64)
    if options.shade == "smooth":
        return options.value_scale.curve(escaped)
    farthest = float(escaped.max(initial=1e-300))
    tones = options.value_scale.curve(farthest / escaped[escaped > 0])

    def tones_of_distances(distances: NDArray[Any]) -> NDArray[Any]:
        """The scale is laid over how many times nearer the set than the farthest sample."""
        with np.errstate(divide="ignore"):
            return tones(farthest / distances.astype(np.float64))

    return tones_of_distances


def _whole(chunk: int, room: int) -> int:
    """As many whole chunks as there is room for, or as much of one as there is room for."""
    return room // chunk * chunk or room


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, each made in a thread while the one before it is used."""
    with ThreadPoolExecutor(1, "mandeldask-picture") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
