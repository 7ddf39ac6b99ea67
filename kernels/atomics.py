"""Memory that threads share, from inside compiled code: atomic loads and stores, a spinning thread's pause, C calls.

Addresses are integers; every cell is an aligned int64. Who sees a value
sees all that its writer had written before; loads and exchanges stand in one order for all threads.
"""

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_CELL = ir.IntType(64)
# LLVM's names of the instructions `pause` and `yield`, and their argument
_PAUSES = {
    "x86_64": ("llvm.x86.sse2.pause", ()),
    "AMD64": ("llvm.x86.sse2.pause", ()),
    "aarch64": ("llvm.aarch64.hint", (1,)),
    "arm64": ("llvm.aarch64.hint", (1,)),
}
_PAUSE = _PAUSES.get(platform.machine())


@intrinsic
def load(typing_context, address):
    """The cell at `address`."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(builder.inttoptr(args[0], _CELL.as_pointer()), "seq_cst", 8, typ=_CELL)

    return types.int64(types.int64), codegen


@intrinsic
def store(typing_context, address, value):
    """Writes the cell at `address`."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], builder.inttoptr(args[0], _CELL.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def exchange(typing_context, address, value):
    """Writes the cell at `address` and returns what stood there; one order of all exchanges for all threads."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("xchg", builder.inttoptr(args[0], _CELL.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def pause(typing_context):
    """Tells the core that this thread spins."""

    def codegen(context, builder, signature, args):
        if _PAUSE is not None:
            name, hint = _PAUSE
            function_type = ir.FunctionType(ir.VoidType(), [ir.IntType(32)] * len(hint))
            function = cgutils.get_or_insert_function(builder.module, function_type, name)
            builder.call(function, [ir.IntType(32)(n) for n in hint])
        return context.get_dummy_value()

    return types.void(), codegen


def _c_function(result, *arguments):
    """An intrinsic that calls the C function at an address: `result f(arguments)`, all of them integers."""
    function_type = ir.FunctionType(result, arguments)

    def call(context, builder, address, values):
        function = builder.inttoptr(address, function_type.as_pointer())
        narrow = [
            builder.trunc(value, kind) if kind.width < 64 else value
            for value, kind in zip(values, arguments, strict=True)
        ]
        answer = builder.call(function, narrow)
        if isinstance(result, ir.VoidType):
            return context.get_dummy_value()
        return answer if result.width == 64 else builder.sext(answer, _CELL)

    return call


_INT, _VOID = ir.IntType(32), ir.VoidType()
_int_of_none, _none_of_int = _c_function(_INT), _c_function(_VOID, _INT)
_int_of_lock, _none_of_lock = _c_function(_INT, _CELL, _INT), _c_function(_VOID, _CELL)


@intrinsic
def call_int(typing_context, address):
    """`int f(void)` at `address`: openblas_get_num_threads."""

    def codegen(context, builder, signature, args):
        return _int_of_none(context, builder, args[0], [])

    return types.int64(types.int64), codegen


@intrinsic
def call_with_int(typing_context, address, n):
    """`void f(int)` at `address`: openblas_set_num_threads."""

    def codegen(context, builder, signature, args):
        return _none_of_int(context, builder, args[0], [args[1]])

    return types.void(types.int64, types.int64), codegen


@intrinsic
def wait_for_lock(typing_context, address, lock):
    """`int PyThread_acquire_lock(lock, WAIT_LOCK)` at `address`, which needs no lock of the interpreter."""

    def codegen(context, builder, signature, args):
        return _int_of_lock(context, builder, args[0], [args[1], _CELL(1)])

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def release_lock(typing_context, address, lock):
    """`void PyThread_release_lock(lock)` at `address`."""

    def codegen(context, builder, signature, args):
        return _none_of_lock(context, builder, args[0], [args[1]])

    return types.void(types.int64, types.int64), codegen
