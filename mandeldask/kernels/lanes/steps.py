"""The three loops of the fast kernel, each over the SIZE samples of one group: first, unchecked and checked steps.

A *lane* is a sample under way, a column of a `Rows` matrix. Everywhere the pair (z, n) means: z = z_n, and none of
z_0 ... z_(n-1) has escaped.
"""

# mypy: disable-error-code="no-untyped-call,import-untyped"
# (llvmlite, and the inner parts of Numba, carry no types)

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mandeldask.kernels.fields import BAILOUT
from mandeldask.kernels.lanes.vectors import (
    DOUBLE,
    FLAG,
    INT32,
    INT64,
    VECTORS,
    WIDTH,
    Lanes,
    Rows,
    filled,
    integer,
    numbered,
    prefetch,
    repeat,
    sqrt,
    twice_plus,
    vector,
)
from mandeldask.kernels.shortcuts import LOOK, never_escapes, never_returns

X, Y, CX, CY, ID, SX, SY = range(7)  # the rows of a lane under way: z, c, index of the sample, saved z
N = 5  # the row of n, for lanes that are each at a step of their own: they have no saved z
LANE_ROWS, LATE_ROWS = 7, 6

FIRST = 2  # steps between two looks at whether a group has any lane left, in the first steps
AHEAD = 1024  # doubles: samples are asked for 8 kB early, which takes a tenth off where most escape at once
CHECKED = 4  # steps between two looks at whether a group has any lane left, in the checked steps


def _squares(x: Lanes, y: Lanes) -> tuple[Lanes, Lanes]:
    return x * x, y * y


def _step(x: Lanes, y: Lanes, cx: Lanes, cy: Lanes) -> tuple[Lanes, Lanes]:
    """z*z + c, in the contract's operations (LLVM takes the squares from the test beside it)."""
    x2, y2 = _squares(x, y)
    return (x2 - y2) + cx, twice_plus(x * y, cy)


def _inside(x: Lanes, y: Lanes) -> Lanes:
    x2, y2 = _squares(x, y)
    return x2 + y2 <= 4.0


def _checked_steps(
    builder: ir.IRBuilder,
    lanes: tuple[Lanes, ...],
    n: Lanes,
    times: ir.Value,
    size: int,
    max_iter: ir.Value | None,
) -> list[Lanes]:
    """[x, y, n, flags of the lanes left] after `times` times `size` steps, each lane's n stopped where it escapes.

    Ends early when no lane is left, or none below `max_iter` if given (n may go past it by size - 1).
    """
    x, y, cx, cy = lanes

    def body(x: Lanes, y: Lanes, n: Lanes, live: Lanes) -> tuple[Lanes, ...]:
        for _ in range(size):
            live = live & _inside(x, y)
            n = live.where(n + 1, n)
            x, y = _step(x, y, cx, cy)
        return x, y, n, live

    def more(x: Lanes, y: Lanes, n: Lanes, live: Lanes) -> ir.Value:
        return (live if max_iter is None else live & n.below(max_iter)).any()

    everyone = filled(builder, FLAG, 1)
    return repeat(builder, times, [x, y, n, everyone], body, more)


def _data(context: Any, builder: ir.IRBuilder, kind: types.Array, array: ir.Value) -> ir.Value:
    return cgutils.create_struct_proxy(kind)(context, builder, value=array).data


def _rows(context: Any, builder: ir.IRBuilder, kind: types.Array, array: ir.Value) -> Rows:
    struct = cgutils.create_struct_proxy(kind)(context, builder, value=array)
    return Rows(builder, struct.data, cgutils.unpack_tuple(builder, struct.shape)[1])


