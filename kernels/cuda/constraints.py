"""Constraints on the weights: a block of threads for each few units."""

from __future__ import annotations

from numba import cuda, float64

from gpubp.kernels.constraints import shrink
from gpubp.kernels.mathematics import inlined
from gpubp.kernels.replay import OVERFLOWED, STOPPED

from .geometry import LANES, ROWS
from .reductions import tile_sum
from .storage import loader, saver
from .vectors import each, fold, zeros


@inlined
def _smaller(a, b):
    return a if a < b else b


def max_norm(real, storage, width=1):
    """W[:, j] = W[:, j] min(1, c / |W[:, j]|), in place, and once more as `storage`; nothing when stopped.

    W (n_in, n_out) of `real`; limit (c,) float64; counters; copy (n_in, n_out) of `storage` written where a column
    shrinks, or W itself where `storage` is None. Squares are added up in float64. Blocks of LANES x ROWS.
    """
    load, save = loader(real, real, width), saver(real, real, width)
    save_copy = None if storage is None else saver(real, storage, width)
    over_rows, zero, tile = tile_sum(float64, width), zeros(float64, width), LANES * width

    @inlined
    def add_square(total, w):
        return total + float64(w) * float64(w)

    @inlined
    def shrunk(w, factor):
        return w * real(factor)

    @inlined
    def copied(copy, place, new):
        if save_copy is not None:
            save_copy(copy, place, new)

    def kernel(w, limit, counters, copy):
        if counters[STOPPED] == 0 and counters[OVERFLOWED] == 0:
            rows, n = w.shape
            for first in range(cuda.blockIdx.x * tile, n, cuda.gridDim.x * tile):
                j = first + cuda.threadIdx.x * width
                squares = zero
                if j < n:
                    for i in range(cuda.threadIdx.y, rows, ROWS):
                        squares = each(add_square, (squares, load(w, i * n + j)), ())
                factors = each(shrink, (over_rows(squares),), (limit[0],))
                if j < n and fold(_smaller, factors) < 1:
                    for i in range(cuda.threadIdx.y, rows, ROWS):
                        new = each(shrunk, (load(w, i * n + j), factors), ())
                        save(w, i * n + j, new)
                        copied(copy, i * n + j, new)

    return kernel
