"""Matrix products as launches: a BLAS call by pointer, so that a recorded step never returns to Python for one."""

from . import gemm_call
from .rows import read_row


def gemm(real, loop, call_gemm):
    """C = op(A) op(B), op(X) = X or X^T, over C-contiguous matrices; C is overwritten.

    Operands: A, B and C as stored, then (address of cblas_?gemm, transpose A, transpose B) in the place of a fourth.
    An empty inner dimension gives zeros; an empty C is left alone.
    """

    def kernel(address):
        row = read_row(address)
        m, n = row[8], row[9]
        k = row[2] if row[11] else row[3]
        lda, ldb = max(row[3], 1), max(row[6], 1)
        if m > 0 and n > 0:
            call_gemm(
                row[10],
                row[11],
                row[12],
                m,
                n,
                k,
                real(1),
                row[1],
                lda,
                row[4],
                ldb,
                real(0),
                row[7],
                n,
            )

    return kernel


def caller(single: bool, integer_bits: int):
    """The intrinsic that calls sgemm (`single`) or dgemm of a BLAS with integers of that many bits."""
    return getattr(gemm_call, f"call_{'s' if single else 'd'}gemm{integer_bits}")
