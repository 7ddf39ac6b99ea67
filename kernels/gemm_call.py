"""Calls a C BLAS matrix product through its address from inside compiled code.

`call_gemm(bits, address, transA, transB, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc)` computes

    C = alpha op(A) op(B) + beta C,    op(X) = X or X^T,    op(A) (m, k), op(B) (k, n), C (m, n)

over row-major arrays of alpha's type, float32 or float64, and writes C in place. `bits`, 64 or 32, a constant, are
those of the library's integers. `address` is that of cblas_?gemm; A, B and C are addresses of first elements; transA
and transB are 0 or 1; lda, ldb and ldc are the elements between the starts of two rows as stored. With beta = 0,
C is not read. Nothing is checked here. Signature: https://netlib.org/blas/cblas.h.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

ROW_MAJOR = 101
NO_TRANSPOSE = 111  # CblasTrans follows as 112


def _parts(real: Any, bits: int) -> Any:
    floating = ir.FloatType() if real == types.float32 else ir.DoubleType()
    enum, integer, wide = ir.IntType(32), ir.IntType(bits), ir.IntType(64)
    void_pointer = ir.IntType(8).as_pointer()
    c_types = (
        [enum] * 3
        + [integer] * 3
        + [floating, void_pointer, integer, void_pointer, integer, floating, void_pointer, integer]
    )
    function_type = ir.FunctionType(ir.VoidType(), c_types)
    i = types.int64
    signature = types.void(i, i, i, i, i, i, real, i, i, i, i, real, i, i)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def convert(value: Any, c_type: Any) -> Any:
            if c_type == void_pointer:
                return builder.inttoptr(value, void_pointer)
            return builder.trunc(value, c_type) if value.type == wide and c_type != wide else value

        _, address, trans_a, trans_b, *rest = args
        transposes = [
            builder.add(builder.trunc(trans, enum), ir.Constant(enum, NO_TRANSPOSE))
            for trans in (trans_a, trans_b)
        ]
        operands = [convert(value, c_type) for value, c_type in zip(rest, c_types[3:], strict=True)]
        gemm = builder.inttoptr(address, function_type.as_pointer())
        builder.call(gemm, [ir.Constant(enum, ROW_MAJOR), *transposes, *operands])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def call_gemm(typing_context, bits, address, transA, transB, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc):
    # One intrinsic for all types and widths: one made for each by a function would miss the cache in every process.
    signature, codegen = _parts(alpha, bits.literal_value)
    return types.void(bits, *signature.args), codegen
