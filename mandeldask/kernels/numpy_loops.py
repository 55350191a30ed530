"""The escape times in NumPy, twice: the lesson's masked loop, readable and the reference, and the fastest.

The lesson squares complex numbers. NumPy's complex multiply uses fused multiply-add where the CPU has it, which
changes some escape times from one CPU to the next; real adds, subtracts and multiplies are each rounded once,
everywhere alike.

The masked loop spends its time on masks: every step picks the running samples out of the whole block and puts them
back. In `compact` the samples still under way are kept together, and rarely looked at: each leaves the arrays once,
when it is done. The steps themselves are whole-array operations on real arrays that fit the CPU's cache, so their bits
are the contract's. The shortcuts are those of `mandeldask.kernels.shortcuts`. There the pair (z, n) means everywhere:
z = z_n, and none of z_0 ... z_(n-1) has escaped.
"""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mandeldask.kernels.shortcuts import never_escapes, never_returns

Flags = NDArray[np.bool_]
Numbers = NDArray[np.intp]

POOL = 1 << 17  # samples that go on together after the first steps: at most 130 bytes of temporaries each
CHUNK = 1 << 15  # samples that step together: z, c and scratch take 2 MB, about a second-level cache
LOOKS = (5, 10, 20)  # the steps after which the escaped leave, at first
BLOCK, LONGEST = 16, 112  # unchecked steps between two looks; the roll-back's int8 counts one more
CHECKED = 100  # checked steps between two looks, where every step has to be checked

_kept = threading.local()


def masked(c: NDArray[np.complex128], max_iter: int, at_end: int, n: NDArray[np.int32]) -> None:
    """Escape times of `c` into `n`: the smallest n with |z_n| > 2, at most `max_iter`.

    Who neither escapes nor lies in the cardioid or the disc gets `at_end`.
    """
    x, y = np.zeros(c.shape), np.zeros(c.shape)
    n[...] = 0
    with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN are samples like any other
        for _ in range(max_iter):
            inside = x * x + y * y <= 4
            if not inside.any():
                break
            u, v = x[inside], y[inside]
            x[inside] = (u * u - v * v) + c.real[inside]
            y[inside] = (u * v + u * v) + c.imag[inside]
            n[inside] += 1
    if at_end != max_iter:
        left = np.flatnonzero(n == max_iter)
        n[left[~never_escapes(c.real[left], c.imag[left], np.sqrt)]] = at_end


class _Running(NamedTuple):
    """Samples under way: z and c as (2, k) real arrays, and where in the band they come from."""

    z: NDArray[np.float64]
    c: NDArray[np.float64]
    at: Numbers

    def pick(self, flags: Flags) -> _Running:
        chosen = np.flatnonzero(flags)
        return _Running(self.z.take(chosen, -1), self.c.take(chosen, -1), self.at.take(chosen))

    def chunks(self) -> list[_Running]:
        """Copies, CHUNK samples each, to step in place."""
        parts = [slice(k, k + CHUNK) for k in range(0, self.at.size, CHUNK)]
        return [_Running(self.z[:, k].copy(), self.c[:, k].copy(), self.at[k]) for k in parts]


def compact(c: NDArray[np.complex128], max_iter: int, at_end: int, out: NDArray[np.int32]) -> None:
    """Escape times of flat `c` into flat `out`; `at_end` for who neither escapes nor is known to stay."""
    pool: list[_Running] = []
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, c.size, CHUNK):
            pool.append(_first_steps(c, start, max_iter, at_end, out))
            if start + CHUNK >= c.size or sum(lanes.at.size for lanes in pool) > POOL:
                _rounds(_join(pool), max_iter, at_end, out)
                pool = []


def _rounds(lanes: _Running, max_iter: int, at_end: int, out: NDArray[np.int32]) -> None:
    """From step LOOKS[-1] to the end, with twice the steps in every round; who is left then gets `at_end`."""
    n = LOOKS[-1]
    while n < max_iter and lanes.at.size:
        stop = min(2 * n, max_iter)
        late: list[tuple[_Running, int]] = []
        lanes = _join([_unchecked(chunk, n, stop, late) for chunk in lanes.chunks()])
        _roll_back(late, max_iter, at_end, out)
        n = stop
    out[lanes.at] = at_end


