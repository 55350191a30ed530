"""The contract of an escape-time kernel, as functions that every kernel is passed to."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from mandeldask.kernels import KERNELS
from mandeldask.view import View

ON_CPU = [name for name in KERNELS if name not in ("cuda", "auto")]  # simulated_cuda.py takes cuda through the same


def reference(c: complex, max_iter: int) -> int:
    """The definition, word for word, in Python floats: each operation rounded once, nothing fused."""
    cx, cy = float(c.real), float(c.imag)
    x = y = 0.0
    n = 0
    while n < max_iter and x * x + y * y <= 4:
        x, y = (x * x - y * y) + cx, (x * y + x * y) + cy
        n += 1
    return n


def expected(c: NDArray[np.complex128], max_iter: int) -> NDArray[np.int32]:
    return np.array([reference(v, max_iter) for v in c.ravel()], np.int32).reshape(c.shape)


@numba.njit("i4[::1](c16[::1], i8)", nogil=True, cache=True)
def scalar_loop(c, max_iter):
    """`reference`, compiled: one sample at a time, nothing vectorised, nothing fused."""
    out = np.empty(c.size, np.int32)
    for k in range(c.size):
        cx, cy = c[k].real, c[k].imag
        x = y = 0.0
        n = 0
        while n < max_iter and x * x + y * y <= 4:
            x, y = (x * x - y * y) + cx, (x * y + x * y) + cy
            n += 1
        out[k] = n
    return out


INTERESTING = [
    -2.0,
    -1.25,
    -0.75,
    -0.5,
    -0.0,
    0.0,
    0.25,
    0.5,
    1.0,
    2.0,
    np.inf,
    -np.inf,
    np.nan,
    1e308,
    5e-324,
]
near = st.builds(lambda v, ulps: v + ulps * np.spacing(v), st.sampled_from(INTERESTING[:10]), st.integers(-4, 4))
part = st.one_of(st.floats(-2.5, 2.5), near, st.sampled_from(INTERESTING), st.floats())


def _edge(kind: str, angle: float, ulps_x: int, ulps_y: int) -> complex:
    """A point a few units in the last place from a curve where shortcuts begin or end."""
    turn = np.exp(1j * angle)
    c = {
        "cardioid": turn / 2 - turn * turn / 4,
        "disc": -1 + turn / 4,
        "margin of the cardioid": (m := turn * np.sqrt(1 - 1e-3)) / 2 - m * m / 4,
        "margin of the disc": -1 + turn * np.sqrt(1 - 1e-3) / 4,
        "|c| = 2": 2 * turn,
        "tip": -2 + 1e-9 * turn,
        "real axis": complex(2.25 * angle / (2 * np.pi) - 2, 0),
    }[kind]
    return complex(c.real + ulps_x * np.spacing(c.real), c.imag + ulps_y * np.spacing(c.imag))


KINDS = ["cardioid", "disc", "margin of the cardioid", "margin of the disc", "|c| = 2", "tip", "real axis"]
edge = st.builds(_edge, st.sampled_from(KINDS), st.floats(0, 2 * np.pi), st.integers(-4, 4), st.integers(-4, 4))
sample = st.one_of(st.builds(complex, part, part), edge)


@lru_cache
def boundary_points(size: int, seed: int = 0) -> NDArray[np.complex128]:
    """Random points close to the boundary of the set: between a point inside and one outside, halved 5 to 45 times."""
    random = np.random.default_rng(seed)

    def draw(keep):
        c = random.uniform(-2, 0.5, 20 * size) + 1j * random.uniform(0, 1.15, 20 * size)
        return np.resize(c[keep(scalar_loop(c, 100))], size)

    inside, outside = draw(lambda n: n == 100), draw(lambda n: n < 100)
    halvings = random.integers(5, 46, size)
    for k in range(halvings.max()):
        middle = (inside + outside) / 2
        stays = scalar_loop(middle, 500) == 500
        inside = np.where((k < halvings) & stays, middle, inside)
        outside = np.where((k < halvings) & ~stays, middle, outside)
    return np.where(random.random(size) < 0.5, inside, outside)


def check_boundary(make: Callable, size: int, max_iter: int = 20_000, seed: int = 0) -> None:
    """No difference from the compiled scalar loop at `size` points near the boundary."""
    c = boundary_points(size, seed)
    wrong = np.flatnonzero(make(max_iter)(c) != scalar_loop(c, max_iter))
    assert wrong.size == 0, f"{wrong.size} of {size} differ, the first at {c[wrong[0]]!r}"


def check_kernel(make: Callable, boundary: int = 50_000, large: int = 1500, share: float = 1) -> None:
    """Bits, shape, type, purity and pickling of the block functions that `make` gives.

    `boundary` points near the boundary of the set are compared, and large blocks at max_iter `large`; with a `share`
    below 1 fewer examples are tried, and large blocks have shorter sides.
    """

    @settings(deadline=None, max_examples=int(150 * share))
    @given(
        blocks=hnp.arrays(
            np.complex128, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9), elements=sample
        ),
        max_iter=st.integers(1, 80),
        order=st.sampled_from("CF"),
        step=st.sampled_from([1, 2, -1]),
    )
    def same_bits_for_any_block(blocks, max_iter, order, step):
        c = np.array(blocks, order=order)
        c = c[..., ::step] if c.ndim else c
        before = c.copy()
        out = make(max_iter)(c)
        assert out.dtype == np.int32 and out.shape == c.shape
        assert np.array_equal(out, expected(c, max_iter))
        assert c.tobytes() == before.tobytes(), "the block is only read"

    @settings(deadline=None, max_examples=int(40 * share))
    @given(
        points=st.lists(edge, min_size=1, max_size=8),
        copies=st.integers(1, 60),
        max_iter=st.one_of(st.integers(1, 200), st.integers(201, 3000)),
    )
    def same_bits_where_shortcuts_begin(points, copies, max_iter):
        c = np.repeat(np.array(points), copies)
        assert np.array_equal(make(max_iter)(c), scalar_loop(c, max_iter))

    @settings(deadline=None, max_examples=int(25 * share))
    @given(rows=st.integers(1, 40), columns=st.integers(1, 130), max_iter=st.integers(1, 300), data=st.data())
    def same_bits_for_any_chunking(rows, columns, max_iter, data):
        view = View((-2, 1), (-1.5, 1.5), (rows, columns), "pixel")
        whole = make(max_iter)(view.block((0, rows), (0, columns)))
        r, k = data.draw(st.integers(0, rows)), data.draw(st.integers(0, columns))
        parts = [[make(max_iter)(view.block(rr, kk)) for kk in ((0, k), (k, columns))] for rr in ((0, r), (r, rows))]
        assert np.array_equal(np.block(parts), whole)
        assert np.array_equal(whole, expected(view.block((0, rows), (0, columns)), max_iter))

    def same_bits_in_large_blocks():
        rows, columns = int(411 * share), int(503 * share)
        c = View((-2, 0.5), (-1.2, 1.2), (rows, columns)).block((0, rows), (0, columns))
        right = scalar_loop(c.reshape(-1), large).reshape(c.shape)
        kernel = make(large)
        for block, times in (
            (c, right),
            (c.T, right.T),
            (c[::-2, 5::3], right[::-2, 5::3]),
            (c[:1, :1], right[:1, :1]),
        ):
            assert np.array_equal(kernel(block), times)
        assert np.array_equal(kernel(np.broadcast_to(c[7], c.shape)), np.broadcast_to(right[7], c.shape))

    def takes_what_other_processes_send():
        c = np.linspace(-2, 1, 100) + 0.3j
        right = scalar_loop(c, 200)
        c.flags.writeable = False
        odd = np.frombuffer(b"-" + c.tobytes(), np.uint8)[1:].view(np.complex128)  # read-only, at an odd address
        assert np.array_equal(make(200)(c), right)
        assert np.array_equal(make(200)(odd), right)

    def known_values():
        pi = [(-0.75 + 1j * 10.0**-k, n) for k, n in enumerate([3, 33, 315, 3143, 31417, 314160])]  # OEIS A097486
        cusp = [
            (0.25 + 10.0**-k, n) for k, n in enumerate([2, 8, 30, 97, 312, 991, 3140, 9933, 31414, 99344])
        ]  # A299415
        c = np.array([c for c, _ in pi + cusp])
        assert make(400_000)(c).tolist() == [n for _, n in pi + cusp]

    def infinities_and_nan_escape_at_once():
        odd = [np.inf, -np.inf, np.nan, 1e308, -1e308, 2.1]
        c = np.array([complex(a, b) for a in odd for b in [*odd, 0.0]] + [complex(0.0, b) for b in odd])
        for max_iter in (1, 2, 1000):
            assert (make(max_iter)(c) == 1).all()

    def symmetric_and_monotone():
        c = View((-2, 1), (-1.5, 1.5), (61, 67)).block((0, 61), (0, 67))
        at_500 = make(500)(c)
        assert np.array_equal(make(500)(c.conj()), at_500)
        for m in (1, 2, 7, 100, 499):
            assert np.array_equal(make(m)(c), np.minimum(at_500, m))

    def pickles():
        block_function = pickle.loads(pickle.dumps(make(50)))
        c = np.array([[0, 1, -2], [0.3 + 0.5j, 2, 1j]])
        assert np.array_equal(block_function(c), expected(c, 50))

    for rule in (
        same_bits_for_any_block,
        same_bits_where_shortcuts_begin,
        same_bits_for_any_chunking,
        same_bits_in_large_blocks,
        takes_what_other_processes_send,
        known_values,
        infinities_and_nan_escape_at_once,
        symmetric_and_monotone,
        pickles,
    ):
        rule()
    check_boundary(make, boundary)


def memory_beside(kernel, c):
    """A block, and the most bytes that computing it took beside it."""
    tracemalloc.start()
    try:
        out = kernel(c)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return out, peak - out.nbytes


def check_fields(make: Callable) -> None:
    """The structured blocks that `make` gives for more than one field: layout, and the count to the bit."""
    every = ("escape_time", "smooth", "distance")
    c = View((-2, 1), (-1.5, 1.5), (53, 47)).block((0, 53), (0, 47))
    times = make(150)(c)
    whole = make(150, every)(c)
    assert whole.shape == c.shape
    assert whole.dtype == [("escape_time", "<i4"), ("smooth", "<f8"), ("distance", "<f4")]
    assert np.array_equal(whole["escape_time"], times)
    for name in every[1:]:
        assert np.array_equal(np.isnan(whole[name]), times == 150)
    for fields in (("escape_time", "distance"), ("smooth", "escape_time")):
        some = pickle.loads(pickle.dumps(make(150, fields)))(c[::2, ::-1])
        assert some.dtype.names == fields
        for name in fields:
            assert np.array_equal(some[name], whole[name][::2, ::-1], equal_nan=True)
    known = (times < 150) & (abs(c) <= 2)
    assert (whole["smooth"][known] > times[known] - 1.5).all()  # |z_n| <= |z_(n-1)|^2 + |c| <= 6 = 2^(2^1.37)
    odd = make(150, every)(np.array([np.nan, complex(np.inf, np.nan), np.inf, 1e200]))
    assert odd["escape_time"].tolist() == [1, 1, 1, 1]
    assert np.isnan(odd["smooth"][:3]).all() and np.isnan(odd["distance"][:3]).all()
    assert make(150, every)(np.empty((3, 0), complex)).shape == (3, 0)


def check_interior(make: Callable) -> None:
    """0 where a sample escapes, 2 only where it never will; the count to the bit, at any max_iter."""
    c = View((-2.1, 0.7), (-1.3, 1.2), (53, 107)).block((0, 53), (0, 107)).ravel()
    c = np.concatenate([c, boundary_points(1000), -2 + np.arange(20) * 2.0**-51])
    later = scalar_loop(c, 20_000)
    for max_iter in (1, 17, 31, 32, 33, 57, 300):
        found = make(max_iter, ("escape_time", "interior"))(c)
        assert np.array_equal(found["escape_time"], np.minimum(later, max_iter))
        assert np.array_equal(found["interior"] == 0, later < max_iter)
        assert (later[found["interior"] == 2] == 20_000).all()
        assert found["interior"].max() == (2 if max_iter >= 32 else 1)
