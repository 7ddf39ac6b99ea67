"""The row: how one launch of a CPU kernel finds its operands in memory.

A launch is one row of 64-bit integers, so that a recorded training step is a table that a compiled loop can walk:

    row[0]              address of the compiled kernel
    row[1 + 3k ...]     operand k: address of its first element, rows, columns (C-contiguous)
    row[BARRIER]        whether members wait for each other before it

A vector is an operand with one column. Integers that are no arrays (a transposition flag) take the place of an
address. Kernels have the one C signature `void kernel(int64 row, int64 me, int64 team)`: the address of their own row,
and which member of which team calls (team.py).
"""

from llvmlite import ir
from numba import carray, int64, types
from numba.extending import intrinsic, register_jitable

OPERANDS = 9
BARRIER = 1 + 3 * OPERANDS  # 1 where the team waits for all its members before this launch
WIDTH = BARRIER + 1


@intrinsic
def pointer(typingctx, address, element):
    """The integer `address` as a C pointer to elements of the Numba type `element`."""
    result = types.CPointer(element.instance_type)

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(result))

    return result(types.int64, element), codegen


@intrinsic
def call(typingctx, function, row, me, team):
    """Calls the kernel at address `function` with the address of its row, as member `me` of the team."""

    def codegen(context, builder, signature, arguments):
        kernel_type = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 3)
        kernel = builder.inttoptr(arguments[0], kernel_type.as_pointer())
        builder.call(kernel, arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


@register_jitable
def read_row(address):
    """The row at `address` as an int64 array of `WIDTH` entries."""
    return carray(pointer(address, int64), (WIDTH,))


@register_jitable
def matrix(row, k, element):
    """Operand `k` of the row as a C-contiguous matrix of `element`."""
    return carray(pointer(row[1 + 3 * k], element), (row[2 + 3 * k], row[3 + 3 * k]))


@register_jitable
def vector(row, k, element):
    """Operand `k` of the row as a vector of `element`: all its entries, whatever their matrix shape."""
    return carray(pointer(row[1 + 3 * k], element), (row[2 + 3 * k] * row[3 + 3 * k],))
