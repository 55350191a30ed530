"""A level of a store as an xarray Dataset, read by our own reader: what a shard claims is never believed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from mandeldask.store.description import Description

BLOCK_SIDE = 4096  # of a Dask block, in samples: 64 MiB of escape times


class _Lazy(BackendArray):
    """An array of a level, for xarray."""

    def __init__(self, samples: Any) -> None:
        self.samples, self.shape, self.dtype = samples, samples.shape, samples.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        """By slices that ascend; whole numbers and steps are taken from what was read."""
        ranges = [
            range(n)[k] if isinstance(k, slice) else range(k, k + 1) for k, n in zip(key, self.shape, strict=True)
        ]
        low = [min(r, default=0) for r in ranges]
        windows = [slice(a, max(r, default=-1) + 1) for a, r in zip(low, ranges, strict=True)]
        found = self.samples[windows[0], windows[1]]
        rows, columns = (np.asarray(r, int) - a for r, a in zip(ranges, low, strict=True))
        scalar = tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)
        return np.asarray(found[rows][:, columns][scalar])


def dataset(
    arrays: dict[str, Any],
    coordinates: dict[str, NDArray[np.float64]],
    documents: dict[str, dict[str, Any]],
    description: Description,
    token: str,
) -> xr.Dataset:
    """A Dataset of lazy Dask arrays, whose blocks begin where chunks do.

    Parameters
    ----------
    arrays : name -> what has shape, dtype, chunks and is read by slices
    documents : name -> the metadata of each array and coordinate, for its attributes and dimensions
    """

    def variable(name: str, values: Any) -> xr.Variable:
        document = documents[name]
        return xr.Variable(document["dimension_names"], values, document.get("attributes"))

    lazy = {name: variable(name, indexing.LazilyIndexedArray(_Lazy(samples))) for name, samples in arrays.items()}
    coords = {name: variable(name, values) for name, values in coordinates.items()}
    field = json.dumps(description.to_json())
    chunk = next(iter(arrays.values())).chunks
    dims = documents["escape_time"]["dimension_names"]
    blocks = {dim: side * max(1, BLOCK_SIDE // side) for dim, side in zip(dims, chunk, strict=True)}
    return xr.Dataset(lazy, coords, {"mandeldask": field}).chunk(blocks, token=token)
