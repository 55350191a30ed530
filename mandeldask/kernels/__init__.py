"""The escape-time kernels: one contract, interchangeable, the same bits from every one.

For a sample c = cx + i cy, in IEEE binary64 with no fused multiply-add and no reassociation:

    x = y = 0; n = 0
    while n < max_iter and x*x + y*y <= 4:      # a NaN compares false: it escapes
        x, y = (x*x - y*y) + cx, (x*y + x*y) + cy
        n += 1
    escape_time = n                              # int32, 1..max_iter

So n is the smallest with |z_n| > 2, at most max_iter. A sample with an infinite or NaN part has the escape time 1, as
has any with |c| > 2 (for max_iter 1, every sample). n = max_iter says *not escaped within max_iter*, no more.

`KERNELS[name]` is a factory, `make(max_iter, fields=("escape_time",), view=None) -> block function`. A block function
takes a complex128 array of any shape, strides and size, zero included, and gives the int32 escape times in that shape;
asked for more fields (see `mandeldask.kernels.fields`), a structured array of that shape with one item a field. It is
pure and picklable, releases the GIL where it is compiled, and needs a few MB of memory beside block and result, however
large the block is. What costs time once belongs in `make`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.kernels import fastest, numpy_loops
from mandeldask.kernels.block import BlockFunction
from mandeldask.kernels.fastest import here, lacking, on_cpu, report
from mandeldask.kernels.fields import BEYOND, FIELDS, outside

if TYPE_CHECKING:
    from mandeldask.view import View

__all__ = [
    "AUTO",
    "FIELDS",
    "KERNELS",
    "MAX_ITER_LIMIT",
    "SCRATCH_BYTES",
    "BlockFunction",
    "Factory",
    "beyond",
    "choose",
    "here",
    "lacking",
    "on_cpu",
    "report",
    "tells_of_compilation",
]

MAX_ITER_LIMIT = 2**31 - 1


class Factory(Protocol):
    def __call__(
        self, max_iter: int, fields: tuple[str, ...] = ("escape_time",), view: View | None = None
    ) -> BlockFunction: ...


def _masked(max_iter: int, fields: tuple[str, ...] = ("escape_time",), view: View | None = None) -> BlockFunction:
    _check(max_iter, fields, view)
    return BlockFunction(numpy_loops.masked, outside, int(max_iter), tuple(fields))


def _compact(max_iter: int, fields: tuple[str, ...] = ("escape_time",), view: View | None = None) -> BlockFunction:
    _check(max_iter, fields, view)
    return BlockFunction(numpy_loops.compact, outside, int(max_iter), tuple(fields), band=None)


def _lanes(max_iter: int, fields: tuple[str, ...] = ("escape_time",), view: View | None = None) -> BlockFunction:
    _check(max_iter, fields, view)
    choose("numba")
    from mandeldask.kernels import lanes  # a worker that runs a NumPy kernel never waits for Numba

    return lanes.make(int(max_iter), tuple(fields))


def _cuda(max_iter: int, fields: tuple[str, ...] = ("escape_time",), view: View | None = None) -> BlockFunction:
    _check(max_iter, fields, view)
    choose("cuda")
    from mandeldask.kernels import cuda

    return cuda.make(int(max_iter), tuple(fields))


def _fastest(max_iter: int, fields: tuple[str, ...] = ("escape_time",), view: View | None = None) -> BlockFunction:
    _check(max_iter, fields, view)
    return fastest.make(int(max_iter), tuple(fields))


AUTO = "auto"  # chosen where it runs

KERNELS: dict[str, Factory] = {
    "numpy": _masked,
    "numpy-compact": _compact,
    "numba": _lanes,
    "cuda": _cuda,
    AUTO: _fastest,
}

SCRATCH_BYTES = 32 * 2**20  # at most, beside block and result, however large the block

_INSTEAD = {
    "numba": "install it, or take kernel: numpy-compact",
    "cuda": "take kernel: auto, which gives the same counts",
}


def choose(name: str, view: View | None = None, *, here: bool = True) -> tuple[str, str]:
    """The kernel to take, a key of KERNELS, and why, in a few words.

    "auto" stays what it is: each process that computes takes its fastest. With
    `here` false a kernel that is named may be one that only other machines have.

    Raises
    ------
    ConfigError
        No such kernel; a kernel that this machine lacks; a view too deep for binary64, in which all kernels compute.
    """
    if name not in KERNELS:
        close = difflib.get_close_matches(str(name), KERNELS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        *others, last = KERNELS
        raise ConfigError(f"kernel must be one of {', '.join(others)} or {last}; got {name!r}{hint}")
    if view is not None:
        view.check_resolved()
    if name == AUTO:
        problem = lacking("numba")
        why = f", as numba {problem}" if problem else ""
        return AUTO, f"each worker's fastest, {on_cpu()} here{why}, or cuda with a GPU; the same bits"
    if here and (problem := lacking(name)):
        raise ConfigError(f"the kernel {name} {problem}; {_INSTEAD[name]}")
    return name, "as asked"


def beyond(
    name: str, c: NDArray[np.complex128], counts: NDArray[Any], max_iter: int, kernel: str = ""
) -> NDArray[np.float32]:
    """A field beyond the count, of samples whose counts are known, 0 where not: their orbits are followed once more."""
    known = np.where(counts > 0, counts, max_iter).astype(np.int32, copy=False)
    orbits = KERNELS[kernel or on_cpu()](1).outside(c.ravel(), max_iter, known.ravel())
    return BEYOND[name](orbits).reshape(counts.shape)


@contextmanager
def tells_of_compilation(tell: Callable[[], object]) -> Iterator[None]:
    """Call `tell` once if Numba compiles in this context. What it finds in its cache is not compiled."""
    from numba.core import event  # only for a kernel that needs it

    class Listener(event.Listener):
        told = False

        def on_start(self, event: Any) -> None:  # noqa: ARG002 (the signature of a listener)
            if not self.told:
                self.told = True
                tell()

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield


def _check(max_iter: int, fields: tuple[str, ...], view: View | None) -> None:
    if isinstance(max_iter, bool) or not isinstance(max_iter, int | np.integer):
        raise ConfigError(f"max_iter must be an integer; got {max_iter!r}")
    if not 1 <= max_iter <= MAX_ITER_LIMIT:
        raise ConfigError(f"max_iter must be from 1 to {MAX_ITER_LIMIT}; got {max_iter}")
    known = set(fields) <= set(FIELDS) and len(set(fields)) == len(fields)
    if isinstance(fields, str) or not known or "escape_time" not in fields:
        raise ConfigError(
            f"fields must be escape_time and, if wanted, others of [{', '.join(FIELDS)}], each once; got {fields!r}"
        )
    if view is not None:
        view.check_resolved()
