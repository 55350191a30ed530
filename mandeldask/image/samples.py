"""The samples that a picture is drawn from: of a store with its levels, or of arrays in memory."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError, StoreError
from mandeldask.kernels import DEEP, FIELDS, MAX_ITER_LIMIT, beyond, block_function, on_cpu
from mandeldask.view import Deep, View

if TYPE_CHECKING:  # zarr is imported once there is a store
    from mandeldask.store import Store

VIEW_SIDE = 4096  # samples a side, at most, of a view that is computed for a picture
IN_MEMORY = 2**28  # samples: 1 GiB of escape times
OVERVIEW_SIDE = 1024
ORBIT_END = 16  # iterations that a sample costs beside its count: the way to the larger bailout, and a logarithm
FEW = 2**25  # iterations: a quarter of a second of NumPy, and a third to import Numba


@dataclass(frozen=True)
class Samples:
    """Every `stride`-th sample of a field, read from the coarsest level that has it; y ascends.

    `levels` are the field's parts by name, in level k every 2^k-th sample of them.
    """

    levels: Mapping[int, Mapping[str, Any]]
    max_iter: int
    text: str = ""  # describes the field
    missing: int = 0  # tiles that are not computed
    path: str = ""
    view: View | None = None  # where the samples lie, in binary64; None where that is not known
    apart: int = 1  # level 0 has every so many-th sample of the view
    stride: int = 1
    strip: bool = False  # whether columns are angles over a full turn
    noted: Any = None  # how the run that made the field drew it; from a stranger anything

    @property
    def fields(self) -> tuple[str, ...]:
        """What can be read: the parts, and where samples lie in a view the others too."""
        return tuple(FIELDS if self.view else self.levels[0])

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = (-(-n // self.stride) for n in self.levels[0]["escape_time"].shape)
        return rows, columns

    @cached_property
    def level(self) -> int:
        return max(k for k in self.levels if self.stride % (1 << k) == 0)

    @property
    def step(self) -> int:
        """Of which of the level's samples this is each one."""
        return self.stride >> self.level

    @property
    def chunk(self) -> tuple[int, int]:
        """Rows and columns that are best read at once."""
        rows, columns = getattr(self.levels[self.level]["escape_time"], "chunks", (1, 1))  # memory has none
        return max(1, rows // self.step), max(1, columns // self.step)

    @cached_property
    def overview(self) -> Samples:
        """The field in so few samples that it can be held in memory: within 0.0005 of the exact histogram."""
        stride = 1
        while max(replace(self, stride=stride).shape) > OVERVIEW_SIDE:
            stride *= 2
        return replace(self, stride=stride)

    @cached_property
    def counts(self) -> NDArray[Any]:
        """All escape times."""
        return self.read("escape_time", slice(0, self.shape[0]), slice(0, self.shape[1]))

    @cached_property
    def cost(self) -> float:
        """Iterations, about, that it takes to follow the orbits of all samples that escaped once more."""
        counts = self.overview.counts
        return math.prod(self.shape) * (float(np.where(counts < self.max_iter, counts, 0).mean()) + ORBIT_END)

    def read(self, name: str, rows: slice, columns: slice, counts: NDArray[Any] | None = None) -> NDArray[Any]:
        """A window of a part; of one that is not there from the orbits, given the `counts` there or without."""
        if name not in self.levels[self.level]:
            counts = self.read("escape_time", rows, columns) if counts is None else counts
            return self._beyond(name, rows, columns, counts)
        y, x = (slice(s.start * self.step, (s.stop - 1) * self.step + 1, self.step) for s in (rows, columns))
        try:
            return np.asarray(self.levels[self.level][name][y, x])
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror or error}") from None

    def _beyond(self, name: str, rows: slice, columns: slice, counts: NDArray[Any]) -> NDArray[Any]:
        """A field beyond the count, of the samples that escaped. Of a few by NumPy: to import Numba takes as long."""
        assert self.view
        k = self.stride * self.apart
        y, x = ((s.start * k, (s.stop - 1) * k + 1) for s in (rows, columns))
        few = "numba" not in sys.modules and self.cost < FEW
        c = self.view.block(y, x, stride=(k, k))
        return beyond(name, c, counts, self.max_iter, "numpy-compact" if few else "")


def samples_of(field: Any, max_iter: int | None) -> Samples:
    """The samples of a path, a Store, an array or a Dataset of fields; Dask's are computed now.

    ConfigError for no escape times of shape (rows, columns), more than memory should hold, a `max_iter` out of range;
    StoreError where the store cannot be opened.
    """
    from mandeldask.store import Store, open_store

    if isinstance(field, str | os.PathLike):
        field = open_store(field)
    if isinstance(field, Store):
        return _stored(field)
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
    return Samples({0: arrays}, int(max_iter))


def _stored(store: Store) -> Samples:
    from mandeldask.store import StoredSamples

    d, done = store.description, store.done()
    missing = int((~done).sum())
    # Of an unfinished field a level serves if it has all that is done: those that its own tiles write may.
    further = range(1, d.fine + 1) if missing else range(1, len(d.levels))
    levels = [0, *(k for k in further if store.done(k)[done if missing else ...].all())]
    fields = {k: {name: StoredSamples(store, k, name) for name in d.fields} for k in levels}
    text = _text(d.view, d.max_iter, d.proof)
    view, noted = None if d.exact else d.view, store.read_notes().get("picture")
    return Samples(fields, d.max_iter, text, missing, store.path, view, strip=bool(d.view.strip), noted=noted)


def computed(view: View, max_iter: int | None, stride: int) -> Samples:
    """Every k-th sample of a view, computed in this process, k being `stride` or more.

    ConfigError for a view that no kernel can compute, a `max_iter` out of range.
    """
    stride = max(stride, -(-max(view.shape) // VIEW_SIDE))
    rows, columns = view.shape
    cap = 1000 if max_iter is None else max_iter
    exact = isinstance(view.frame, Deep)
    compute = block_function(DEEP if exact else on_cpu(), cap, view=view)
    bands = [(first, min(first + 64 * stride, rows)) for first in range(0, rows, 64 * stride)]
    counts = np.concatenate([compute(view.block(band, (0, columns), stride=(stride, stride))) for band in bands])
    text = _text(view, cap)
    return Samples({0: {"escape_time": counts}}, int(cap), text, view=None if exact else view, apart=stride)


def _text(view: View, max_iter: int, proof: str = "full") -> str:
    preview = ", a preview in which some counts are wrong" if proof == "none" else ""
    return f"Mandelbrot escape times, {view}, max_iter {max_iter}{preview}"


def _array(name: str, field: Any) -> NDArray[Any]:
    shape, dtype = tuple(getattr(field, "shape", ())), getattr(field, "dtype", None)
    kind, what = ("iu", "integers") if FIELDS[name][1] in "iu" else ("f", "floats")
    if len(shape) != 2 or 0 in shape or dtype is None or np.dtype(dtype).kind not in kind:
        got = repr(field) if dtype is None else f"{dtype} of shape {shape}"
        raise ConfigError(f"a field must be {what} of shape (rows, columns), or the path of a store; got {got}")
    if shape[0] * shape[1] > IN_MEMORY:
        raise ConfigError(
            f"a field of {shape[0]} x {shape[1]} is too large to be held in memory: store it (mandeldask.run), "
            "and draw the store"
        )
    return np.asarray(field)
