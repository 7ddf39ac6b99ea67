"""Matrix products as launches: BLAS calls by pointer, so that a recorded step never returns to Python for one."""

from numba.extending import register_jitable

from .atomics import load
from .gemm_call import call_gemm
from .panels import panel_columns, place
from .rows import matrix, read_row, vector
from .team import SIZE, TILE, barrier, cut, granule, share_rows


def gemm(real, bits):
    """C = op(A) op(B), op(X) = X or X^T, over C-contiguous matrices; C is overwritten.

    Operands: A, B and C as stored, then (address of cblas_?gemm, transpose A, transpose B, pieces of C's rows, pieces
    of its columns, panels in which A lies: none, or as many as pieces of C's rows, and then A is transposed) in the
    place of a fourth and fifth. Members take the pieces in turn, whatever their number, so that the bits are those of
    the pieces. An empty inner dimension gives zeros; an empty C is left alone.
    """
    size = real.bitwidth // 8

    def kernel(address, me, team):
        row = read_row(address)
        m, n, transpose_a, transpose_b = row[8], row[9], row[11], row[12]
        k = row[2] if transpose_a else row[3]
        ldb = max(row[6], 1)
        down, across = row[13], row[14]
        for piece in range(me, down * across, load(team + 8 * SIZE)):
            i, i_end = cut(m, granule(m), piece // across, down)
            j, j_end = cut(n, TILE, piece % across, across)
            if i < i_end and j < j_end:
                if transpose_a:
                    of_a, lda = place(row[1], size, k, m, i, i_end, row[15])
                else:
                    of_a, lda = row[1] + size * i * k, max(k, 1)
                call_gemm(
                    bits,
                    row[10],
                    transpose_a,
                    transpose_b,
                    i_end - i,
                    j_end - j,
                    k,
                    real(1),
                    of_a,
                    lda,
                    row[4] + size * (j * ldb if transpose_b else j),
                    ldb,
                    real(0),
                    row[7] + size * (i * n + j),
                    n,
                )

    return kernel


def gemm_by_terms(real, bits):
    """C (m, n) = A (m, k) B (k, n) over C-contiguous matrices, k > 0, as the sum of products over pieces of the terms.

    Operands: A, B, C, planes (pieces - 1, m n) scratch, then (address of cblas_?gemm, pieces, panels in which A lies:
    none, or as many as pieces) in the place of a fifth. Each piece takes its columns of A and its rows of B: those that
    the same member updates, so that weights need not travel from core to core. The first piece is written to C, the
    others to planes; then each member adds them up in order over its rows.
    """
    size = real.bitwidth // 8

    def kernel(address, me, team):
        row = read_row(address)
        m, k, n, pieces = row[2], row[3], row[6], row[14]
        planes = matrix(row, 3, real)
        for piece in range(me, pieces, load(team + 8 * SIZE)):
            start, stop = panel_columns(k, piece, pieces)
            of_a, lda = place(row[1], size, m, k, start, stop, row[15])
            call_gemm(
                bits,
                row[13],
                0,
                0,
                m,
                n,
                stop - start,
                real(1),
                of_a,
                lda,
                row[4] + size * start * n,
                n,
                real(0),
                row[7] if piece == 0 else row[10] + size * (piece - 1) * m * n,
                n,
            )
        barrier(me, team)
        first, last = share_rows(m, me, team)
        c = vector(row, 2, real)[first * n : last * n]
        for piece in range(pieces - 1):
            _add(c, planes[piece, first * n : last * n])

    return kernel


@register_jitable
def _add(c, plane):
    for i in range(c.shape[0]):
        c[i] += plane[i]
