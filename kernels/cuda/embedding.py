"""Embeddings: a thread for each output, and for each entry of the table."""

from __future__ import annotations

import numpy as np
from numba import cuda, float64

from gpubp.kernels.embedding import COLUMN, COUNT, FIRST, category

from .storage import decoder, encoder
from .vectors import zeros


def embed(real, storage):
    """a = [x at `passed` | rows of E]; NaN where a number is no category.

    x (batch, n_in), E (rows, size) and a (batch, n_out) of `storage`; passed (n,), plan (columns, 3) int64.
    """
    decode, encode = decoder(real, storage), encoder(real, storage)
    nothing = np.float64(np.nan) if real == float64 else np.float32(np.nan)

    def kernel(x, table, a, passed, plan):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = a.shape
        others, size = passed.shape[0], table.shape[1]
        for i in range(row, batch, rows):
            for j in range(column, n, columns):
                if j < others:
                    a[i, j] = x[i, passed[j]]
                else:
                    k = (j - others) // size
                    c = category(decode(x[i, plan[k, COLUMN]]), plan[k, COUNT])
                    if c >= 0:
                        a[i, j] = table[plan[k, FIRST] + c, (j - others) % size]
                    else:
                        a[i, j] = encode(nothing)

    return kernel


def embedding_gradient(real, storage):
    """dE/dE[r, j]: the sum of delta over the examples of that category, in the order of the batch.

    x (batch, n_in) and delta (batch, n_out) of `storage`, gradient (rows, size) of `real` written, plan (columns, 3)
    int64. Every row of the table looks through the whole batch: without atomics, the bits are always the same.
    """
    decode = decoder(real, storage)
    (zero,) = zeros(real, 1)

    def kernel(x, delta, gradient, plan):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        entries, size = gradient.shape
        first = delta.shape[1] - plan.shape[0] * size
        for r in range(row, entries, rows):
            k = 0
            while k + 1 < plan.shape[0] and plan[k + 1, FIRST] <= r:
                k += 1
            wanted, place = r - plan[k, FIRST], first + k * size
            for j in range(column, size, columns):
                total = zero
                for i in range(x.shape[0]):
                    if category(decode(x[i, plan[k, COLUMN]]), plan[k, COUNT]) == wanted:
                        total += decode(delta[i, place + j])
                gradient[r, j] = total

    return kernel
