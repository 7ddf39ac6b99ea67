"""How a matrix product is cut for a team: the pieces, which fix the bits, follow from shapes and the threads alone."""

from __future__ import annotations

from gpubp.kernels.team import TILE

_SHARED_FROM = 30_000  # operations of a product from which a piece for each thread pays
_LINE = 4  # threads up to which a product is cut along one side alone, and that weights stay with
_WIDE = 4  # times the rows of a batch that its columns are where weights stay with their threads,
_DEEP = 64  # and columns for each thread
_SMALL = 2**19  # operations up to which a product is made without BLAS, where that is slow when small
_THIN = 16  # columns or terms up to which it is made without, too, as those of an output layer are:
_DEEPEST = 2**12  # of so many terms, whose panel fits a cache,
_LARGEST = 2**18  # or into so many entries of C; measured up to these (bench/README.md)


def is_small(m: int, k: int, n: int, transpose_a: bool) -> bool:
    """Whether C (m, n) = A (m, k) B (k, n) costs BLAS more by its preparations than it gains by them.

    A that is stored transposed is read across its rows, which is quick only where it is small. With few terms, the
    panels of B need rows enough of A to pay.
    """
    if 2 * m * k * n <= _SMALL:
        return True
    if transpose_a:
        return False
    return (n <= _THIN and k <= _DEEPEST) or (k <= _THIN and m * n <= _LARGEST and n <= 8 * m)


def keeps_rows(m: int, k: int, n: int, threads: int, *, small: bool, transpose_a: bool) -> bool:
    """Whether rows of C stay with their member, although C may be longer the other way.

    So it is where little is copied: by products without BLAS, and of few terms. And so it is with dW = A^T delta, of a
    batch of k rows, where the layer is cut by rows of W going forward (`term_pieces`).
    """
    if small:
        return True
    few = k <= _THIN or (transpose_a and _weights_stay(k, m, n, threads))
    return few and m >= TILE * threads


def product_pieces(m: int, k: int, n: int, threads: int, *, by_rows: bool = False) -> tuple[int, int]:
    """(pieces of C's rows, pieces of its columns) for C (m, n) = A (m, k) B (k, n).

    BLAS copies its operands into blocks before it multiplies, and each piece does so for itself: its rows of A and its
    columns of B. So the longer side of C is cut, which leaves the smaller operand to be copied by all. With `by_rows`
    rows stay with their member, who need not wait for others, where there are rows for all or little work.
    """
    if threads == 1 or 2 * m * k * n < _SHARED_FROM:
        return 1, 1
    if by_rows and (m >= TILE * threads or 2 * m * k * n <= _SMALL):
        return threads, 1
    if threads <= _LINE:
        return (1, threads) if n > m else (threads, 1)
    shorter = max(p for p in range(1, threads + 1) if threads % p == 0 and p * p <= threads)
    return (shorter, threads // shorter) if n > m else (threads // shorter, shorter)


def term_pieces(m: int, k: int, n: int, threads: int) -> int:
    """Pieces of the terms of C (m, n) = A (m, k) B (k, n), B the weights of a layer; 1 where C is cut instead.

    Then each thread reads the rows of B that it updates, and none that another core has just written. For that each
    writes all of C, which is added up: it pays where A has few rows beside its columns.
    """
    return threads if _weights_stay(m, k, n, threads) and 2 * m * k * n >= _SHARED_FROM else 1


def _weights_stay(batch: int, inputs: int, outputs: int, threads: int) -> bool:
    return 1 < threads <= _LINE and outputs > _THIN and inputs >= max(_WIDE * batch, _DEEP * threads)
