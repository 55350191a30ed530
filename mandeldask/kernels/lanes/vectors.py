"""Vector arithmetic for Numba: the formulas of the kernel, written with operators, become LLVM vector instructions.

`Lanes` stands for VECTORS vectors of WIDTH numbers, one number a sample, that go through the same operations side by
side: enough independent work to hide the latency of each operation (9 cycles a step). LLVM splits a vector where the
CPU has shorter ones. Left to itself, LLVM does not vectorise the loops of this design: plain Numba code takes three
times as long.

Nothing here is fused or reassociated: `fmul`, `fadd` and `fsub` carry no fast-math flags.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core.registry import cpu_target

# Of the CPU that Numba compiles for: part of the key of its cache, so code for one CPU never runs on a lesser one.
_, _, _features = cpu_target.target_context.codegen().magic_tuple()
AVX512 = "+avx512f" in _features.split(",")
VECTORS, WIDTH = 4, 8 if AVX512 else 4
SIZE = VECTORS * WIDTH  # samples that go together

DOUBLE, INT64, INT32, FLAG = ir.DoubleType(), ir.IntType(64), ir.IntType(32), ir.IntType(1)


def vector(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, WIDTH)


def constant(element: ir.Type, value: Any) -> ir.Constant:
    return ir.Constant(vector(element), [value] * WIDTH)


def integer(value: int) -> ir.Constant:
    return ir.Constant(INT64, value)


def call(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    """Call one of LLVM's own functions, such as `llvm.sqrt.v8f64`."""
    signature = ir.FunctionType(result, [a.type for a in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, signature, name)
    return builder.call(function, arguments)


def prefetch(builder: ir.IRBuilder, pointer: ir.Value) -> None:
    """Ask for the cache line at `pointer`, which need not be ours: a hint never faults."""
    read, keep, data = (ir.Constant(INT32, v) for v in (0, 3, 1))
    call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, read, keep, data)


class Lanes:
    """SIZE doubles, 64-bit integers or flags in registers."""

    def __init__(self, builder: ir.IRBuilder, parts: Sequence[ir.Value]) -> None:
        self.builder, self.parts = builder, list(parts)

    @property
    def element(self) -> ir.Type:
        return self.parts[0].type.element

    def like(self, value: Any) -> Lanes:
        """`value` in every lane, of this type; a broadcast scalar if it is an LLVM value."""
        return value if isinstance(value, Lanes) else filled(self.builder, self.element, value)

    def _each(self, operation: Callable[..., ir.Value], *others: Any) -> Lanes:
        columns = [self.parts, *(self.like(o).parts for o in others)]
        return Lanes(self.builder, [operation(*v) for v in zip(*columns, strict=True)])

    def __add__(self, other: Any) -> Lanes:
        return self._each(self.builder.fadd if self.element == DOUBLE else self.builder.add, other)

    def __sub__(self, other: Any) -> Lanes:
        return self._each(self.builder.fsub, other)

    def __rsub__(self, other: Any) -> Lanes:
        return self.like(other) - self

    def __mul__(self, other: Any) -> Lanes:
        return self._each(self.builder.fmul, other)

    __radd__, __rmul__ = __add__, __mul__

    def __le__(self, other: Any) -> Lanes:
        return self._each(lambda a, b: self.builder.fcmp_ordered("<=", a, b), other)  # false for a NaN

    def below(self, other: Any) -> Lanes:
        return self._each(lambda a, b: self.builder.icmp_signed("<", a, b), other)

    def same(self, other: Lanes) -> Lanes:
        return self._each(lambda a, b: self.builder.fcmp_ordered("==", a, b), other)

    def __and__(self, other: Any) -> Lanes:
        return self._each(self.builder.and_, other)

    def __or__(self, other: Any) -> Lanes:
        return self._each(self.builder.or_, other)

    def __invert__(self) -> Lanes:
        return self._each(self.builder.not_)

    def where(self, yes: Any, no: Lanes) -> Lanes:
        """`yes` in the lanes whose flag is set, `no` in the others."""
        chosen = zip(self.parts, no.like(yes).parts, no.parts, strict=True)
        return Lanes(self.builder, [self.builder.select(*v) for v in chosen])

    def any(self) -> ir.Value:
        flags = self.parts[0]
        for part in self.parts[1:]:
            flags = self.builder.or_(flags, part)
        byte = self.builder.bitcast(flags, ir.IntType(WIDTH))
        return self.builder.icmp_unsigned("!=", byte, ir.Constant(byte.type, 0))


def filled(builder: ir.IRBuilder, element: ir.Type, value: Any) -> Lanes:
    """`value`, a Python number or a scalar in a register, in every lane."""
    if isinstance(value, ir.Value):
        zeros = ir.Constant(ir.VectorType(INT32, WIDTH), [0] * WIDTH)
        one = builder.insert_element(constant(element, ir.Undefined), value, ir.Constant(INT32, 0))
        return Lanes(builder, [builder.shuffle_vector(one, one, zeros)] * VECTORS)
    return Lanes(builder, [constant(element, value)] * VECTORS)


def numbered(builder: ir.IRBuilder, first: ir.Value) -> Lanes:
    """first, first + 1, first + 2 and so on."""
    starts = range(0, SIZE, WIDTH)
    steps = [ir.Constant(vector(INT64), list(range(k, k + WIDTH))) for k in starts]
    return Lanes(builder, steps) + filled(builder, INT64, first)


def sqrt(a: Lanes) -> Lanes:
    return Lanes(a.builder, [call(a.builder, f"llvm.sqrt.v{WIDTH}f64", p.type, p) for p in a.parts])


