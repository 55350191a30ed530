"""What Numba compiles of the deep kernel, for which types."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from numba import types

from mandeldask.kernels.compiling import compiled
from mandeldask.kernels.deep import first, second, table
from mandeldask.kernels.deep import follow as following
from mandeldask.kernels.deep.follow import DE, EE, WORST, E, bounds

__all__ = ["DE", "EE", "WORST", "E", "bounds", "fill", "first_pass", "flatten", "follow", "second_pass"]

SOURCES = (
    "kernels/fields.py",
    *(f"kernels/deep/{name}.py" for name in ("arithmetic", "far", "first", "follow", "second", "table")),
)

_whole, _real, _yes = types.int64, types.float64, types.boolean
_numbers, _matrix = types.float64[::1], types.float64[:, ::1]
_orbit = types.complex128[::1]
_table = types.NamedTuple(
    (_orbit, _orbit, types.int64[::1], _matrix, _matrix, types.int32[:, ::1], types.int64[::1]), table.Table
)
_results = types.int64[::1], types.boolean[::1], _matrix

follow = compiled(following.make_follow, SOURCES, _orbit, _matrix, _whole, _real, _yes, _numbers, gives=_whole)
fill = compiled(table.make_fill, SOURCES, _table, _matrix, types.int32[:, ::1])
flatten = compiled(table.make_flatten, SOURCES, _table, _whole, _matrix)
first_pass = compiled(
    first.make_first_pass,
    SOURCES,
    _table,
    _matrix,
    _numbers,
    _numbers,
    _whole,
    _whole,
    _real,
    _yes,
    _real,
    *_results,
)
second_pass = compiled(
    second.make_second_pass, SOURCES, _table, _numbers, _numbers, _whole, _whole, _real, _real, *_results
)
