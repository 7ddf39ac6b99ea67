"""Tiles of a matrix product in vector registers, and the copies that bring narrow or transposed operands into shape.

Written as vectors of LLVM, which the compiler splits into what the processor has: 64 bytes are one register of
AVX-512, two of AVX2, four of NEON. Addresses are integers, distances are bytes; nothing is checked here.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_WIDE = ir.IntType(64)


class _Code:
    """What the intrinsics need of LLVM for elements of one type."""

    def __init__(self, context: Any, builder: Any, real: Any) -> None:
        self.builder, self.floating = builder, context.get_value_type(real)
        self.size = real.bitwidth // 8

    def vector(self, lanes: int) -> Any:
        return ir.VectorType(self.floating, lanes)

    def load(self, address: Any, kind: Any) -> Any:
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=self.size)

    def store(self, value: Any, address: Any) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()), align=self.size)

    def shuffle(self, x: Any, y: Any, lanes: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
        return self.builder.shuffle_vector(x, y, mask)

    def spread(self, scalar: Any, lanes: int) -> Any:
        none = ir.Constant(self.vector(lanes), ir.Undefined)
        first = self.builder.insert_element(none, scalar, ir.Constant(ir.IntType(32), 0))
        return self.shuffle(first, none, [0] * lanes)

    def steps(self, start: Any, step: Any, count: int) -> list[Any]:
        """start, start + step, ...: `count` of them."""
        found = [start]
        while len(found) < count:
            found.append(self.builder.add(found[-1], step))
        return found


@intrinsic(prefer_literal=True)
def multiply_tile(typing_context, zero, rows, wide, a, a_row, a_step, b, b_step, k, c, c_row):
    """C = sum over p < k of column p of A times row p of B in registers; C has `rows` rows of `wide` bytes, constants.

    a_row and b_step, c_row are from one row to the next, a_step from one p to the next; `zero` is 0 of the type. Each
    entry is summed in the order of p, whatever tile it stands in.
    """
    i = types.int64
    return types.void(zero, rows, wide, *[i] * 8), _multiply


def _multiply(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    code = _Code(context, builder, signature.args[0])
    rows, lanes = signature.args[1].literal_value, signature.args[2].literal_value // code.size
    a, a_row, a_step, b, b_step, k, c, c_row = arguments[3:]
    vector, nothing = code.vector(lanes), ir.Constant(_WIDE, 0)
    zeros = ir.Constant(vector, [0.0] * lanes)
    start, loop, end = builder.block, builder.append_basic_block("inner"), builder.append_basic_block("end")
    builder.cbranch(builder.icmp_signed(">", k, nothing), loop, end)

    builder.position_at_end(loop)
    p, a_p, b_p = (builder.phi(_WIDE) for _ in range(3))
    sums, later = [builder.phi(vector) for _ in range(rows)], []
    row = code.load(b_p, vector)
    for address, total in zip(code.steps(a_p, a_row, rows), sums, strict=True):
        product = builder.fmul(
            code.spread(code.load(address, code.floating), lanes), row, flags=("contract",)
        )
        later.append(builder.fadd(total, product, flags=("contract",)))
    one = ir.Constant(_WIDE, 1)
    following = [builder.add(x, y) for x, y in ((p, one), (a_p, a_step), (b_p, b_step))]
    for phi, first, value in zip(
        (p, a_p, b_p, *sums), (nothing, a, b, *[zeros] * rows), (*following, *later), strict=True
    ):
        phi.add_incoming(first, start)
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following[0], k), loop, end)

    builder.position_at_end(end)
    totals = [builder.phi(vector) for _ in range(rows)]
    for phi, value in zip(totals, later, strict=True):
        phi.add_incoming(zeros, start)
        phi.add_incoming(value, loop)
    for total, address in zip(totals, code.steps(c, c_row, rows), strict=True):
        code.store(total, address)
    return context.get_dummy_value()


@intrinsic(prefer_literal=True)
def copy_bytes(typing_context, count, target, source):
    """Copies `count` bytes, a constant, from one address to another."""
    return types.void(count, types.int64, types.int64), _copy


def _copy(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    kind = ir.IntType(8 * signature.args[0].literal_value).as_pointer()
    target, source = (builder.inttoptr(address, kind) for address in arguments[1:])
    builder.store(builder.load(source, align=1), target, align=1)
    return context.get_dummy_value()


SIDE_BYTES = 32  # of a row of a block that is transposed in registers


@intrinsic
def transpose_block(typing_context, zero, target, target_row, source, source_row):
    """target[j, i] = source[i, j] for a square block with rows of SIDE_BYTES."""
    return types.void(zero, *[types.int64] * 4), _transpose


def _transpose(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Halves of ever smaller blocks change places: in stage s, bit s of the row with bit s of the column."""
    code = _Code(context, builder, signature.args[0])
    side = SIDE_BYTES // code.size
    target, target_row, source, source_row = arguments[1:]
    rows = [code.load(address, code.vector(side)) for address in code.steps(source, source_row, side)]
    bit = 1
    while bit < side:
        upper = [j if not j & bit else j - bit + side for j in range(side)]
        lower = [j + bit if not j & bit else j + side for j in range(side)]
        for i in range(side):
            if not i & bit:
                pair = rows[i], rows[i + bit]
                rows[i], rows[i + bit] = code.shuffle(*pair, upper), code.shuffle(*pair, lower)
        bit *= 2
    for row, address in zip(rows, code.steps(target, target_row, side), strict=True):
        code.store(row, address)
    return context.get_dummy_value()
