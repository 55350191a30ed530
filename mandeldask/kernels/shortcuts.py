"""What spares the kernels work without changing a bit of the result.

**An orbit that has escaped never comes back**, for |c|^2 <= NEARBY. While |z| > 2: |z'| >= |z|^2 - |c| > |z|, so a look
every few steps misses no escape, and rolling back to the look before finds the exact step. Rounding takes less than
1e-14 of |z'|, and |c| <= 2 - 2e-10 keeps |z'| above 2 + 2e-10. The orbit grows until a part is infinite, and z then has
an infinite or NaN part for ever.

**Nor, of samples with |c| <= 2, for |Im c| <= LOW**: those further out that the first steps leave are near -2, where an
orbit may escape by a unit in the last place. With the rounded squares a and t of x and y, let a + t round
to more than 4: a + t > 4 + u, u = 2^-51. Let it be below 4.1: beyond, |z'| > 2.09. With p = a - t, rounded, x' is at
least p - 2, which binary64 holds, as cx >= -2:

- t < u: a is at least 4 + 2u, the next number after 4, and so is p. So x' >= 2 + 2u, and x'^2 > 4 + 8u.
- u <= t <= 2^-40: p misses a - t by at most u, so x' >= 2 - 2t. |y| > 2^-26, |2xy| > 3.9 |y| and |cy| <= |y|/4, so
  y'^2 > 13 t. Together that is more than 4 + 5u, and the test misses it by at most 2u.
- t > 2^-40: z^2 and -c are more than 2^-21 apart in angle, which adds more than 2^-40 to |z'|^2 >= (|z|^2 - |c|)^2. All
  rounding takes less than 2^-45.

The samples that are left are checked step by step.

**An orbit that repeats a state bit for bit never escapes**: the same operations on the same bits give the same bits.
(0 and -0 compare equal; they differ in no comparison and no sum that follows, but by the sign of a zero.) A kernel
compares with a state that it saves, more and more rarely, so it may find a cycle that another does not. For the field
`interior` numba and cuda save and compare at the same steps, and find the same.

**The orbits of most of the main cardioid and of the period-2 disc never escape.** For c in either component the orbit
of 0 converges to an attracting cycle of multiplier L, |L| < 1: of the fixed point in the cardioid,
L = 1 - sqrt(1 - 4c); of the 2-cycle in the disc, L = 4 (c + 1) (Douady and Hubbard, *Etude dynamique des polynomes
complexes*, 1984; Milnor, *Dynamics in One Complex Variable*, 3rd ed., theorem 8.6). That is about the exact orbit. The
kernels' orbit is rounded at every step, and close to the boundary, |L| = 1, rounding might in principle walk it out.
With |L|^2 <= 1 - MARGIN it cannot:

- Let U be the component of the basin that holds 0, and f the map (its second iterate in the disc). f: U -> U is proper
  of degree 2, so a Riemann map w of U with w = 0 at the attracting point turns it into w (w + L) / (1 + conj(L) w), up
  to rotation. One exact step takes |w| = r to at most r (r + l) / (1 + l r), l = |L|: it gains at least
  r (1 - r)(1 - l)/2.
- The critical point lies at |w| = R = (1 - sqrt(1 - l^2)) / l, where 1 - R >= sqrt(1 - l)/2. Take max(R, 1/2) for R.
- A rounded step misses the exact one by e < 4e-15 in the cardioid and, two steps with |f'| < 4 between them, by
  e < 2e-14 in the disc (|z| < 1.74 there). U holds a disc about the attracting point of radius d = 1 - l in the
  cardioid, as |2 a u + u^2| < |u| there, and d = (1 - l)/9 in the disc. By Koebe's distortion theorem a slip of e moves
  w by at most 2 e (1 + R)^3 / (d (1 - R)) < 16 e / (d (1 - R)). (The 2 allows for w's derivative changing along the
  slip, which is less than a thousandth of the distance to the edge of U.)
- So |w| <= R holds for ever if 16 e / (d (1 - R)) <= R (1 - R)(1 - l)/2, that is if e <= d R (1 - R)^2 (1 - l)/32. With
  1 - l >= MARGIN/2 = 5e-4, R >= 1/2 and (1 - R)^2 >= (1 - l)/4, the right side is at least 4.8e-13 in the cardioid and
  5.4e-14 in the disc: more than twice the slip.

Inside U |z| < 1.74, so the test |z| <= 2 holds at every step. The samples that the margin leaves out (0.13 % of
the cardioid) are iterated like any others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NEARBY = 4.0 - 1e-9
LOW = 2.0**-28
MARGIN = 1e-3
LOOK = 24  # steps of numba between two looks at whether an orbit has escaped, or repeats
SHARE = 8


def round_steps(n: Any) -> Any:
    """Steps of the round that begins at step n: 1/SHARE of those so far, in whole looks.

    On average a lane that escapes has wasted half of a round.
    """
    return LOOK * max(1, n // (SHARE * LOOK))


def renewal(n: Any, round_steps: Callable[[Any], Any] = round_steps) -> Any:
    """The step at which another state takes the place of the one saved at step n: the end of a round.

    Brent's way to find cycles: the waits grow, in the end beyond the length of any.
    """
    saved_at = n
    while 2 * n < 3 * saved_at:
        n += round_steps(n)
    return n


def square(t: Any) -> Any:
    return t * t


def never_returns(cx: Any, cy: Any, square: Callable[[Any], Any] = square) -> Any:
    """Does an orbit that has escaped stay away? Flags, for samples with |c| <= 2, as for `never_escapes`."""
    return (square(cx) + square(cy) <= NEARBY) | (square(cy) <= LOW * LOW)


def never_escapes(cx: Any, cy: Any, sqrt: Callable[[Any], Any], square: Callable[[Any], Any] = square) -> Any:
    """Is |L|^2 <= 1 - MARGIN for either component? Flags, for anything that adds, multiplies and compares.

    In the cardioid, with s = sqrt(1 - 4c) and m = |s|^2 = |1 - 4c|: |L|^2 = 1 - 2 Re s + m, and (2 Re s)^2 =
    2 (m + Re(1 - 4c)).
    """
    a, b = 1.0 - 4.0 * cx, 4.0 * cy
    m = sqrt(square(a) + square(b))
    cardioid = square(m + MARGIN) <= 2.0 * (m + a)
    disc = 16.0 * (square(cx + 1.0) + square(cy)) <= 1.0 - MARGIN
    return cardioid | disc
