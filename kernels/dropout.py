"""Dropout: a' = a m / (1 - rate), m = 0 with probability `rate` and else 1 [Srivastava et al. 2014, JMLR 15].

The mask is a function of seed, step, layer and place alone, whoever computes it. m of row i of the batch and column j
follows from 16 bits, number j mod 8 of those in Philox's words, lower halves first, for

    counter (j // 8, i, step mod 2^32, layer + 2^16 (step // 2^32)),  key: the seed

so that `rate` is a multiple of 2^-16. It is drawn once a step: what is kept for the way back is, as for gelu, the
derivative, f'(z) m / (1 - rate).

A dropped number is multiplied by 0 all the same: NaN and infinity stay NaN, to be noticed.
"""

import numpy as np
from llvmlite import ir
from numba import carray, int64, types, uint16, uint32
from numba.core import cgutils
from numba.extending import intrinsic

from .activations import Activation, d_identity, identity
from .dense import given
from .mathematics import inlined
from .philox import low, philox
from .replay import STEP
from .rows import matrix, pointer, read_row, vector
from .team import share_rows

OF_COUNTER = 8  # columns of one counter
_TILE = 1024  # columns whose bits are drawn at a time
_ALIKE = 8  # counters that are drawn side by side, whether all are needed or not: whole vectors of them
_RANGE = 65536  # of the bits of one column

# What `delta` takes for the way back through dropout, whose derivative is given.
DROPPED = Activation("dropout", identity, d_identity, given)


def threshold_of(rate):
    """The least bits that keep a number: a rate of 0.2 drops 13107 of 65536."""
    return min(round(rate * _RANGE), _RANGE - 1)


@inlined
def scale_of(threshold):
    """1 / (1 - rate), for the rate that the threshold makes of it: the mean of a' is a."""
    return _RANGE / (_RANGE - threshold)


@inlined
def third_word(step):
    return np.uint64(step & 0xFFFFFFFF)


@inlined
def fourth_word(step, layer):
    return np.uint64((layer + ((step >> 32) << 16)) & 0xFFFFFFFF)


@inlined
def key_of(seed):
    return np.uint64(seed & 0xFFFFFFFF), np.uint64((seed >> 32) & 0xFFFFFFFF)


@intrinsic
def _words(typingctx):
    """The address of 2 _TILE bytes on the stack of the function, the same ones in each turn of its loops."""

    def codegen(context, builder, signature, arguments):
        place = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(32), _TILE // 2))
        return builder.ptrtoint(place, ir.IntType(64))

    return types.int64(), codegen


@inlined
def _draw(words, columns, first, i, step, layer, seed):
    """The bits of row i and the columns from first, a multiple of _TILE, on: two columns a word."""
    k0, k1 = key_of(seed)
    c1, c2, c3 = np.uint64(i), third_word(step), fourth_word(step, layer)
    together = OF_COUNTER * _ALIKE
    groups = (columns + together - 1) // together * _ALIKE
    for g in range(groups):
        w0, w1, w2, w3 = philox(np.uint64(first // OF_COUNTER + g), c1, c2, c3, k0, k1)
        words[4 * g] = np.uint32(low(w0))
        words[4 * g + 1] = np.uint32(low(w1))
        words[4 * g + 2] = np.uint32(low(w2))
        words[4 * g + 3] = np.uint32(low(w3))


def dropout(real):
    """out = x m / (1 - rate): x (batch, n), out (batch, n) written, which may be x.

    Operands: x, out, counters, then the integers seed, layer, threshold, and the row of the batch that x begins with.
    """

    def kernel(address, me, team):
        row = read_row(address)
        x, out, counters = matrix(row, 0, real), matrix(row, 1, real), vector(row, 2, int64)
        seed, layer, threshold, top = row[10], row[11], np.uint16(row[12]), row[13]
        scale, step = real(scale_of(row[12])), counters[STEP]
        place = _words()
        words, bits = carray(pointer(place, uint32), (_TILE // 2,)), carray(pointer(place, uint16), (_TILE,))
        start, stop = share_rows(x.shape[0], me, team)
        n = x.shape[1]
        for i in range(start, stop):
            for first in range(0, n, _TILE):
                last = min(n, first + _TILE)
                _draw(words, last - first, first, top + i, step, layer, seed)
                xi, to = x[i, first:last], out[i, first:last]
                for j in range(xi.shape[0]):
                    to[j] = xi[j] * (scale if bits[j] >= threshold else real(0))

    return kernel


def bias_activation_dropout(real, f, d_f):
    """a = f(z + b) m / (1 - rate) and, over z, its derivative f'(z + b) m / (1 - rate).

    Operands: z (batch, n) in place, b (n,), a (batch, n) written, counters; the integers seed, layer, threshold,
    and the row of the batch that z begins with.
    """

    def kernel(address, me, team):
        row = read_row(address)
        z, b, a = matrix(row, 0, real), vector(row, 1, real), matrix(row, 2, real)
        counters = vector(row, 3, int64)
        seed, layer, threshold, top = row[13], row[14], np.uint16(row[15]), row[16]
        scale, step = real(scale_of(row[15])), counters[STEP]
        place = _words()
        words, bits = carray(pointer(place, uint32), (_TILE // 2,)), carray(pointer(place, uint16), (_TILE,))
        start, stop = share_rows(z.shape[0], me, team)
        n = z.shape[1]
        for i in range(start, stop):
            for first in range(0, n, _TILE):
                last = min(n, first + _TILE)
                _draw(words, last - first, first, top + i, step, layer, seed)
                zi, bi, ai = z[i, first:last], b[first:last], a[i, first:last]
                for j in range(zi.shape[0]):
                    t = zi[j] + bi[j]
                    m = scale if bits[j] >= threshold else real(0)
                    zi[j] = d_f(t) * m
                    ai[j] = f(t) * m

    return kernel
