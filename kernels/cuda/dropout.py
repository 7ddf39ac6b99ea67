"""Dropout: of a matrix, and in one pass with bias and activation; the masks are those of `gpubp.kernels.dropout`."""

from __future__ import annotations

import numpy as np
from numba import cuda

from gpubp.kernels.dropout import OF_COUNTER, fourth_word, key_of, scale_of, third_word
from gpubp.kernels.mathematics import inlined
from gpubp.kernels.philox import low, philox
from gpubp.kernels.replay import STEP

from .storage import loader, saver
from .vectors import each

_SIXTEEN = np.uint64(16)


def _masks(real, width):
    """masks(i, j, step, layer, seed, threshold, scale): m / (1 - rate) of row i and the columns from j on.

    A vector begins at a multiple of its width, so that eight columns at most need one counter, which lanes share.
    """
    numbers = tuple(range(width))

    @inlined
    def lane(k, i, j, step, layer, seed, threshold, scale):
        # Where a vector has whole counters or lies within one, the compiler sees that lanes draw the same words.
        place = k if width >= OF_COUNTER else j % OF_COUNTER + k
        k0, k1 = key_of(seed)
        first = np.uint64(j // OF_COUNTER)
        w0, w1, w2, w3 = philox(first, np.uint64(i), third_word(step), fourth_word(step, layer), k0, k1)
        word = (w0 if place < 2 else w1) if place < 4 else (w2 if place < 6 else w3)
        bits = low(word) >> _SIXTEEN if place % 2 == 1 else low(word) & np.uint64(0xFFFF)
        return scale if bits >= np.uint64(threshold) else real(0)

    @inlined
    def masks(i, j, step, layer, seed, threshold, scale):
        return each(lane, (numbers,), (i, j, step, layer, seed, threshold, scale))

    return masks


def dropout(real, storage, width=1):
    """out = x m / (1 - rate): x (batch, n), out (batch, n) of `storage` written, which may be x; counters int64.

    `top` is the row of the batch that x begins with.
    """
    load, save, masks = loader(real, storage, width), saver(real, storage, width), _masks(real, width)

    @inlined
    def times(x, m):
        return x * m

    def kernel(x, out, counters, seed, layer, threshold, top):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = x.shape
        scale, step = real(scale_of(threshold)), counters[STEP]
        for j in range(column * width, n, columns * width):
            for i in range(row, batch, rows):
                place = i * n + j
                m = masks(top + i, j, step, layer, seed, threshold, scale)
                save(out, place, each(times, (load(x, place), m), ()))

    return kernel


def bias_activation_dropout(real, storage, f, d_f, width=1):
    """a = f(z + b) m / (1 - rate) and, over z, f'(z + b) m / (1 - rate).

    z (batch, n) in place, b (n,), a (batch, n) written, all of `storage`; counters int64, of which the mask takes STEP,
    and `top`, the row of the batch that z begins with.
    """
    load, save, masks = loader(real, storage, width), saver(real, storage, width), _masks(real, width)

    @inlined
    def value(z, b, m):
        return f(z + b) * m

    @inlined
    def derivative(z, b, m):
        return d_f(z + b) * m

    def kernel(z, b, a, counters, seed, layer, threshold, top):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = z.shape
        scale, step = real(scale_of(threshold)), counters[STEP]
        for j in range(column * width, n, columns * width):
            bias = load(b, j)
            for i in range(row, batch, rows):
                place = i * n + j
                operands = (load(z, place), bias, masks(top + i, j, step, layer, seed, threshold, scale))
                save(a, place, each(value, operands, ()))
                save(z, place, each(derivative, operands, ()))

    return kernel