def _load_complex(builder: ir.IRBuilder, data: ir.Value, first: ir.Value) -> tuple[Lanes, Lanes]:
    """Real and imaginary parts of SIZE samples."""
    parts: tuple[list[ir.Value], list[ir.Value]] = ([], [])
    start = builder.bitcast(data, DOUBLE.as_pointer())
    for k in range(VECTORS):
        at = builder.mul(builder.add(first, integer(k * WIDTH)), integer(2))
        halves = []
        for half in (0, WIDTH):
            pointer = builder.gep(start, [builder.add(at, integer(half))])
            prefetch(builder, builder.gep(pointer, [integer(AHEAD)]))
            halves.append(builder.load(builder.bitcast(pointer, vector(DOUBLE).as_pointer()), align=8))
        for odd in (0, 1):
            pick = ir.Constant(ir.VectorType(INT32, WIDTH), [2 * lane + odd for lane in range(WIDTH)])
            parts[odd].append(builder.shuffle_vector(halves[0], halves[1], pick))
    return Lanes(builder, parts[0]), Lanes(builder, parts[1])


def _store_counts(builder: ir.IRBuilder, data: ir.Value, first: ir.Value, n: Lanes) -> None:
    for k, part in enumerate(n.parts):
        pointer = builder.gep(data, [builder.add(first, integer(k * WIDTH))])
        counts = builder.trunc(part, vector(INT32))
        builder.store(counts, builder.bitcast(pointer, vector(INT32).as_pointer()), align=4)


def _load_counts(builder: ir.IRBuilder, data: ir.Value, first: ir.Value) -> Lanes:
    parts = []
    for k in range(VECTORS):
        pointer = builder.gep(data, [builder.add(first, integer(k * WIDTH))])
        counts = builder.load(builder.bitcast(pointer, vector(INT32).as_pointer()), align=4)
        parts.append(builder.sext(counts, vector(INT64)))
    return Lanes(builder, parts)


@intrinsic
def first_steps(typing, c, out, first, index, times, max_iter, lanes, m, late, k):  # type: ignore[no-untyped-def]
    """The first `times` * FIRST steps of samples c[first:first + SIZE], from z_1 = c, each checked.

    Their counts go to `out`; whoever is left gets max_iter there, which is its answer unless it turns out to escape,
    and goes on the list `lanes` from column m (or `late` from column k, if it might come back) as number `index` and
    following. The samples that provably never escape stay off the lists. Returns the new m and k.
    """

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        c, out, first, index, times, max_iter, lanes, m, late, k = arguments
        under_way = _rows(context, b, signature.args[6], lanes)
        apart = _rows(context, b, signature.args[8], late)
        cx, cy = _load_complex(b, _data(context, b, signature.args[0], c), first)
        one = filled(b, INT64, 1)
        x, y, n, live = _checked_steps(b, (cx, cy, cx, cy), one, times, FIRST, None)
        answer = (live | ~n.below(max_iter)).where(max_iter, n)
        _store_counts(b, _data(context, b, signature.args[1], out), first, answer)
        columns = [cgutils.alloca_once_value(b, v) for v in (m, k)]
        with b.if_then(live.any()):
            number = numbered(b, index)
            open_ = live & ~never_escapes(cx, cy, sqrt)
            away = never_returns(cx, cy)
            b.store(under_way.append(m, open_ & away, [x, y, cx, cy, number, x, y]), columns[0])
            far = open_ & ~away
            with b.if_then(far.any()):
                b.store(apart.append(k, far, [x, y, cx, cy, number, n]), columns[1])
        return context.make_tuple(b, signature.return_type, [b.load(v) for v in columns])

    i8 = types.int64
    return types.UniTuple(i8, 2)(c, out, i8, i8, i8, i8, lanes, i8, late, i8), codegen


