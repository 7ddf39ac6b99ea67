"""Storage types of device memory, and the conversions between them and the type that a kernel computes in.

bfloat16 is the upper half of a float32, held in uint16. Conversions round to nearest even and keep NaN and infinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import float32, float64, int64, uint16
from numba.cuda import types
from numba.cuda.extending import intrinsic

from gpubp.kernels.mathematics import inlined

from .vectors import each, reader, writer

float16 = types.float16
bfloat16 = uint16
_TYPES = {np.dtype(t): n for t, n in (("f4", float32), ("f8", float64), ("f2", float16), ("u2", bfloat16))}
_TYPES[np.dtype("i8")] = int64

_I16, _I32 = ir.IntType(16), ir.IntType(32)


def numba_type(dtype: npt.DTypeLike) -> Any:
    """The type that factories take for arrays of `dtype`; uint16 holds bfloat16."""
    return _TYPES[np.dtype(dtype)]


# ---- conversion ------------------------------------------------------------------------------------------


@intrinsic
def from_float16(typing_context, x):
    def codegen(context, builder, signature, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return float32(float16), codegen


@intrinsic
def to_float16(typing_context, x):
    def codegen(context, builder, signature, arguments):
        half = builder.fptrunc(arguments[0], ir.HalfType())
        return builder.bitcast(half, context.get_value_type(float16))

    return float16(float32), codegen


@intrinsic
def from_bfloat16(typing_context, x):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(builder.shl(builder.zext(arguments[0], _I32), _I32(16)), ir.FloatType())

    return float32(bfloat16), codegen


@intrinsic
def to_bfloat16(typing_context, x):
    # One instruction from compute capability 8.0 on, which is where products take bfloat16.
    def codegen(context, builder, signature, arguments):
        convert = ir.FunctionType(_I16, [ir.FloatType()])
        return builder.call(ir.InlineAsm(convert, "cvt.rn.bf16.f32 $0, $1;", "=h,f"), arguments)

    return bfloat16(float32), codegen


def decoder(real: Any, storage: Any) -> Any:
    """The scalar function from a stored element to `real`."""
    if storage in (float16, bfloat16):
        assert real == float32, f"expected float32 beside 16-bit storage; got {real}"
        return from_float16 if storage == float16 else from_bfloat16
    return inlined(lambda x: real(x))


def encoder(real: Any, storage: Any) -> Any:
    """The scalar function from `real` to a stored element."""
    if storage in (float16, bfloat16):
        assert real == float32, f"expected float32 beside 16-bit storage; got {real}"
        return to_float16 if storage == float16 else to_bfloat16
    return inlined(lambda x: storage(x))


def loader(real: Any, storage: Any, width: int) -> Any:
    """load(array of `storage`, index) -> vector of `real`."""
    read, decode = reader(width), decoder(real, storage)
    if storage == real:
        return read

    @inlined
    def load(array, index):
        return each(decode, (read(array, index),), ())

    return load


def saver(real: Any, storage: Any, width: int) -> Any:
    """save(array of `storage`, index, vector of `real`)."""
    write, encode = writer(width), encoder(real, storage)
    if storage == real:
        return write

    @inlined
    def save(array, index, values):
        write(array, index, each(encode, (values,), ()))

    return save
