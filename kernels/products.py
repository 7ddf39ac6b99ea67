"""Matrix products as launches: a BLAS call by pointer, so that a recorded step never returns to Python for one."""

from .atomics import load
from .gemm_call import call_gemm
from .rows import read_row
from .team import SIZE, TILE, cut, granule


def gemm(real, bits):
    """C = op(A) op(B), op(X) = X or X^T, over C-contiguous matrices; C is overwritten.

    Operands: A, B and C as stored, then (address of cblas_?gemm, transpose A, transpose B, pieces of C's rows, pieces
    of its columns) in the place of a fourth and fifth. Members take the pieces in turn, whatever their number, so that
    the bits are those of the pieces. An empty inner dimension gives zeros; an empty C is left alone.
    """
    size = real.bitwidth // 8

    def kernel(address, me, team):
        row = read_row(address)
        m, n, transpose_a, transpose_b = row[8], row[9], row[11], row[12]
        k = row[2] if transpose_a else row[3]
        lda, ldb = max(row[3], 1), max(row[6], 1)
        down, across = row[13], row[14]
        for piece in range(me, down * across, load(team + 8 * SIZE)):
            i, i_end = cut(m, granule(m), piece // across, down)
            j, j_end = cut(n, TILE, piece % across, across)
            if i < i_end and j < j_end:
                call_gemm(
                    bits,
                    row[10],
                    transpose_a,
                    transpose_b,
                    i_end - i,
                    j_end - j,
                    k,
                    real(1),
                    row[1] + size * (i if transpose_a else i * lda),
                    lda,
                    row[4] + size * (j * ldb if transpose_b else j),
                    ldb,
                    real(0),
                    row[7] + size * (i * n + j),
                    n,
                )

    return kernel
