"""How the CUDA kernels are laid over their data: width of a vector, blocks of a reduction, grid and block of a launch.

Numbers of blocks in a reduction follow from the shape alone, so that its bits do. A layout is (grid, block), each one
or two numbers, x first. This file needs no CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence

LANES, ROWS = 32, 8  # of the tile of threads that adds up columns
THREADS = LANES * ROWS  # of every other block
MOST_BLOCKS = 2048  # of an elementwise grid: several for each multiprocessor of the largest GPUs
HELD_BYTES = 32  # of a row that a thread of `softmax_loss` holds in registers
CHUNK = 16384  # elements that one block of threads adds up of a flat buffer

Layout = tuple[tuple[int, ...], tuple[int, ...]]


def _up(a: int, b: int) -> int:
    return -(-a // b)


def width(itemsizes: Sequence[int], columns: int = 0, addresses: Sequence[int] = ()) -> int:
    """Elements that a thread takes at once: 16 bytes of the smallest, where rows and addresses allow; else 1.

    `columns` is the length of a row of a matrix, 0 for flat buffers, which may have a rest.
    """
    n = 16 // min(itemsizes)
    return n if columns % n == 0 and all(address % 16 == 0 for address in addresses) else 1


def elementwise(batch: int, n: int, width: int = 1) -> Layout:
    """For `bias_activation` and its kin, `dropout`, `gather`: x along the columns, y along the rows."""
    groups = max(1, _up(n, width))
    x = min(THREADS, 1 << (groups - 1).bit_length())
    y = THREADS // x
    across = min(MOST_BLOCKS, _up(groups, x))
    return (across, max(1, min(_up(batch, y), MOST_BLOCKS // across))), (x, y)


def flat(n: int, width: int = 1) -> Layout:
    """For `update`, `prepare_update`, `cast`, `all_finite` over n elements."""
    return (max(1, min(MOST_BLOCKS, _up(n, width * THREADS))),), (THREADS,)


def one_block() -> Layout:
    """For `reduce_weights` and what finishes a loss, a penalty, a norm; `advance` needs one thread of it."""
    return (1,), (THREADS,)


def row_blocks(batch: int, n: int) -> int:
    """Blocks of rows that a column sum over a (batch, n) matrix is cut into: rows of its `partials`."""
    tiles = _up(n, 4 * LANES)
    return max(1, min(_up(batch, 2 * ROWS), _up(1024, max(1, tiles)), 256))


def tiles(n: int, width: int = 1) -> int:
    """Tiles of columns that `elementwise_loss` works on: columns of its `losses`."""
    return max(1, _up(n, LANES * width))


def columns(blocks: int, n: int, width: int = 1) -> Layout:
    """For `delta`, `elementwise_loss`, `column_partials` with `blocks` = row_blocks, and `sum_partials` with 1."""
    return (tiles(n, width), max(1, min(blocks, 65535))), (LANES, ROWS)


def softmax(n: int, itemsize: int) -> tuple[int, int]:
    """(lanes, held) of `softmax_loss`: threads of a row, and entries of it that each holds in registers.

    held = 0: the row is too wide for that and is read again. Eight float64 entries a thread would spill.
    """
    lanes = min(32, max(4, 1 << max(0, n - 1).bit_length()))
    return lanes, next((held for held in (1, 4, 8) if n <= lanes * held and held * itemsize <= HELD_BYTES), 0)


def softmax_rows(batch: int, lanes: int) -> Layout:
    """For `softmax_loss`."""
    return (max(1, min(MOST_BLOCKS, _up(batch * lanes, THREADS))),), (THREADS,)


def warps(batch: int) -> Layout:
    """For `normalize` and `normalize_delta`, whose rows have a warp each."""
    return softmax_rows(batch, 32)


def chunks(n: int) -> int:
    """Entries of `partials` in `penalty` and `clip` over n numbers."""
    return max(1, _up(n, CHUNK))


def penalty(n: int) -> Layout:
    """For `penalty` and `clip` over n numbers."""
    return (min(MOST_BLOCKS, chunks(n)),), (THREADS,)
