"""Second stages of the column sums: partial results of fixed blocks, added in order."""

from numba.extending import register_jitable


def block_count(rows: int, columns: int) -> int:
    """Blocks of rows that a reduction over a (rows, columns) matrix is cut into; depends on the shape alone."""
    return max(1, min(64, rows, rows * columns // 8192))


@register_jitable
def sum_blocks(partials, out):
    """out[j] = sum over k of partials[k, j], in the order of k."""
    for j in range(out.shape[0]):
        out[j] = partials[0, j]
    for k in range(1, partials.shape[0]):
        for j in range(out.shape[0]):
            out[j] += partials[k, j]