def twice_plus(a: Lanes, b: Lanes) -> Lanes:
    """(a + a) + b, half of it by `fmuladd(a, 2, b)`, which LLVM fuses only if the CPU it compiles for can.

    The bits are the same: a doubled is exact, so both round once. (The exception would be a sum near the largest
    double, where a + a overflows and the fused operation might not: such a lane has escaped long before.) Half, because
    an AMD Zen 4 has as many adders as multipliers, and the other operations of a step ask for more adds.
    """
    builder, parts = a.builder, []
    for k, (p, q) in enumerate(zip(a.parts, b.parts, strict=True)):
        if k % 2:
            parts.append(call(builder, f"llvm.fmuladd.v{WIDTH}f64", p.type, p, constant(DOUBLE, 2.0), q))
        else:
            parts.append(builder.fadd(builder.fadd(p, p), q))
    return Lanes(builder, parts)


class Rows:
    """A matrix of doubles in memory, one row a quantity, one column a sample; rows may hold the bits of integers."""

    def __init__(self, builder: ir.IRBuilder, data: ir.Value, stride: ir.Value) -> None:
        self.builder, self.data, self.stride = builder, data, stride

    def _pointer(self, row: int, column: ir.Value, kind: ir.Type) -> ir.Value:
        at = self.builder.add(self.builder.mul(self.stride, integer(row)), column)
        return self.builder.bitcast(self.builder.gep(self.data, [at]), kind.as_pointer())

    def load(self, row: int, column: ir.Value, element: ir.Type = DOUBLE) -> Lanes:
        parts = []
        for k in range(VECTORS):
            at = self.builder.add(column, integer(k * WIDTH))
            parts.append(self.builder.load(self._pointer(row, at, vector(element)), align=8))
        return Lanes(self.builder, parts)

    def store(self, row: int, column: ir.Value, lanes: Lanes) -> None:
        for k, part in enumerate(lanes.parts):
            at = self.builder.add(column, integer(k * WIDTH))
            self.builder.store(part, self._pointer(row, at, part.type), align=8)

    def append(self, column: ir.Value, keep: Lanes, quantities: Sequence[Lanes]) -> ir.Value:
        """Write the lanes whose flag is set side by side from `column` on, one row a quantity; the column after them.

        Up to WIDTH columns after the last one are written too.
        """
        write = self._append_packed if AVX512 else self._append_one_by_one
        for k, flags in enumerate(keep.parts):
            column = write(column, flags, [lanes.parts[k] for lanes in quantities])
        return column

    def _append_packed(self, column: ir.Value, flags: ir.Value, parts: Sequence[ir.Value]) -> ir.Value:
        """AVX-512 has an instruction for it; elsewhere LLVM goes through memory, at thrice the cost."""
        b = self.builder
        for row, part in enumerate(parts):
            doubles, rest = b.bitcast(part, vector(DOUBLE)), constant(DOUBLE, ir.Undefined)
            packed = call(b, f"llvm.experimental.vector.compress.v{WIDTH}f64", doubles.type, doubles, flags, rest)
            b.store(packed, self._pointer(row, column, vector(DOUBLE)), align=8)
        return b.add(column, b.ctpop(b.zext(b.bitcast(flags, ir.IntType(WIDTH)), INT64)))

    def _append_one_by_one(self, column: ir.Value, flags: ir.Value, parts: Sequence[ir.Value]) -> ir.Value:
        """Every lane is written, and the next one over it if its flag is not set: no branch to guess wrong."""
        b = self.builder
        for lane in range(WIDTH):
            at = ir.Constant(INT32, lane)
            for row, part in enumerate(parts):
                b.store(b.extract_element(part, at), self._pointer(row, column, part.type.element), align=8)
            column = b.add(column, b.zext(b.extract_element(flags, at), INT64))
        return column


def repeat(
    builder: ir.IRBuilder,
    times: ir.Value,
    state: Sequence[Lanes],
    body: Callable[..., Sequence[Lanes]],
    more: Callable[..., ir.Value] | None = None,
) -> list[Lanes]:
    """State = body(*state), `times` times but at least once, and only while more(*state)."""
    _align_stack(builder)
    before = builder.block
    loop, end = builder.append_basic_block("loop"), builder.append_basic_block("end")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(INT64)
    step.add_incoming(integer(0), before)
    carried = []
    for lanes in state:
        phis = [builder.phi(p.type) for p in lanes.parts]
        for phi, p in zip(phis, lanes.parts, strict=True):
            phi.add_incoming(p, before)
        carried.append(Lanes(builder, phis))
    state = list(body(*carried))
    done = builder.add(step, integer(1))
    go_on = builder.icmp_signed("<", done, times)
    if more is not None:
        go_on = builder.and_(go_on, more(*state))
    step.add_incoming(done, builder.block)
    for old, new in zip(carried, state, strict=True):
        for phi, p in zip(old.parts, new.parts, strict=True):
            phi.add_incoming(p, builder.block)
    builder.cbranch(go_on, loop, end)
    builder.position_at_end(end)
    return state


def _align_stack(builder: ir.IRBuilder) -> None:
    """Have vectors that find no register lie in memory at multiples of their size.

    LLVM puts them at multiples of 16 bytes only: as the depth of the stack has it, some cross a cache line or a page.
    A tile where most samples escape at once then takes up to twice as long.
    """
    attributes = builder.function.attributes
    attributes.add("nounwind")  # true of compiled code; llvmlite leaves out an alignment that stands alone
    attributes.alignstack = 64
