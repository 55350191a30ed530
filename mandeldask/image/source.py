"""Where the samples of a picture come from: a store with its levels, or arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError, StoreError
from mandeldask.kernels import AUTO, FIELDS, KERNELS, choose
from mandeldask.view import View

if TYPE_CHECKING:
    from mandeldask.store import Store

LIMIT = 2**31 - 1  # of max_iter
SAMPLED_SIDE = 4096  # of a view that is computed for a picture
IN_MEMORY = 2**28  # samples: 1 GiB of escape times


class Source(Protocol):
    """A field seen at every `stride`-th sample; rows and columns are indices of what is left, y ascending."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def max_iter(self) -> int: ...
    @property
    def fields(self) -> tuple[str, ...]: ...
    @property
    def missing(self) -> int:
        """Tiles that are not computed."""

    @property
    def text(self) -> str:
        """What the field is, in words."""

    def chunk(self, stride: int) -> tuple[int, int]:
        """Rows and columns that are best read at once."""

    def cost(self, stride: int) -> int:
        """Samples that are read for one."""

    def read(self, name: str, rows: slice, columns: slice, stride: int) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Stored:
    """A store: each stride is read from the coarsest level that has it."""

    store: Store

    @property
    def shape(self) -> tuple[int, int]:
        return self.store.description.shape

    @property
    def max_iter(self) -> int:
        return self.store.description.max_iter

    @property
    def fields(self) -> tuple[str, ...]:
        return self.store.description.fields

    @property
    def text(self) -> str:
        d = self.store.description
        return _text(d.view, d.max_iter)

    @cached_property
    def _done(self) -> NDArray[np.bool_]:
        return self.store.done()

    @property
    def missing(self) -> int:
        return int((~self._done).sum())

    @cached_property
    def _levels(self) -> tuple[int, ...]:
        """The levels that hold all that the field does: of a field in the making those that its own tiles write."""
        d = self.store.description
        if self.missing:
            return 0, *(k for k in range(1, d.fine + 1) if self.store.done(k)[self._done].all())
        return 0, *(level.number for level in d.levels[1:] if self.store.done(level.number).all())

    def _level(self, stride: int) -> tuple[int, int]:
        """The level to read, and its stride."""
        level = max(k for k in self._levels if stride % (1 << k) == 0)
        return level, stride >> level

    def chunk(self, stride: int) -> tuple[int, int]:
        from mandeldask.store import chunk_side

        level, step = self._level(stride)
        rows, columns = (chunk_side(side) for side in self.store.description.levels[level].tile)
        return max(1, rows // step), max(1, columns // step)

    def cost(self, stride: int) -> int:
        return self._level(stride)[1] ** 2

    def read(self, name: str, rows: slice, columns: slice, stride: int) -> NDArray[Any]:
        level, step = self._level(stride)
        y, x = (slice(s.start * step, (s.stop - 1) * step + 1) for s in (rows, columns))
        try:
            return self.store.window(y, x, level, name)[::step, ::step]
        except OSError as error:
            raise StoreError(f"cannot read {self.store.path}: {error.strerror or error}") from None


@dataclass(frozen=True)
class Held:
    """Arrays in memory."""

    arrays: Mapping[str, NDArray[Any]]
    max_iter: int
    text: str = ""
    missing: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.arrays["escape_time"].shape
        return rows, columns

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.arrays)

    def chunk(self, stride: int) -> tuple[int, int]:  # noqa: ARG002 (memory has no levels)
        return 1, 1

    def cost(self, stride: int) -> int:  # noqa: ARG002
        return 1

    def read(self, name: str, rows: slice, columns: slice, stride: int) -> NDArray[Any]:
        y, x = (slice(s.start * stride, (s.stop - 1) * stride + 1, stride) for s in (rows, columns))
        return self.arrays[name][y, x]


def hold(field: Any, max_iter: int | None) -> Held:
    """The source of a field in memory, or one that Dask computes now: an array, or a Dataset of its fields.

    Raises
    ------
    ConfigError
        No escape times of shape (rows, columns), or more of them than memory should hold; a `max_iter` out of range.
    """
    parts = {"escape_time": field}
    if hasattr(field, "keys"):  # a Dataset, a Zarr group, a dict
        parts = {name: field[name] for name in FIELDS if name in field}
        if "escape_time" not in parts:
            raise ConfigError(f"a dataset must have the field escape_time; got {', '.join(map(str, field)) or 'none'}")
    arrays = {name: _array(name, part) for name, part in parts.items()}
    counts = arrays["escape_time"]
    if len({a.shape for a in arrays.values()}) > 1:
        raise ConfigError(f"fields must have one shape; got {[a.shape for a in arrays.values()]}")
    if max_iter is None:
        max_iter = max(1, int(counts.max()))
    if isinstance(max_iter, bool) or not isinstance(max_iter, int | np.integer) or not 1 <= max_iter <= LIMIT:
        raise ConfigError(f"max_iter must be an integer from 1 to {LIMIT}; got {max_iter!r}")
    return Held(arrays, int(max_iter))


def sampled(view: View, fields: tuple[str, ...], max_iter: int | None, side: int) -> Held:
    """The source of a view of which every k-th sample is computed here, k the least that gives `side` of them.

    Raises
    ------
    ConfigError
        A view too deep for binary64, a `max_iter` out of range.
    """
    stride = max(1, -(-max(view.shape) // min(side, SAMPLED_SIDE)))
    rows, columns = view.shape
    cap = 1000 if max_iter is None else max_iter
    compute = KERNELS[choose(AUTO, view)[0]](cap, fields)
    block = np.concatenate(
        [
            compute(view.block((first, min(first + 64 * stride, rows)), (0, columns), stride=(stride, stride)))
            for first in range(0, rows, 64 * stride)
        ]
    )
    arrays = {name: block[name] for name in fields} if block.dtype.names else {"escape_time": block}
    return Held(arrays, int(cap), _text(view, cap))


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
