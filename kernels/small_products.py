"""Matrix products too small or thin for BLAS: straight from the operands, without its copies of them into blocks."""

from numba.extending import register_jitable

from .atomics import load
from .rows import read_row
from .team import SIZE, TILE, cut, granule
from .tiles import SIDE_BYTES, copy_bytes, multiply_tile, transpose_block

BYTES, HALF, QUARTER = 64, 32, 16  # of a row of a panel: full, or as narrow as its columns allow
ROWS, NARROW_ROWS = 4, 8  # of a tile: as many sums as the latency of a multiply-add wants


def scratch_size(k: int, itemsize: int) -> int:
    """Elements of scratch for each piece: a panel of B, and a tile of C. Zeros at first, or NaN would cost time."""
    return (k + NARROW_ROWS) * (BYTES // itemsize)


@register_jitable
def _copy_row(target, source, count):
    """4 to 64 bytes, as two vectors that may overlap."""
    if count >= 32:
        copy_bytes(32, target, source)
        copy_bytes(32, target + count - 32, source + count - 32)
    elif count >= 16:
        copy_bytes(16, target, source)
        copy_bytes(16, target + count - 16, source + count - 16)
    elif count >= 8:
        copy_bytes(8, target, source)
        copy_bytes(8, target + count - 8, source + count - 8)
    else:
        copy_bytes(4, target, source)


@register_jitable
def _transposed_panel(zero, size, target, target_row, source, source_row, width, k):
    """target[p, j] = source[j, p] for j < width, p < k: blocks, of which the last may overlap the one before."""
    side = SIDE_BYTES // size
    if width >= side and k >= side:
        for j in range(0, width, side):
            at = min(j, width - side)
            for p in range(0, k, side):
                first = min(p, k - side)
                block = target + target_row * first + size * at
                transpose_block(zero, block, target_row, source + source_row * at + size * first, source_row)
    else:
        for j in range(width):
            for p in range(k):
                _copy_row(target + target_row * p + size * j, source + source_row * j + size * p, size)


def small_gemm(real):
    """C = op(A) op(B), op(X) = X or X^T, over C-contiguous matrices; C is overwritten.

    Operands: A, B and C as stored, then as `products.gemm` (address of scratch (pieces, `scratch_size`), transpose A,
    transpose B, pieces of C's rows, pieces of its columns). B is taken in panels of columns, copied where they are
    narrow or B is transposed. Each entry of C is summed in the order of the inner dimension: its bits depend on nothing
    else.
    """
    size = real.bitwidth // 8
    full = BYTES // size

    def kernel(address, me, team):
        row = read_row(address)
        m, n, transpose_a, transpose_b = row[8], row[9], row[11], row[12]
        down, across = row[13], row[14]
        k = row[2] if transpose_a else row[3]
        zero = real(0)
        a_row, a_step = (size, size * row[3]) if transpose_a else (size * row[3], size)
        c_row = size * n
        for piece in range(me, down * across, load(team + 8 * SIZE)):
            i_first, i_end = cut(m, granule(m), piece // across, down)
            j_first, j_end = cut(n, TILE, piece % across, across)
            panel = row[10] + BYTES * (k + NARROW_ROWS) * piece
            edge = panel + BYTES * k
            for j in range(j_first, j_end, full):
                width = min(full, j_end - j)
                count = size * width
                wide = BYTES if count > HALF else (HALF if count > QUARTER else QUARTER)
                b, b_step = row[4] + size * j, size * n
                if transpose_b:
                    _transposed_panel(zero, size, panel, wide, row[4] + size * k * j, size * k, width, k)
                elif count < wide:
                    for p in range(k):
                        _copy_row(panel + wide * p, b + b_step * p, count)
                if transpose_b or count < wide:
                    b, b_step = panel, wide
                tall = ROWS if wide == BYTES else NARROW_ROWS
                tall = tall if i_end - i_first >= tall else 1
                for start in range(i_first, i_end, tall):
                    i = min(start, i_end - tall)  # the last may overlap the one before: the bits are the same
                    a, c = row[1] + a_row * i, row[7] + c_row * i + size * j
                    out, out_row = (c, c_row) if count == wide else (edge, wide)
                    if wide == BYTES:
                        if tall == ROWS:
                            multiply_tile(zero, ROWS, BYTES, a, a_row, a_step, b, b_step, k, out, out_row)
                        else:
                            multiply_tile(zero, 1, BYTES, a, a_row, a_step, b, b_step, k, out, out_row)
                    elif wide == HALF:
                        if tall == NARROW_ROWS:
                            multiply_tile(
                                zero, NARROW_ROWS, HALF, a, a_row, a_step, b, b_step, k, out, out_row
                            )
                        else:
                            multiply_tile(zero, 1, HALF, a, a_row, a_step, b, b_step, k, out, out_row)
                    elif tall == NARROW_ROWS:
                        multiply_tile(
                            zero, NARROW_ROWS, QUARTER, a, a_row, a_step, b, b_step, k, out, out_row
                        )
                    else:
                        multiply_tile(zero, 1, QUARTER, a, a_row, a_step, b, b_step, k, out, out_row)
                    if count < wide:
                        for r in range(tall):
                            _copy_row(c + c_row * r, edge + wide * r, count)

    return kernel
