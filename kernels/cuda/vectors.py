"""Vectors of `width` neighbouring numbers, as tuples: read, written and computed with lane by lane.

A read or write moves at most 16 bytes per instruction (LDG.128, STG.128) and takes the flat index of its first element,
which must be a multiple of `width` in an array aligned to 16 bytes. Lanes are unrolled while the code is made, so that
vectors stay in registers.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import float64
from numba.cuda import types
from numba.cuda.extending import intrinsic

from gpubp.kernels.mathematics import inlined

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def zeros(real: Any, width: int) -> Any:
    """A vector of zeros."""
    return (np.float64(0) if real == float64 else np.float32(0),) * width


# ---- vectors in memory -----------------------------------------------------------------------------------


def _pieces(context: Any, builder: Any, array_type: Any, array: Any, index: Any, width: int) -> Any:
    """(pointer to what one instruction moves, its lanes, its bytes) for `width` elements from `index` on.

    It points to one element or to a vector; 16-bit elements are moved as pairs in 32 bits, else LLVM splits the vector.
    """
    bits = array_type.dtype.bitwidth
    lanes = min(width, 128 // bits)
    start = builder.gep(context.make_array(array_type)(context, builder, array).data, [index])
    moved = _I32 if bits == 16 else context.get_data_type(array_type.dtype)
    for first in range(0, width, lanes):
        pointer = builder.gep(start, [_I64(first)])
        if lanes > 1:
            vector = ir.VectorType(moved, lanes * bits // moved.width if bits == 16 else lanes)
            pointer = builder.bitcast(pointer, vector.as_pointer())
        yield pointer, range(first, first + lanes), lanes * bits // 8


def _unpack(builder, value, lanes):
    """The lanes of what one instruction read."""
    if lanes == 1:
        return [value]
    parts = [builder.extract_element(value, _I32(k)) for k in range(value.type.count)]
    if len(parts) == lanes:
        return parts
    return [builder.trunc(half, _I16) for w in parts for half in (w, builder.lshr(w, _I32(16)))]


def _pack(builder, lanes, pointer):
    """What one instruction writes there."""
    if len(lanes) == 1:
        return lanes[0]
    vector = pointer.type.pointee
    if vector.count < len(lanes):
        words = [builder.zext(lane, _I32) for lane in lanes]
        pairs = zip(words[::2], words[1::2], strict=True)
        lanes = [builder.or_(low, builder.shl(high, _I32(16))) for low, high in pairs]
    value = vector(ir.Undefined)
    for k, lane in enumerate(lanes):
        value = builder.insert_element(value, lane, _I32(k))
    return value


@functools.cache
def reader(width: int) -> Any:
    """read(array, index) -> the vector that begins at the flat index."""

    @intrinsic
    def read(typing_context, array, index):
        result = types.UniTuple(array.dtype, width)

        def codegen(context, builder, signature, arguments):
            found = []
            array, index = arguments
            for pointer, lanes, align in _pieces(context, builder, signature.args[0], array, index, width):
                found += _unpack(builder, builder.load(pointer, align=align), len(lanes))
            return context.make_tuple(builder, signature.return_type, found)

        return result(array, types.int64), codegen

    return read


@functools.cache
def writer(width: int) -> Any:
    """write(array, index, vector): the vector goes where the flat index says."""

    @intrinsic
    def write(typing_context, array, index, values):
        def codegen(context, builder, signature, arguments):
            array, index, values = arguments
            for pointer, lanes, align in _pieces(context, builder, signature.args[0], array, index, width):
                value = [builder.extract_value(values, lane) for lane in lanes]
                builder.store(_pack(builder, value, pointer), pointer, align=align)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.UniTuple(array.dtype, width)), codegen

    return write


# ---- arithmetic on vectors -------------------------------------------------------------------------------


def _call(context, builder, f, signature, arguments):
    implementation = context.get_function(f, signature)
    context.add_linking_libs(getattr(implementation, "libs", ()))
    return implementation(builder, arguments)


@intrinsic
def each(typing_context, f, vectors, common):
    """The vector of f(one lane of each of the tuple `vectors`, *common), lane after lane."""
    width = len(vectors[0])
    lane = f.get_call_type(typing_context, (*(types.unliteral(v[0]) for v in vectors), *common), {})
    result = types.UniTuple(lane.return_type, width)

    def codegen(context, builder, signature, arguments):
        rows = [builder.extract_value(arguments[1], k) for k in range(len(vectors))]
        rest = [builder.extract_value(arguments[2], k) for k in range(len(common))]
        found = [
            _call(context, builder, f, lane, [*(builder.extract_value(row, k) for row in rows), *rest])
            for k in range(width)
        ]
        return context.make_tuple(builder, result, found)

    return result(f, vectors, common), codegen


@intrinsic
def fold(typing_context, f, vector):
    """f(... f(f(v0, v1), v2) ..., the last) over the lanes of one vector."""
    lane = f.get_call_type(typing_context, (vector.dtype, vector.dtype), {})

    def codegen(context, builder, signature, arguments):
        total, *rest = (builder.extract_value(arguments[1], k) for k in range(len(vector)))
        for value in rest:
            total = _call(context, builder, f, lane, [total, value])
        return total

    return vector.dtype(f, vector), codegen


@inlined
def plus(a, b):
    return a + b
