"""LayerNorm and RMSNorm: every row brought to one size, then gain, bias and activation; and all of it backward.

    n = (x - m) r,   z = gain n + bias,   a = f(z)
    LayerNorm: m the mean of the row, r = 1 / sqrt(variance + eps)       [Ba, Kiros, Hinton 2016, arXiv:1607.06450]
    RMSNorm:   m = 0,                 r = 1 / sqrt(mean square + eps)    [Zhang, Sennrich 2019, NeurIPS]

The variance is the biased one. Backward, with d = dE/da f'(z) and g = gain d, both means over the row:

    dE/dgain = column sums of d n,   dE/dbias = column sums of d,   dE/dx = r (g - mean(g) - n mean(g n))

without mean(g) in RMSNorm. z is made again from x: that is two operations, fewer than it would take to read it.
"""

import math

from numba.extending import register_jitable

from .mathematics import inlined
from .reductions import sum_blocks
from .rows import matrix, read_row, vector
from .team import barrier, granule, share_rows

MEAN, INVERSE = 0, 1  # columns of what is kept of a row: m and r
KEPT = 2
# The sums of a row may be taken in any order, so that they vectorise; the same one at any number of threads.
_sum = register_jitable(forceinline=True, fastmath={"contract", "reassoc"})


@inlined
def inverse_of(squares, eps):
    """r: 1 / sqrt(mean of the squares + eps)."""
    return type(squares)(1) / type(squares)(math.sqrt(squares + eps))


@inlined
def normalized(x, mean, inverse):
    """n."""
    return (x - mean) * inverse


@inlined
def d_normalized(g, n, inverse, mean_g, mean_gn):
    """dE/dx."""
    return inverse * (g - mean_g - n * mean_gn)


@_sum
def _sum_of(x, zero):
    total = zero
    for j in range(x.shape[0]):
        total += x[j]
    return total


@_sum
def _squares_about(x, mean, zero):
    total = zero
    for j in range(x.shape[0]):
        t = x[j] - mean
        total += t * t
    return total


@_sum
def _sum_of_products(g, x, mean, inverse, zero):
    """Of g n."""
    total = zero
    for j in range(x.shape[0]):
        total += g[j] * normalized(x[j], mean, inverse)
    return total


def normalize(real, f, center):
    """a = f(gain n + bias); with `center` LayerNorm, without RMSNorm.

    Operands: x (batch, n), gain (n,), bias (n,), eps (1,), a (batch, n) written, moments (batch, KEPT) written.
    """

    def kernel(address, me, team):
        row = read_row(address)
        x, gain, bias = matrix(row, 0, real), vector(row, 1, real), vector(row, 2, real)
        eps, a, moments = vector(row, 3, real)[0], matrix(row, 4, real), matrix(row, 5, real)
        start, stop = share_rows(x.shape[0], me, team)
        n = real(x.shape[1])
        for i in range(start, stop):
            xi, ai = x[i], a[i]
            mean = _sum_of(xi, real(0)) / n if center else real(0)
            inverse = inverse_of(_squares_about(xi, mean, real(0)) / n, eps)
            moments[i, MEAN], moments[i, INVERSE] = mean, inverse
            for j in range(xi.shape[0]):
                ai[j] = f(gain[j] * normalized(xi[j], mean, inverse) + bias[j])

    return kernel


def normalize_delta(real, d_f, center):
    """dE/dx from dE/da, in place over it, and dE/dgain, dE/dbias: the way back through `normalize`.

    Operands: upstream (batch, n) in place, x (batch, n), moments (batch, KEPT), gain (n,), bias (n,); dgain (n,) and
    dbias (n,) written, without `center` dgain alone; partials (2 granules, n) scratch. Columns are summed granule by
    granule, so the bits do not depend on the threads.
    """

    def kernel(address, me, team):
        row = read_row(address)
        upstream, x, moments = matrix(row, 0, real), matrix(row, 1, real), matrix(row, 2, real)
        gain, bias = vector(row, 3, real), vector(row, 4, real)
        dgain, dbias, partials = vector(row, 5, real), vector(row, 6, real), matrix(row, 7, real)
        batch = x.shape[0]
        n, blocks, size = real(x.shape[1]), partials.shape[0] // 2, granule(batch)
        start, stop = share_rows(batch, me, team)
        if batch == 0 and me == 0:
            partials[:, :] = real(0)
        for first in range(start, stop, size):
            to_gain, to_bias = partials[first // size], partials[blocks + first // size]
            to_gain[:] = real(0)
            to_bias[:] = real(0)
            for i in range(first, min(stop, first + size)):
                xi, g = x[i], upstream[i]
                mean, inverse = moments[i, MEAN], moments[i, INVERSE]
                for j in range(xi.shape[0]):
                    t = normalized(xi[j], mean, inverse)
                    d = g[j] * d_f(gain[j] * t + bias[j])
                    to_gain[j] += d * t
                    to_bias[j] += d
                    g[j] = gain[j] * d
                mean_g = _sum_of(g, real(0)) / n if center else real(0)
                mean_gn = _sum_of_products(g, xi, mean, inverse, real(0)) / n
                for j in range(xi.shape[0]):
                    g[j] = d_normalized(g[j], normalized(xi[j], mean, inverse), inverse, mean_g, mean_gn)
        barrier(me, team)
        sum_blocks(partials[:blocks], dgain, me, team)
        if center:
            sum_blocks(partials[blocks:], dbias, me, team)

    return kernel
