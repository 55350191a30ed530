"""Numbers for the compiled passes: powers of two, double-double, and what each operation errs by at most.

A double-double is an unevaluated sum high + low of two doubles, |low| <= u |high|, u = 2^-53. An extended number is
z 2^s, with z a complex number of doubles and s an integer. Numba rounds each operation on complex numbers part by part:
a product is (ac - bd) + i (ad + bc), of four products and two sums. From Python 3.14 on it makes an infinity of a
product that is NaN in both parts; no bound of such a number is finite, so no proven count depends on it.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,import-untyped,call-arg"
# (what Numba compiles carries no types; neither does llvmlite; an intrinsic is called without its first parameter)

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

U = 2.0**-53  # one rounding errs by at most U relative
UP = 1.0 + 2.0**-48  # more than any few operations on a bound round down by

# Without counts of references, which an array would cost atomic operations wherever it is handed on.
_options: Any = {"nogil": True, "error_model": "numpy", "forceinline": True, "_nrt": False}
inlined = numba.njit(**_options)


@intrinsic
def _fma(typing, a, b, c):
    """Rounded once, a b + c, on every CPU: LLVM calls the C library where there is no instruction for it."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), codegen


@inlined
def pow2(k):
    """2^k exactly; 0 below the normal numbers, infinity above them."""
    if k < -1022:
        return 0.0
    return np.int64(min(k, 1024) + 1023 << 52).view(np.float64)


@inlined
def exponent(v):
    """The k with 2^(k-1) <= |v| < 2^k for normal v; at least that for 0 and subnormals."""
    return (np.float64(v).view(np.int64) >> 52 & 0x7FF) - 1022


@inlined
def scaled(z, f):
    """A product with a real number, part by part."""
    return complex(z.real * f, z.imag * f)


@inlined
def norm1(z):
    """|z|_1, the sum of the sizes of both parts."""
    return abs(z.real) + abs(z.imag)


@inlined
def larger(z):
    """The size of the larger part."""
    return max(abs(z.real), abs(z.imag))


@inlined
def squared(z):
    """|z|^2."""
    return z.real * z.real + z.imag * z.imag


@inlined
def normal(z, s, e):
    """The same z 2^s with the larger part in [1/2, 1): (z, s, e, factor), the bound e on its error in the new unit.

    Zero keeps its exponent: its bound still means something.
    """
    size = larger(z)
    k = exponent(size) if size > 0.0 else 0
    f = pow2(-k)
    return scaled(z, f), s + k, e * f, f


@inlined
def _two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@inlined
def _quick_sum(a, b):
    s = a + b
    return s, b - (s - a)


@inlined
def add(ah, al, bh, bl):
    """Sum of double-doubles, relative error below 3 2^-106, but for some 13 2^-159.

    M. Joldes, J.-M. Muller and V. Popescu, *Tight and rigorous error bounds for basic building blocks of double-word
    arithmetic*, ACM TOMS 44, 2017, algorithm 6.
    """
    sh, sl = _two_sum(ah, bh)
    th, tl = _two_sum(al, bl)
    sh, sl = _quick_sum(sh, sl + th)
    return _quick_sum(sh, sl + tl)


@inlined
def multiply(ah, al, bh, bl):
    """Product of double-doubles, relative error below 7 2^-106; algorithm 10 of the same, DWTimesDW1."""
    p = ah * bh
    return _quick_sum(p, _fma(ah, bh, -p) + (ah * bl + al * bh))


@inlined
def add_complex(a, al, b, bl):
    """(high, low) of a sum of complex double-doubles, part by part."""
    x, xl = add(a.real, al.real, b.real, bl.real)
    y, yl = add(a.imag, al.imag, b.imag, bl.imag)
    return complex(x, y), complex(xl, yl)


@inlined
def multiply_complex(a, al, b, bl):
    """(high, low) of a product of complex double-doubles, error below 2^-102 |a| |b|.

    Of a part, two products and a sum err by less than (7 + 3 + 2^-40) 2^-106 (|p| + |q|), and |p| + |q| <= |a| |b|.
    Both parts by sqrt 2 times that: less than 15 2^-106.
    """
    p, pl = multiply(a.real, al.real, b.real, bl.real)
    q, ql = multiply(a.imag, al.imag, b.imag, bl.imag)
    x, xl = add(p, pl, -q, -ql)
    p, pl = multiply(a.real, al.real, b.imag, bl.imag)
    q, ql = multiply(a.imag, al.imag, b.real, bl.real)
    y, yl = add(p, pl, q, ql)
    return complex(x, y), complex(xl, yl)
