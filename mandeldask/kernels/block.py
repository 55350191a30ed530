"""From a block of any shape to flat runs of samples, and back: what the kernels have in common."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mandeldask import buffers
from mandeldask.errors import ClusterError, ConfigError
from mandeldask.kernels.fields import BEYOND, FIELDS, NOT_ESCAPED, PROOFS_FROM, PROVED, Orbit, beyond
from mandeldask.view.outer import axes_of

Samples = NDArray[np.complex128]
Counts = NDArray[np.int32]
Count = Callable[..., None]
"""count(c, max_iter, at_end, out): escape times of flat `c` into flat `out`.

Who neither escapes nor is known never to gets `at_end`, which below PROOFS_FROM must be max_iter. One that `takes_axes`
is given those of c too.
"""
Outside = Callable[[Samples, int, Counts], Orbit]
"""outside(c, max_iter, counts): the orbits of the samples that escape, out to the larger bailout."""

BAND = 1 << 16  # samples: 1 MiB of complex128
SMALLEST, NORMAL, LITTLE = 5e-324, 2.0**-1022, 2.0**-60


@dataclass(frozen=True)
class BlockFunction:
    """Escape times, and other fields, of one block of samples.

    Called with a complex128 array of any shape, it gives an int32 array of that shape, in the same memory order; or,
    for more fields than escape_time, a structured array with an item a field, of the types in FIELDS.

    Raises
    ------
    ConfigError
        The block is not an array of complex128.
    ClusterError
        The processor is set to round otherwise than by default.
    """

    count: Count
    outside: Outside
    max_iter: int
    fields: tuple[str, ...]
    band: int | None = BAND
    """Most samples in a run; None: as many as lie side by side."""
    takes_axes: bool = False
    """Whether `count` is given the axes of a block that has them (`axes_of`)."""

    def __call__(self, c: Samples) -> NDArray[Any]:
        check(c)
        if self.fields == ("escape_time",):
            in_order = c.flags.c_contiguous
            times = buffers.empty(c.shape, np.int32) if in_order else np.empty_like(c, dtype=np.int32, subok=False)
            axes = axes_of(c) if self.takes_axes else None
            if axes:
                self.count(c.reshape(-1), self.max_iter, self.max_iter, times.reshape(-1), axes)
                return times
            for samples, counts in runs(c, times, band=self.band):
                self.count(samples, self.max_iter, self.max_iter, counts)
            return times
        out = np.empty_like(c, dtype=[(name, FIELDS[name]) for name in self.fields], subok=False)
        for samples, *targets in runs(c, *(out[name] for name in self.fields), band=BAND):
            self._fill(samples, dict(zip(self.fields, targets, strict=True)))
        return out

    def _fill(self, c: Samples, results: dict[str, NDArray[Any]]) -> None:
        """All fields of a run of samples."""
        counts = results["escape_time"]
        if "interior" in results:
            self._prove(c, counts, results["interior"])
        else:
            self.count(c, self.max_iter, self.max_iter, counts)
        if wanted := BEYOND.keys() & results.keys():
            orbit = self.outside(c, self.max_iter, counts)
            with np.errstate(over="ignore"):  # of a distance that float32 does not hold
                for name in wanted:
                    results[name][:] = beyond(name, orbit, c)

    def _prove(self, c: Samples, counts: Counts, interior: NDArray[np.uint8]) -> None:
        """Escape times, and what is known of who has none."""
        if self.max_iter < PROOFS_FROM:
            self.count(c, self.max_iter, self.max_iter, counts)
            interior[:] = counts == self.max_iter
            return
        self.count(c, self.max_iter, 0, counts)
        open_ = np.flatnonzero(counts == 0)
        interior[:] = counts == self.max_iter
        interior *= PROVED
        interior[open_], counts[open_] = NOT_ESCAPED, self.max_iter


def check(c: Samples) -> None:
    """ConfigError for what is no block; ClusterError for a processor that rounds otherwise than IEEE 754 by default.

    A library built with -ffast-math switches gradual underflow off in the thread that loads it, and in all that this
    one starts. So each block is checked, where it is computed; it takes less than a microsecond.
    """
    if not isinstance(c, np.ndarray) or c.dtype != np.complex128:
        kind = f"an array of {c.dtype}" if isinstance(c, np.ndarray) else f"a {type(c).__name__}"
        raise ConfigError(
            f"a block must be an array of complex128, which holds a sample to the last bit; got {kind}. "
            "Convert it with .astype(complex)"
        )
    if not (SMALLEST * 2.0**60 and NORMAL * 0.5):
        problem = "numbers below 2.2e-308 are taken as zero (flush-to-zero)"
    elif not 1.0 - LITTLE == 1.0 == 1.0 + LITTLE:
        problem = "results are not rounded to nearest"
    else:
        return
    raise ClusterError(
        f"on {socket.gethostname()} {problem}, which changes counts: a library loaded there, often one built with "
        "-ffast-math, has set the processor so. Compute in an environment without it"
    )


def runs(c: Samples, *outs: NDArray[Any], band: int | None) -> Iterator[tuple[NDArray[Any], ...]]:
    """(c, *outs) as flat contiguous arrays, run by run; what is written to an out arrives in its place.

    Arrays that lie side by side in memory, in C or Fortran order, are handed out as they are. Others (strided,
    reversed, broadcast) go through a buffer, so that no block is ever copied whole.
    """
    flags = ["buffered", "external_loop", "zerosize_ok"] + (["growinner"] if band is None else [])
    access = [["readonly", "contig", "aligned"]] + [["writeonly", "contig", "aligned"]] * len(outs)
    options = {"order": "K", "buffersize": band or BAND}
    with np.nditer([c, *outs], flags, access, **options) as iterator:  # type: ignore[call-overload]
        if iterator.itersize:
            yield from iterator
