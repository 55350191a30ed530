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

Samples of a deep view are offsets from its origin, and their counts those of exact arithmetic, each proven: the kernel
`deep` (`mandeldask.kernels.deep`) computes these and no other. `block_function` makes that of any kernel.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mandeldask.errors import ConfigError
from mandeldask.kernels import fastest
from mandeldask.kernels import fields as others
from mandeldask.kernels.block import BAND, BlockFunction
from mandeldask.kernels.fastest import AUTO, here, lacking, on_cpu, report
from mandeldask.kernels.fields import EXACT_FIELDS, FIELDS
from mandeldask.view import Deep, View

if TYPE_CHECKING:  # takes Numba
    from mandeldask.kernels.deep import Loader, Reference

__all__ = [
    "AUTO",
    "DEEP",
    "EXACT_FIELDS",
    "FIELDS",
    "KERNELS",
    "MAX_ITER_LIMIT",
    "SCRATCH_BYTES",
    "BlockFunction",
    "Exact",
    "Kernel",
    "Proof",
    "beyond",
    "block_function",
    "choose",
    "here",
    "kernel_names",
    "lacking",
    "last_counts",
    "on_cpu",
    "orbit_of_its_own",
    "reference_of",
    "report",
    "tells_of_compilation",
]

MAX_ITER_LIMIT = 2**31 - 1


Kernel = Callable[[NDArray[np.complex128]], NDArray[Any]]
"""A block function of any kernel."""


def _make(
    kernel: str, max_iter: int, fields: tuple[str, ...] = ("escape_time",), view: View | None = None
) -> BlockFunction:
    _check(max_iter, fields, view, kernel)
    if kernel in _INSTEAD:
        choose(kernel)
    band = BAND if kernel == "numpy" else None  # the others see to their memory themselves
    axes = kernel in ("cuda", AUTO)
    return BlockFunction(*fastest.functions(kernel), int(max_iter), tuple(fields), band, axes)


KERNELS: dict[str, Callable[..., BlockFunction]] = {
    name: partial(_make, name) for name in ("numpy", "numpy-compact", "numba", "cuda", AUTO)
}

SCRATCH_BYTES = 32 * 2**20  # at most, beside block and result, however large the block

DEEP = "deep"
Proof = Literal["full", "double-double", "none"]


def kernel_names() -> list[str]:
    """All that a kernel may be called."""
    return [*(name for name in KERNELS if name != AUTO), DEEP, AUTO]


def reference_of(view: View, max_iter: int, tell: Callable[[int, int], object] | None = None) -> Reference:
    """The reference orbit of a deep view; `tell` is given the steps that are done, and of how many at most."""
    from mandeldask.kernels.deep import reference_orbit  # takes Numba

    assert isinstance(view.frame, Deep)
    return reference_orbit(view.frame.exact_origin, view.frame.finest, max_iter, tell)


@dataclass(frozen=True)
class _OwnReference:
    """A loader that works out the reference in each process."""

    view: View
    max_iter: int

    @property
    def key(self) -> str:
        return repr((self.view.frame, self.max_iter))

    def __call__(self) -> Reference:
        return reference_of(self.view, self.max_iter)


@dataclass(frozen=True)
class Exact:
    """The kernel deep with what it takes: a deep view, what gives its reference orbit, and how far to go for a proof.

    Without a `reference` each process works out its own.
    """

    view: View
    reference: Loader | None = None
    proof: Proof = "full"


def block_function(
    kernel: str | Exact, max_iter: int, fields: tuple[str, ...] = ("escape_time",), view: View | None = None
) -> Kernel:
    """The block function of a kernel: a key of KERNELS, or Exact, for which "deep" with the view may stand."""
    if isinstance(kernel, str) and kernel != DEEP:
        return KERNELS[kernel](max_iter, fields, view)
    view = kernel.view if isinstance(kernel, Exact) else view
    choose(DEEP, view)
    assert view is not None and isinstance(view.frame, Deep)
    exact = kernel if isinstance(kernel, Exact) else Exact(view)
    _check(max_iter, fields, view, DEEP)
    if exact.proof not in get_args(Proof):
        raise ConfigError(f"proof must be one of {', '.join(get_args(Proof))}; got {exact.proof!r}")
    from mandeldask.kernels import deep  # takes Numba

    loader = exact.reference or _OwnReference(view, int(max_iter))
    return deep.DeepFunction(int(max_iter), tuple(fields), loader, exact.proof, view.frame.unit)


