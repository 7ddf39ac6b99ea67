"""The passes of a dense layer beside its products: bias and activation forward, BP2 and BP3 backward."""

from __future__ import annotations

from numba import cuda

from gpubp.kernels.mathematics import inlined

from .geometry import LANES, ROWS
from .reductions import tile_sum
from .storage import loader, saver
from .vectors import each, plus, zeros


def bias_activation(real, storage, f, width=1):
    """a = f(z + b), in place over z (batch, n); b (n,). Both of `storage`."""
    load, save = loader(real, storage, width), saver(real, storage, width)

    @inlined
    def lane(z, b):
        return f(z + b)

    def kernel(z, b):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = z.shape
        for j in range(column * width, n, columns * width):
            bias = load(b, j)
            for i in range(row, batch, rows):
                place = i * n + j
                save(z, place, each(lane, (load(z, place), bias), ()))

    return kernel


def bias_activation_keep(real, storage, f, width=1):
    """z += b and a = f(z): z (batch, n) in place, b (n,), a (batch, n) written. All of `storage`."""
    load, save = loader(real, storage, width), saver(real, storage, width)

    def kernel(z, b, a):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = z.shape
        for j in range(column * width, n, columns * width):
            bias = load(b, j)
            for i in range(row, batch, rows):
                place = i * n + j
                t = each(plus, (load(z, place), bias), ())
                save(z, place, t)
                save(a, place, each(f, (t,), ()))

    return kernel


def delta(real, storage, d_f, width=1):
    """BP2: delta = upstream * f', in place over upstream (batch, n); saved (batch, n) is the z or the a that d_f takes.

    BP3, first stage: partials (blocks, n) of `real` = column sums of each block of rows; `sum_partials` makes db of
    them. Blocks of LANES x ROWS threads.
    """
    load, save, save_real = (
        loader(real, storage, width),
        saver(real, storage, width),
        saver(real, real, width),
    )
    over_rows, zero, tile = tile_sum(real, width), zeros(real, width), LANES * width

    @inlined
    def lane(upstream, saved):
        return upstream * d_f(saved)

    def kernel(upstream, saved, partials):
        batch, n = upstream.shape
        blocks = partials.shape[0]
        size = (batch + blocks - 1) // blocks
        for k in range(cuda.blockIdx.y, blocks, cuda.gridDim.y):
            for first in range(cuda.blockIdx.x * tile, n, cuda.gridDim.x * tile):
                j = first + cuda.threadIdx.x * width
                total = zero
                if j < n:
                    for i in range(k * size + cuda.threadIdx.y, min(batch, (k + 1) * size), ROWS):
                        place = i * n + j
                        d = each(lane, (load(upstream, place), load(saved, place)), ())
                        save(upstream, place, d)
                        total = each(plus, (total, d), ())
                total = over_rows(total)
                if j < n and cuda.threadIdx.y == 0:
                    save_real(partials, k * n + j, total)

    return kernel
