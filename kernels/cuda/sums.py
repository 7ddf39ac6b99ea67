"""The sum of two matrices, which ends a residual block and its way back, and a copy of one."""

from __future__ import annotations

from numba import cuda

from .storage import loader, saver
from .vectors import each, plus, reader, writer


def add(real, storage, width=1):
    """out = x + y, all (batch, n) of `storage`; out may be x or y."""
    load, save = loader(real, storage, width), saver(real, storage, width)

    def kernel(x, y, out):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = x.shape
        for j in range(column * width, n, columns * width):
            for i in range(row, batch, rows):
                place = i * n + j
                save(out, place, each(plus, (load(x, place), load(y, place)), ()))

    return kernel


def clone(storage, width=1):
    """out = x, both (batch, n) of `storage`."""
    read, write = reader(width), writer(width)

    def kernel(x, out):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = x.shape
        for j in range(column * width, n, columns * width):
            for i in range(row, batch, rows):
                write(out, i * n + j, read(x, i * n + j))

    return kernel