@intrinsic
def unchecked_steps(typing, lanes, first, m, late, k, n, blocks):  # type: ignore[no-untyped-def]
    """`blocks` blocks of LOOK steps of lanes first:first + SIZE, all at step n, escapes looked for after each block.

    A lane found outside rolls back: its state before that block goes on the list `late`, where single steps find the
    exact count. A lane that is where it was when its z was saved goes round for ever: it leaves. The others go back on
    the list from column m <= first on. Returns the new m and k.
    """

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        lanes, first, m, late, k, n, blocks = arguments
        under_way = _rows(context, b, signature.args[0], lanes)
        apart = _rows(context, b, signature.args[3], late)
        x, y, cx, cy = (under_way.load(row, first) for row in (X, Y, CX, CY))
        nobody = filled(b, FLAG, 0)

        def block(*state: Lanes) -> tuple[Lanes, ...]:
            x, y, last_x, last_y, last_n, again, inside = state
            for _ in range(LOOK):
                x, y = _step(x, y, cx, cy)
            inside = _inside(x, y)
            again = again | (x.same(under_way.load(SX, first)) & y.same(under_way.load(SY, first)))
            last = inside.where(x, last_x), inside.where(y, last_y), inside.where(last_n + LOOK, last_n)
            return x, y, *last, again, inside

        state = repeat(b, blocks, [x, y, x, y, filled(b, INT64, n), nobody, nobody], block)
        x, y, last_x, last_y, last_n, again, inside = state
        number = under_way.load(ID, first, INT64)
        saved = under_way.load(SX, first), under_way.load(SY, first)
        column = cgutils.alloca_once_value(b, k)
        with b.if_then((~inside).any()):
            b.store(apart.append(k, ~inside, [last_x, last_y, cx, cy, number, last_n]), column)
        m = under_way.append(m, inside & ~again, [x, y, cx, cy, number, *saved])
        return context.make_tuple(b, signature.return_type, [m, b.load(column)])

    i8 = types.int64
    return types.UniTuple(i8, 2)(lanes, i8, i8, late, i8, i8, i8), codegen


@intrinsic
def outside_steps(typing, c, counts, first, max_iter, last, z, n):  # type: ignore[no-untyped-def]
    """Orbit and derivative of samples c[first:first + SIZE], where counts are below max_iter, to the larger bailout.

    Rows of z: x, y, dx/dc, dy/dc at the first step n with |z_n| past the bailout; NaN where there is none up to `last`.
    """

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        c, counts, first, max_iter, last, z, n = arguments
        cx, cy = _load_complex(b, _data(context, b, signature.args[0], c), first)
        times = _load_counts(b, _data(context, b, signature.args[1], counts), first)
        zero, one = filled(b, DOUBLE, 0.0), filled(b, DOUBLE, 1.0)
        escapes = times.below(max_iter)

        def body(x: Lanes, y: Lanes, dx: Lanes, dy: Lanes, n: Lanes, under_way: Lanes) -> tuple[Lanes, ...]:
            x2, y2 = x * x, y * y
            under_way = under_way & (x2 + y2 <= BAILOUT * BAILOUT)
            slope_x, slope_y = x * dx - y * dy, x * dy + y * dx
            new = (x2 - y2) + cx, twice_plus(x * y, cy), twice_plus(slope_x, one), slope_y + slope_y
            moved = [under_way.where(after, before) for after, before in zip(new, (x, y, dx, dy), strict=True)]
            return *moved, under_way.where(n + 1, n), under_way

        def more(*state: Lanes) -> ir.Value:
            return state[-1].any()

        start = filled(b, INT64, 1)
        *end, steps, under_way = repeat(b, last, [cx, cy, one, zero, start, escapes], body, more)
        rows = _rows(context, b, signature.args[5], z)
        there = escapes & ~under_way
        for row, value in enumerate(end):
            rows.store(row, first, there.where(value, filled(b, DOUBLE, float("nan"))))
        Rows(b, _data(context, b, signature.args[6], n), integer(0)).store(0, first, steps)
        return context.get_dummy_value()

    i8 = types.int64
    return types.none(c, counts, i8, i8, i8, z, n), codegen


@intrinsic
def checked_steps(typing, late, first, max_iter):  # type: ignore[no-untyped-def]
    """Finish lanes first:first + SIZE, each from its own step: row N becomes the escape time, or max_iter and more."""

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        late, first, max_iter = arguments
        apart = _rows(context, b, signature.args[0], late)
        x, y, cx, cy = (apart.load(row, first) for row in (X, Y, CX, CY))
        n = apart.load(N, first, INT64)
        _, _, n, _ = _checked_steps(b, (x, y, cx, cy), n, max_iter, CHECKED, max_iter)
        apart.store(N, first, n)
        return context.get_dummy_value()

    return types.none(late, types.int64, types.int64), codegen
