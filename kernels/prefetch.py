"""Memory called into the cache before it is read."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

LINE = 64  # bytes that are fetched at once, on every machine that we know of at least
_READ, _SECOND_LEVEL, _DATA = 0, 2, 1  # what llvm.prefetch is told


@intrinsic
def prefetch(typing_context, address):
    """Calls the line that holds `address` into the second level of the cache; never a fault, whatever lies there."""

    def codegen(context, builder, signature, args):
        word, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        function_type = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        how = [word(n) for n in (_READ, _SECOND_LEVEL, _DATA)]
        builder.call(function, [builder.inttoptr(args[0], byte), *how])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@register_jitable
def lines_of(address, size):
    """The addresses of the lines that hold `size` bytes from `address` on, which need not begin a line."""
    return range(address - address % LINE, address + size, LINE)


@register_jitable
def call_in(address, size):
    """Calls the lines that hold `size` bytes from `address` on into the second level of the cache."""
    for line in lines_of(address, size):
        prefetch(line)
