"""The passes of a gated linear unit beside its products; `gpubp.kernels.gated` has the equations and their source.

A vector lies within one half of a row: its width divides n, so that every access of either half is aligned.
"""

from __future__ import annotations

from numba import cuda

from gpubp.kernels.mathematics import inlined

from .geometry import LANES, ROWS
from .reductions import tile_sum
from .storage import loader, saver
from .vectors import each, plus, zeros


def gated(real, storage, f, width=1):
    """a = f(u) v for z + b = [u | v]: z (batch, 2 n), b (2 n,), a (batch, n) written, all of `storage`."""
    load, save = loader(real, storage, width), saver(real, storage, width)

    @inlined
    def lane(u, v, gate_b, value_b):
        return f(u + gate_b) * (v + value_b)

    def kernel(z, b, a):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = a.shape
        for j in range(column * width, n, columns * width):
            gate_b, value_b = load(b, j), load(b, n + j)
            for i in range(row, batch, rows):
                gate = 2 * i * n + j
                operands = (load(z, gate), load(z, gate + n), gate_b, value_b)
                save(a, i * n + j, each(lane, operands, ()))

    return kernel


def gated_keep(real, storage, f, d_f, width=1):
    """a = f(u) v and, over z, [v f'(u) | f(u)], for z + b = [u | v].

    z (batch, 2 n) in place, b (2 n,), a (batch, n) written, all of `storage`.
    """
    load, save = loader(real, storage, width), saver(real, storage, width)

    @inlined
    def times(x, y):
        return x * y

    @inlined
    def slope(u, v):
        return v * d_f(u)

    def kernel(z, b, a):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = a.shape
        for j in range(column * width, n, columns * width):
            gate_b, value_b = load(b, j), load(b, n + j)
            for i in range(row, batch, rows):
                gate = 2 * i * n + j
                u = each(plus, (load(z, gate), gate_b), ())
                v = each(plus, (load(z, gate + n), value_b), ())
                h = each(f, (u,), ())
                save(z, gate, each(slope, (u, v), ()))
                save(z, gate + n, h)
                save(a, i * n + j, each(times, (h, v), ()))

    return kernel


def gated_delta(real, storage, width=1):
    """BP2: delta = [upstream | upstream] * saved, in place over saved (batch, 2 n); upstream (batch, n).

    BP3, first stage: partials (blocks, 2 n) of `real` = column sums of each block of rows; `sum_partials` makes db of
    them. Blocks of LANES x ROWS threads.
    """
    load, save, save_real = (
        loader(real, storage, width),
        saver(real, storage, width),
        saver(real, real, width),
    )
    over_rows, zero, tile = tile_sum(real, width), zeros(real, width), LANES * width

    @inlined
    def times(x, y):
        return x * y

    def kernel(upstream, saved, partials):
        batch, n = upstream.shape
        blocks = partials.shape[0]
        size = (batch + blocks - 1) // blocks
        for k in range(cuda.blockIdx.y, blocks, cuda.gridDim.y):
            for first in range(cuda.blockIdx.x * tile, n, cuda.gridDim.x * tile):
                j = first + cuda.threadIdx.x * width
                gates, values = zero, zero
                if j < n:
                    for i in range(k * size + cuda.threadIdx.y, min(batch, (k + 1) * size), ROWS):
                        above, gate = load(upstream, i * n + j), 2 * i * n + j
                        d = each(times, (above, load(saved, gate)), ())
                        save(saved, gate, d)
                        gates = each(plus, (gates, d), ())
                        d = each(times, (above, load(saved, gate + n)), ())
                        save(saved, gate + n, d)
                        values = each(plus, (values, d), ())
                gates, values = over_rows(gates), over_rows(values)
                if j < n and cuda.threadIdx.y == 0:
                    save_real(partials, 2 * k * n + j, gates)
                    save_real(partials, 2 * k * n + n + j, values)

    return kernel
