"""The samples that a picture is drawn from: of a store with its levels, or of arrays in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError, StoreError
from mandeldask.kernels import AUTO, FIELDS, KERNELS, choose
from mandeldask.view import View

if TYPE_CHECKING:  # zarr is imported once there is a store
    from mandeldask.store import Store

MAX_ITER_LIMIT = 2**31 - 1
VIEW_SIDE = 4096  # samples a side, at most, of a view that is computed for a picture
IN_MEMORY = 2**28  # samples: 1 GiB of escape times


class Samples:
    """A field of which every `stride`-th sample is read; here, of arrays in memory.

    Rows and columns that are asked for are indices of what the stride leaves, y ascending. `text` describes the field.
    """

    missing = 0  # tiles that are not computed

    def __init__(self, arrays: Mapping[str, NDArray[Any]], max_iter: int, text: str = "") -> None:
        self.arrays, self.max_iter, self.text = arrays, max_iter, text
        self.fields = tuple(arrays)
        self.shape = len(arrays["escape_time"]), arrays["escape_time"].shape[1]

    def chunk(self, stride: int) -> tuple[int, int]:  # noqa: ARG002 (memory has no chunks)
        """Rows and columns that are best read at once."""
        return 1, 1

    def cost(self, stride: int) -> int:  # noqa: ARG002
        """Samples that are read for one."""
        return 1

    def read(self, name: str, rows: slice, columns: slice, stride: int) -> NDArray[Any]:
        y, x = (slice(s.start * stride, (s.stop - 1) * stride + 1, stride) for s in (rows, columns))
        return self.arrays[name][y, x]


class StoredSamples(Samples):
    """A store: each stride is read from the coarsest level that has it."""

    def __init__(self, store: Store) -> None:
        self.store, d = store, store.description
        self.shape, self.max_iter, self.fields = d.shape, d.max_iter, d.fields
        self.text = _text(d.view, d.max_iter)
        done = store.done()
        self.missing = int((~done).sum())
        # Of an unfinished field a level serves if it has all that is done: those that its own tiles write may.
        further = range(1, d.fine + 1) if self.missing else [level.number for level in d.levels[1:]]
        whole = done if self.missing else ...
        self.levels = [0, *(k for k in further if store.done(k)[whole].all())]

    def _level(self, stride: int) -> tuple[int, int]:
        """The level to read, and its stride."""
        level = max(k for k in self.levels if stride % (1 << k) == 0)
        return level, stride >> level

    def chunk(self, stride: int) -> tuple[int, int]:
        from mandeldask.store import chunk_side

        level, step = self._level(stride)
        rows, columns = (max(1, chunk_side(side) // step) for side in self.store.description.levels[level].tile)
        return rows, columns

    def cost(self, stride: int) -> int:
        return self._level(stride)[1] ** 2

    def read(self, name: str, rows: slice, columns: slice, stride: int) -> NDArray[Any]:
        level, step = self._level(stride)
        y, x = (slice(s.start * step, (s.stop - 1) * step + 1) for s in (rows, columns))
        try:
            return self.store.window(y, x, level, name)[::step, ::step]
        except OSError as error:
            raise StoreError(f"cannot read {self.store.path}: {error.strerror or error}") from None


def samples_of(field: Any, max_iter: int | None) -> Samples:
    """The samples of a path, a Store, an array or a Dataset of fields; Dask's are computed now.

    Raises
    ------
    ConfigError
        No escape times of shape (rows, columns), or more than memory should hold; a `max_iter` out of range.
    StoreError
        The store cannot be opened.
    """
    from mandeldask.store import Store, open_store

    if isinstance(field, str | os.PathLike):
        field = open_store(field)
    if isinstance(field, Store):
        return StoredSamples(field)
    parts = {"escape_time": field}
    if hasattr(field, "keys"):  # a Dataset, a Zarr group, a dict
        parts = {name: field[name] for name in FIELDS if name in field}
        if "escape_time" not in parts:
            raise ConfigError(f"a dataset must have the field escape_time; got {', '.join(map(str, field)) or 'none'}")
    arrays = {name: _array(name, part) for name, part in parts.items()}
    if len({a.shape for a in arrays.values()}) > 1:
        raise ConfigError(f"fields must have one shape; got {[a.shape for a in arrays.values()]}")
    if max_iter is None:
        max_iter = max(1, int(arrays["escape_time"].max()))
    if isinstance(max_iter, bool) or not isinstance(max_iter, int | np.integer) or not 1 <= max_iter <= MAX_ITER_LIMIT:
        raise ConfigError(f"max_iter must be an integer from 1 to {MAX_ITER_LIMIT}; got {max_iter!r}")
    return Samples(arrays, int(max_iter))


def computed(view: View, fields: tuple[str, ...], max_iter: int | None, side: int) -> Samples:
    """Every k-th sample of a view, computed in this process, with the least k that leaves about `side` a side.

    Raises
    ------
    ConfigError
        A view too deep for binary64, a `max_iter` out of range.
    """
    stride = max(1, -(-max(view.shape) // min(side, VIEW_SIDE)))
    rows, columns = view.shape
    cap = 1000 if max_iter is None else max_iter
    compute = KERNELS[choose(AUTO, view)[0]](cap, fields)
    bands = [(first, min(first + 64 * stride, rows)) for first in range(0, rows, 64 * stride)]
    block = np.concatenate([compute(view.block(band, (0, columns), stride=(stride, stride))) for band in bands])
    arrays = {name: block[name] for name in fields} if block.dtype.names else {"escape_time": block}
    return Samples(arrays, int(cap), _text(view, cap))


def _text(view: View, max_iter: int) -> str:
    return f"Mandelbrot escape times, {view}, max_iter {max_iter}"


def _array(name: str, field: Any) -> NDArray[Any]:
    shape, dtype = tuple(getattr(field, "shape", ())), getattr(field, "dtype", None)
    kind, what = ("iu", "integers") if name == "escape_time" else ("f", "floats")
    if len(shape) != 2 or 0 in shape or dtype is None or np.dtype(dtype).kind not in kind:
        raise ConfigError(f"a field must be {what} of shape (rows, columns); got {dtype} of shape {shape}")
    if shape[0] * shape[1] > IN_MEMORY:
        raise ConfigError(
            f"a field of {shape[0]} x {shape[1]} is too large to be held in memory: store it (mandeldask.run), "
            "and draw the store"
        )
    return np.asarray(field)