def last_counts() -> tuple[int, int, int]:
    """Samples of this thread's last deep block that a second pass took, a third, and unproven."""
    from mandeldask.kernels import deep  # takes Numba

    return deep.last_counts()


def orbit_of_its_own(view: View, offset: complex, max_iter: int) -> tuple[int, bool]:
    """The escape time of a sample of a deep view by its own orbit in fixed point, and whether that is proven."""
    from mandeldask.kernels.deep import count_at  # takes Numba

    assert isinstance(view.frame, Deep)
    found = count_at(view.frame.exact_origin, view.frame.unit, offset, max_iter)
    return found.n, found.proven


_INSTEAD = {
    "numba": "install it, or take kernel: numpy-compact",
    "cuda": "take kernel: auto, which gives the same counts",
}


def choose(name: str, view: View | None = None, *, here: bool = True) -> tuple[str, str]:
    """The kernel to take, a key of KERNELS or "deep", and why, in a few words.

    "auto" stays what it is: each process that computes takes its fastest. With
    `here` false a kernel that is named may be one that only other machines have. For a deep view there is one kernel.

    Raises
    ------
    ConfigError
        No such kernel; a kernel that this machine lacks; a view in an arithmetic that is not the kernel's, or too deep
        for it.
    """
    if name not in kernel_names():
        close = difflib.get_close_matches(str(name), kernel_names(), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"kernel must be one of {', '.join(kernel_names()[:-1])} or {AUTO}; got {name!r}{hint}")
    exact = view is not None and isinstance(view.frame, Deep)
    if name == DEEP and not exact:
        raise ConfigError(
            "kernel deep computes in exact arithmetic, and this view is in binary64: ask for arithmetic: exact, or "
            "take kernel: auto"
        )
    if view is not None and not (exact and name == AUTO):
        _check_view(name, view)
    if exact and here and (problem := lacking("numba")):
        raise ConfigError(f"the kernel deep {problem}; install it")
    if exact:
        return (
            DEEP,
            "as asked"
            if name == DEEP
            else "exact arithmetic, at any depth; it runs on CPUs, also where a worker has a GPU",
        )
    if name == AUTO:
        problem = lacking("numba")
        why = f", as numba {problem}" if problem else ""
        return AUTO, f"each worker's fastest, {on_cpu()} here{why}, or cuda with a GPU; the same bits"
    if here and (problem := lacking(name)):
        raise ConfigError(f"the kernel {name} {problem}; {_INSTEAD[name]}")
    return name, "as asked"


def beyond(name: str, c: NDArray[np.complex128], counts: NDArray[Any], max_iter: int, kernel: str = "") -> NDArray[Any]:
    """A field beyond the count, of samples whose counts are known, 0 where not: their orbits are followed once more."""
    known = np.where(counts > 0, counts, max_iter).astype(np.int32, copy=False)
    orbits = KERNELS[kernel or on_cpu()](1).outside(c.ravel(), max_iter, known.ravel())
    return others.beyond(name, orbits, c.ravel()).reshape(counts.shape)


def _check_view(name: str, view: View) -> None:
    """Refuse a view that this kernel cannot compute."""
    if name != DEEP and isinstance(view.frame, Deep):
        raise ConfigError(
            f"the view is too deep for binary64, or asks for exact arithmetic, and kernel {name} computes in binary64: "
            "take kernel: deep, or auto"
        )
    view.check_resolved()


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


def _check(max_iter: int, fields: tuple[str, ...], view: View | None, name: str) -> None:
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
        _check_view(name, view)
