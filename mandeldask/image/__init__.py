"""Fields -> colours -> pictures: PNG, pyramidal TIFF and Deep Zoom of any size, and what a notebook shows."""

from __future__ import annotations

import io
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.image.colour import Colour, PictureOptions, gradient, palette, palette_index
from mandeldask.image.files import Pixels, Progress, check_path, encode, is_ours, write
from mandeldask.image.samples import Samples, computed, samples_of
from mandeldask.view import View

__all__ = ["Picture", "PictureOptions", "averaged", "check_path", "is_ours", "palette", "palette_index", "picture"]

# Iterations: a few seconds with Numba. A run does not keep `smooth` for its picture: the kernel would take 4 to 11
# times as long, and the store 4 to 16 times the bytes (the views of configs/, one core). A picture works it out for
# the samples that it draws, and of those only for the escaped.
AFFORDABLE = 2**32
BAND_BYTES = 2**24  # of pixels: 512 rows of 32768 columns with a palette
BLOCK_SIDE = {True: 1024, False: 512}  # samples, read and coloured at a time, with a palette and without
NOTEBOOK_SIDE = 800  # pixels of a picture in a notebook
STEPS = 4096  # of a colour map
THREADS = min(4, os.cpu_count() or 1)  # that draw; each holds a band
SLOPE = math.radians(50)  # of the hill, wherever one sample differs little from the next
AMBIENT = 0.12  # share of the light that comes from everywhere
BRIGHTEST = 1.8  # at most, of a slope that faces the light; level ground is 1
Floats = NDArray[np.float32]


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
        Of a store beneath them those of the run description that it was made from, but for size and supersample:
        size, supersample, colormap, reverse, scale, repeat, period, phase, interior, shade, light: see
        `mandeldask.image.PictureOptions`.

    Raises
    ------
    ConfigError
        An argument that breaks a rule, or an option that needs a field which is not there.
    StoreError
        The store cannot be read.
    """
    if isinstance(field, View):
        chosen = PictureOptions.of(options)
        stride, k = replace(chosen, size=chosen.size or NOTEBOOK_SIDE).sampling(field.shape)
        return Picture(computed(field, max_iter, stride), replace(chosen, supersample=k))
    samples = samples_of(field, max_iter)
    chosen = PictureOptions.over(samples.noted, options)
    chosen.check(samples.shape, samples.fields)
    stride, k = chosen.sampling(samples.shape)
    return Picture(replace(samples, stride=stride), replace(chosen, supersample=k))


@dataclass(frozen=True)
class Picture:
    """Samples of a field in colours, y upwards."""

    samples: Samples
    options: PictureOptions  # with a supersample
    scale_of: Picture | None = None  # another, whose scale this one shares
    in_plane: bool = False  # whether light falls on a strip as on the plane that it is a part of

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of pixels; those at the upper and right edge are the mean of what samples there are."""
        rows, columns = (-(-n // self.box) for n in self.samples.shape)
        return rows, columns

    @property
    def box(self) -> int:
        """Samples a side of a pixel."""
        return self.options.supersample or 1

    @cached_property
    def shade(self) -> str:
        """What is coloured. By default smooth, where it is stored or affordable: see `AFFORDABLE`."""
        if self.options.shade:
            return self.options.shade
        if self.scale_of:
            return self.scale_of.shade
        samples = self.samples
        known = "smooth" in samples.levels[0] or (samples.view and samples.cost < AFFORDABLE)
        return "smooth" if known else "counts"

    @cached_property
    def palette(self) -> list[Colour] | None:
        """The 256 colours that it is drawn with; None where it needs more."""
        flat = self.shade == "counts" and not self.options.light and self.box == 1
        return self.options.palette if flat else None

    @property
    def missing(self) -> int:
        """Tiles of the store that are not computed, drawn grey."""
        return self.samples.missing

    @property
    def samples_read(self) -> int:
        """Samples of each field that are read to draw it."""
        rows, columns = self.shape
        return rows * columns * (self.box * self.samples.step) ** 2

    def pyramid(self, side: int) -> list[Picture]:
        """The picture and its halves, each half of the last, rounded up, until no side is longer than `side`."""
        levels = [self]
        while max(levels[-1].shape) > side:
            samples = levels[-1].samples
            levels.append(self.like(replace(samples, stride=2 * samples.stride)))
        return levels

    def bands(self) -> Iterator[Pixels]:
        """Rows of pixels from the top of the picture down: palette indices, or sRGB with a last axis of 3.

        Threads draw the next ones, while the caller compresses the last one without the interpreter's lock.
        """
        _ = self._layout, self._map  # once, before threads ask for them
        height, rows = self._block()[0], self.shape[0]
        coming: deque[Future[Pixels]] = deque()
        with ThreadPoolExecutor(THREADS, "mandeldask-picture") as threads:
            for first in reversed(range(0, rows, height)):
                coming.append(threads.submit(self._band, slice(first, min(first + height, rows))))
                if len(coming) > THREADS:
                    yield coming.popleft().result()
            yield from (band.result() for band in coming)

    def save(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Write a file: PNG, a pyramidal BigTIFF or a Deep Zoom image, as the name ends (.png, .tif, .dzi).

        It appears whole or not at all; one of the same name is replaced. `progress` is called with pixels done and
        all of them. ConfigError where the path cannot be written, or the format needs a package which is not there;
        StoreError where the field cannot be read, or the disk is full.
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

    def _band(self, rows: slice) -> Pixels:
        height, columns, width = rows.stop - rows.start, self.shape[1], self._block()[1]
        band = np.empty((height, columns) if self.palette else (height, columns, 3), np.uint8)
        for start, end in pairwise([*range(0, columns, width), columns]):
            band[:, start:end] = self._draw(rows, slice(start, end))
        return band[::-1]

    def _block(self) -> tuple[int, int]:
        """Rows and columns of pixels that are drawn at once: whole chunks where they fit, so that each is read once."""
        k, columns, flat = self.box, self.shape[1], bool(self.palette)
        side = max(1, BLOCK_SIDE[flat] // (k * self.samples.step))
        rows_read, columns_read = (max(1, n // k) for n in self.samples.chunk)
        height = _whole(rows_read, max(1, min(side, BAND_BYTES // (columns * (1 if flat else 3)))))
        return height, _whole(columns_read, max(1, side * side // height))

    def _draw(self, rows: slice, columns: slice) -> Pixels:
        k = self.box
        y, x = (
            slice(s.start * k, min(s.stop * k, n)) for s, n in zip((rows, columns), self.samples.shape, strict=True)
        )
        if self.palette:
            return self._layout(self.samples.read("escape_time", y, x))
        return _to_srgb(averaged(self.light(y, x), k))

    def light(self, y: slice, x: slice) -> Floats:
        """A window of the samples in colour, as planes of linear light from 0 to 1: shape (3, rows, columns)."""
        options, max_iter = self.options, self.samples.max_iter
        counts = self.samples.read("escape_time", y, x)
        hill = self._hill(y, x) if options.light else None
        if self.shade == "counts":
            index = self._layout(counts)
        else:
            known = hill[1:-1, 1:-1] if hill is not None and self.shade == "smooth" else None
            tones = self._layout(self.samples.read(self.shade, y, x, counts) if known is None else known)
            index = 1 + np.nan_to_num(tones * (STEPS - 1) + 0.5, nan=0.0).astype(np.intp)
            index[counts <= 0] = 0
            index[counts >= max_iter] = STEPS + 1
        light = self._map.take(index, axis=1)
        if options.light and hill is not None:
            escaped = (counts > 0) & (counts < max_iter)
            light *= np.where(escaped, _lit(hill, self._azimuth(x), options.light[1]), np.float32(1))
            np.minimum(light, 1, out=light)
        return light

    def _azimuth(self, x: slice) -> Any:
        """Where the light comes from, in degrees; in a strip that is looked at as a plane it turns with the column."""
        azimuth = self.options.light[0] if self.options.light else 0.0
        if not (self.in_plane and self.samples.strip):
            return azimuth
        columns = self.samples.levels[0]["escape_time"].shape[1]
        return 90 - azimuth - np.arange(x.start, x.stop) * (self.samples.stride * 360 / columns)

    def like(self, samples: Samples) -> Picture:
        """Other samples in the colours of this picture: the same values have the same colour."""
        return replace(self, samples=samples, scale_of=self.scale_of or self)

    def _hill(self, rows: slice, columns: slice) -> NDArray[Any]:
        """The field that light falls on, with a sample more on each side; NaN beyond the field."""
        name = "smooth" if "smooth" in self.samples.fields else "distance"
        shape = self.samples.shape
        y, x = (slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip((rows, columns), shape, strict=True))
        hill = self.samples.read(name, y, x).astype(np.float64)
        if name == "distance":
            with np.errstate(divide="ignore", invalid="ignore"):
                hill = -np.log2(hill)
        lacking = [(1 - s.start + part.start, 1 + s.stop - part.stop) for s, part in ((rows, y), (columns, x))]
        return np.pad(hill, lacking, constant_values=np.nan)

    @cached_property
    def _map(self) -> Floats:
        """In linear light the palette, or one with `STEPS` colours of the map."""
        o = self.options
        grey, *tones, interior = o.palette
        return _linear([grey, *(tones if self.shade == "counts" else gradient(o.colormap, STEPS, o.reverse)), interior])

    @cached_property
    def _layout(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """From escape times to palette indices, or from the values of another field to tones; the same for all of it.

        Distances count as how many times nearer the set they are than the farthest one.
        """
        if self.scale_of:
            return self.scale_of._layout
        samples, options = self.samples.overview, self.options
        counts = samples.counts
        if self.shade == "counts":
            return palette_index(counts.ravel(), samples.max_iter, options)
        if self.shade not in samples.levels[0]:  # a quarter will do of what has to be worked out
            samples, counts = replace(samples, stride=2 * samples.stride), counts[::2, ::2]
        values = samples.read(self.shade, slice(0, samples.shape[0]), slice(0, samples.shape[1]), counts)
        escaped = values[(counts > 0) & (counts < samples.max_iter) & np.isfinite(values)].astype(np.float64)
        if self.shade == "smooth":
            return options.tones(escaped, interpolated=True)
        farthest = float(escaped.max(initial=1e-300))
        tones = options.tones(farthest / escaped[escaped > 0], interpolated=True)
        return lambda distances: tones(farthest / np.maximum(np.nan_to_num(distances.astype(np.float64)), 1e-300))


def _whole(chunk: int, room: int) -> int:
    """As many whole chunks as there is room for, or as much of one as there is room for."""
    return room // chunk * chunk or room


def _linear(srgb: Any) -> Floats:
    """Colours, shape (n, 3), from 0 to 255 in sRGB, as planes of light from 0 to 1. Source: IEC 61966-2-1."""
    v = np.asarray(srgb, np.float64).T / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _to_srgb(light: Floats) -> NDArray[np.uint8]:
    """Planes of light from 0 to 1 as pixels of sRGB, shape (rows, columns, 3)."""
    return np.moveaxis(srgb_curve().take((light * np.float32(65535) + np.float32(0.5)).astype(np.uint16)), 0, -1)


@cache
def srgb_curve() -> NDArray[np.uint8]:
    """The sRGB number of light in steps of 1 / 65535."""
    v = np.linspace(0, 1, 65536)
    return np.round(255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)).astype(np.uint8)


def _lit(field: NDArray[Any], azimuth: Any, height: float) -> Floats:
    """How much light falls on each sample but those at the border, 1 on level ground: shape (rows - 2, columns - 2).

    The azimuth may be another for each column. `field` rises towards the set; NaN where there is none. Lambert's law on
    slopes of one steepness that follow the gradient; level where neighbours differ by far more than a step, for that is
    noise.
    """
    up, right = _differences(field[:, 1:-1]), _differences(field[1:-1].T).T
    size = np.hypot(up, right)
    azimuth, height = np.radians(azimuth), math.radians(height)
    steep = np.where(size > 0, 1 / (np.maximum(size, 1e-30) * np.sqrt(1 + size * size)), 0)
    facing = -steep * (up * np.cos(azimuth) + right * np.sin(azimuth)) * math.sin(SLOPE) * math.cos(height)
    level = math.sin(height)
    upright = np.sqrt(1 - (steep * size * math.sin(SLOPE)) ** 2)
    lambert = np.maximum(facing + upright * level, 0) / level
    return np.asarray(np.minimum(AMBIENT + (1 - AMBIENT) * lambert, BRIGHTEST), np.float32)


def _differences(field: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of the steps to both neighbouring rows, of all but the first and last; of one where the other is NaN."""
    steps = np.diff(field.astype(np.float64), axis=0)
    below, above = steps[:-1], steps[1:]
    mean = (np.where(np.isnan(below), above, below) + np.where(np.isnan(above), below, above)) / 2
    return np.nan_to_num(mean, nan=0.0, posinf=0.0, neginf=0.0)


def averaged(planes: NDArray[Any], box: int) -> Floats:
    """The mean of `box` by `box` samples of each plane, of fewer at the last row and column: the shape rounded up.

    A mean over axes of so few takes twenty times as long as this sum of planes.
    """
    rows, columns = (-(-n // box) for n in planes.shape[1:])
    total = np.zeros((len(planes), rows, columns), np.float32)
    for i in range(box):
        for j in range(box):
            part = planes[:, i::box, j::box]
            total[:, : part.shape[1], : part.shape[2]] += part
    high, wide = (np.minimum(box, n - np.arange(0, n, box)) for n in planes.shape[1:])
    total /= np.outer(high, wide).astype(np.float32)
    return total
