"""The contract of an escape-time kernel, as one function that every kernel is passed to."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from mandeldask.kernels import Factory
from mandeldask.view import View


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
sample = st.builds(complex, part, part)


def check_kernel(make: Factory) -> None:
    """Bits, shape, type, purity and pickling of the block functions that `make` gives."""

    @settings(deadline=None, max_examples=150)
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
        assert out.dtype == np.int32
        assert out.shape == c.shape
        assert np.array_equal(out, expected(c, max_iter))
        assert c.tobytes() == before.tobytes(), "the block is only read"

    @settings(deadline=None, max_examples=25)
    @given(rows=st.integers(1, 40), columns=st.integers(1, 130), max_iter=st.integers(1, 300), data=st.data())
    def same_bits_for_any_chunking(rows, columns, max_iter, data):
        view = View((-2, 1), (-1.5, 1.5), (rows, columns), "pixel")
        whole = make(max_iter)(view.block((0, rows), (0, columns)))
        r, k = data.draw(st.integers(0, rows)), data.draw(st.integers(0, columns))
        parts = [[make(max_iter)(view.block(rr, kk)) for kk in ((0, k), (k, columns))] for rr in ((0, r), (r, rows))]
        assert np.array_equal(np.block(parts), whole)
        assert np.array_equal(whole, expected(view.block((0, rows), (0, columns)), max_iter))

    def known_values():
        pi = [(-0.75 + 1j * 10.0**-k, n) for k, n in enumerate([3, 33, 315, 3143, 31417, 314160])]  # OEIS A097486
        cusp = [
            (0.25 + 10.0**-k, n) for k, n in enumerate([2, 8, 30, 97, 312, 991, 3140, 9933, 31414, 99344])
        ]  # A299415
        c = np.array([c for c, _ in pi + cusp])
        assert make(400_000)(c).tolist() == [n for _, n in pi + cusp]

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
        same_bits_for_any_chunking,
        known_values,
        symmetric_and_monotone,
        pickles,
    ):
        rule()