def _first_steps(c: NDArray[np.complex128], start: int, max_iter: int, at_end: int, out: NDArray[np.int32]) -> _Running:
    """Checked steps of one chunk; who is left, and not sure to stay, goes on. All who are left get max_iter."""
    samples = c[start : start + CHUNK]
    parts = np.empty((2, samples.size))
    parts[0], parts[1] = samples.real, samples.imag
    everyone = _Running(parts.copy(), parts, np.empty(0, np.intp))
    live, survived = _count_steps(everyone, min(LOOKS[0], max_iter) - 1)
    np.add(survived, 1, out=out[start : start + CHUNK], dtype=np.int32)
    chosen = np.flatnonzero(live)
    lanes = _Running(everyone.z.take(chosen, -1), parts.take(chosen, -1), chosen + start)
    for n, look in pairwise(LOOKS):
        lanes = _checked(lanes, n, min(look, max_iter), out)
    out[lanes.at] = max_iter
    cx, cy = lanes.c
    away = never_returns(cx, cy)
    out[_checked(lanes.pick(~away), LOOKS[-1], max_iter, out).at] = at_end
    return lanes.pick(away & ~never_escapes(cx, cy, np.sqrt))


def _checked(lanes: _Running, n: int, stop: int, out: NDArray[np.int32]) -> _Running:
    """From step n to `stop`, counting every step; who is left."""
    while n < stop and lanes.at.size:
        steps = min(CHECKED, stop - n)
        live, survived = _count_steps(lanes, steps)
        out[lanes.at] = survived.astype(np.int32) + n
        lanes = lanes.pick(live)
        n += steps
    return lanes


def _unchecked(lanes: _Running, n: int, stop: int, late: list[tuple[_Running, int]]) -> _Running:
    """From step n to `stop` with few looks; who is left. The escaped go on the list `late`, as of one look before."""
    saved, saved_at = lanes.z.copy(), n
    while n < stop and lanes.at.size:
        # an eighth of the steps so far: a sample that escapes has wasted half of that
        steps = min(max(BLOCK, n // 8), LONGEST, stop - n)
        before = lanes.z.copy()
        _steps(lanes, steps)
        x, y = lanes.z
        inside = x * x + y * y <= 4.0
        if not inside.all():
            late.append((_Running(before, lanes.c, lanes.at).pick(~inside), n))
        n += steps
        stay = inside & ~((x == saved[0]) & (y == saved[1]))  # a state that repeats goes round for ever
        if not stay.all():
            saved = saved.take(np.flatnonzero(stay), -1)
            lanes = lanes.pick(stay)
        if 2 * n >= 3 * saved_at:  # Brent: any cycle is shorter than the wait for some renewal
            saved, saved_at = lanes.z.copy(), n
    return lanes


def _roll_back(late: list[tuple[_Running, int]], max_iter: int, at_end: int, out: NDArray[np.int32]) -> None:
    """Exact counts of the lanes on the list, each with the step it is at: all escape within LONGEST steps."""
    if not late:
        return
    n = np.concatenate([np.full(lanes.at.size, n) for lanes, n in late])
    for k, chunk in enumerate(_join([lanes for lanes, _ in late]).chunks()):
        _, survived = _count_steps(chunk, LONGEST)
        counts = n[k * CHUNK : (k + 1) * CHUNK] + survived
        out[chunk.at] = np.where(counts < max_iter, counts, at_end)


def _steps(lanes: _Running, steps: int) -> None:
    z, c, _ = lanes
    (x, y), (squares, product) = z, _scratch(z.shape[1])
    for _ in range(steps):
        np.multiply(z, z, out=squares)
        np.multiply(x, y, out=product)
        np.subtract(squares[0], squares[1], out=x)
        np.add(product, product, out=y)
        np.add(z, c, out=z)


def _count_steps(lanes: _Running, steps: int) -> tuple[Flags, NDArray[np.int8]]:
    """As `_steps`, at most 127; whether each lane is still inside, and how many steps it survived."""
    z, c, _ = lanes
    (x, y), (squares, product) = z, _scratch(z.shape[1])
    inside, live = np.empty(product.size, bool), np.ones(product.size, bool)
    survived, size = np.zeros(product.size, np.int8), squares[0]
    for _ in range(steps):
        np.multiply(z, z, out=squares)
        np.multiply(x, y, out=product)
        np.subtract(squares[0], squares[1], out=x)
        np.add(squares[0], squares[1], out=size)
        np.less_equal(size, 4.0, out=inside)
        np.logical_and(live, inside, out=live)
        np.add(survived, live.view(np.int8), out=survived)
        np.add(product, product, out=y)
        np.add(z, c, out=z)
    return live, survived


def _scratch(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(2, size) and (size,) doubles, kept for the thread: fresh memory costs a page fault every 4 kB."""
    if not hasattr(_kept, "scratch"):
        _kept.scratch = np.empty((3, CHUNK))
    return _kept.scratch[:2, :size], _kept.scratch[2, :size]


def _join(parts: list[_Running]) -> _Running:
    return _Running(*(np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)))
