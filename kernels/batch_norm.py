"""BatchNorm: every feature brought to mean 0 and variance 1 over the rows of a batch, forward and backward.

    n = (x - m) r,   z = gain n + bias,   a = f(z);   m, v mean and biased variance of a column, r = 1 / sqrt(v + eps)

Backward, with d = dE/da f'(z): dE/dgain = column sums of d n, dE/dbias = column sums of d, and for B rows

    dE/dx = gain r (d - dE/dbias / B - n dE/dgain / B)

Means and squares are taken granule by granule and joined in the order of the granules, so the bits do not depend on
the threads.

Sources: Ioffe, Szegedy 2015, ICML; Chan, Golub, LeVeque 1979, Stanford STAN-CS-79-773.
"""

from numba import float64, int64

from .mathematics import inlined
from .norms import INVERSE, MEAN, inverse_of, normalized
from .reductions import sum_blocks
from .replay import STOPPED
from .rows import matrix, read_row, vector
from .team import barrier, granule, share, share_rows

VARIANCE, KEPT = 2, 3  # rows of the moments: those of norms.py, m and r, and v


@inlined
def _moments_of_rows(x, means, squares):
    """Mean and sum of squares about it, of each column of some rows."""
    means[:] = means.dtype.type(0)
    squares[:] = means.dtype.type(0)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            means[j] += x[i, j]
    for j in range(x.shape[1]):
        means[j] /= means.dtype.type(x.shape[0])
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            t = x[i, j] - means[j]
            squares[j] += t * t


@inlined
def joined(mean, squares, new_mean, new_squares, rows, new):
    """Mean and sum of squares about it of `rows` numbers and `new` more, from those of each [Chan et al. 1979]."""
    real = type(mean)
    part = real(new) / real(rows + new)
    t = new_mean - mean
    return mean + t * part, squares + new_squares + t * t * (real(rows) * part)


@inlined
def input_slope(d, n, gain, inverse, dgain, dbias, each):
    """dE/dx; each = 1 / B."""
    return gain * inverse * (d - each * dbias - n * (each * dgain))


@inlined
def followed(running, new, rate):
    """running + momentum (new - running)."""
    return running + rate * (new - running)


@inlined
def _join_granules(means, squares, batch, size, mean, variance, start, stop):
    """Mean and variance of the columns from those of the granules, in order."""
    for j in range(start, stop):
        mean[j], variance[j] = means[0, j], squares[0, j]
    rows = min(size, batch)
    for k in range(1, means.shape[0]):
        new = min(batch, (k + 1) * size) - k * size
        for j in range(start, stop):
            mean[j], variance[j] = joined(mean[j], variance[j], means[k, j], squares[k, j], rows, new)
        rows += new
    for j in range(start, stop):
        variance[j] /= mean.dtype.type(batch)


def batch_normalize(real, f):
    """a = f(gain n + bias) by the moments of the batch, of at least one row.

    Operands: x (batch, n), gain (n,), bias (n,), eps (1,), a (batch, n) written, moments (KEPT, n) written, partials
    (2 granules, n) scratch.
    """

    def kernel(address, me, team):
        row = read_row(address)
        x, gain, bias = matrix(row, 0, real), vector(row, 1, real), vector(row, 2, real)
        eps, a, moments = vector(row, 3, real)[0], matrix(row, 4, real), matrix(row, 5, real)
        partials = matrix(row, 6, real)
        batch, n = x.shape
        blocks, size = partials.shape[0] // 2, granule(batch)
        mean, inverse, variance = moments[MEAN], moments[INVERSE], moments[VARIANCE]
        start, stop = share_rows(batch, me, team)
        for first in range(start, stop, size):
            k = first // size
            _moments_of_rows(x[first : min(stop, first + size)], partials[k], partials[blocks + k])
        barrier(me, team)
        left, right = share(n, me, team)
        _join_granules(partials[:blocks], partials[blocks:], batch, size, mean, variance, left, right)
        for j in range(left, right):
            inverse[j] = inverse_of(variance[j], eps)
        barrier(me, team)
        for i in range(start, stop):
            xi, ai = x[i], a[i]
            for j in range(xi.shape[0]):
                ai[j] = f(gain[j] * normalized(xi[j], mean[j], inverse[j]) + bias[j])

    return kernel


def batch_normalize_delta(real, d_f):
    """dE/dx from dE/da, in place over it, and dE/dgain, dE/dbias: the way back through `batch_normalize`.

    Operands: upstream (batch, n) in place, x (batch, n), moments (KEPT, n), gain (n,), bias (n,); dgain (n,) and dbias
    (n,) written; partials (2 granules, n) scratch.
    """

    def kernel(address, me, team):
        row = read_row(address)
        upstream, x, moments = matrix(row, 0, real), matrix(row, 1, real), matrix(row, 2, real)
        gain, bias = vector(row, 3, real), vector(row, 4, real)
        dgain, dbias, partials = vector(row, 5, real), vector(row, 6, real), matrix(row, 7, real)
        batch = x.shape[0]
        blocks, size = partials.shape[0] // 2, granule(batch)
        mean, inverse = moments[MEAN], moments[INVERSE]
        start, stop = share_rows(batch, me, team)
        for first in range(start, stop, size):
            to_gain, to_bias = partials[first // size], partials[blocks + first // size]
            to_gain[:] = real(0)
            to_bias[:] = real(0)
            for i in range(first, min(stop, first + size)):
                xi, g = x[i], upstream[i]
                for j in range(xi.shape[0]):
                    t = normalized(xi[j], mean[j], inverse[j])
                    d = g[j] * d_f(gain[j] * t + bias[j])
                    to_gain[j] += d * t
                    to_bias[j] += d
                    g[j] = d
        barrier(me, team)
        sum_blocks(partials[:blocks], dgain, me, team)
        sum_blocks(partials[blocks:], dbias, me, team)
        barrier(me, team)
        each = real(1) / real(batch)
        for i in range(start, stop):
            xi, g = x[i], upstream[i]
            for j in range(xi.shape[0]):
                t = normalized(xi[j], mean[j], inverse[j])
                g[j] = input_slope(g[j], t, gain[j], inverse[j], dgain[j], dbias[j], each)

    return kernel


def normalize_by_running(real, f):
    """a = f(gain (x - m) / sqrt(v + eps) + bias) by the running mean and variance, as predictions take them.

    Operands: x (batch, n), gain, bias (n,), eps (1,), a (batch, n) written, m and v (n,), inverses (n,) scratch.
    """

    def kernel(address, me, team):
        row = read_row(address)
        x, gain, bias = matrix(row, 0, real), vector(row, 1, real), vector(row, 2, real)
        eps, a = vector(row, 3, real)[0], matrix(row, 4, real)
        mean, variance, inverse = vector(row, 5, real), vector(row, 6, real), vector(row, 7, real)
        left, right = share(x.shape[1], me, team)
        for j in range(left, right):
            inverse[j] = inverse_of(variance[j], eps)
        barrier(me, team)
        start, stop = share_rows(x.shape[0], me, team)
        for i in range(start, stop):
            xi, ai = x[i], a[i]
            for j in range(xi.shape[0]):
                ai[j] = f(gain[j] * normalized(xi[j], mean[j], inverse[j]) + bias[j])

    return kernel


def follow(real):
    """The running mean and variance move to those of a batch, the variance unbiased; not where the loss stopped it.

    Operands: m and v (n,) in place, moments (KEPT, n), momentum (1,) float64, counters; the integer batch.
    """

    def kernel(address, me, team):
        row = read_row(address)
        mean, variance, moments = vector(row, 0, real), vector(row, 1, real), matrix(row, 2, real)
        momentum, counters, batch = vector(row, 3, float64), vector(row, 4, int64), row[16]
        if counters[STOPPED] == 0:
            rate, unbiased = real(momentum[0]), real(batch / (batch - 1))
            start, stop = share(mean.shape[0], me, team)
            for j in range(start, stop):
                mean[j] = followed(mean[j], moments[MEAN, j], rate)
                variance[j] = followed(variance[j], unbiased * moments[VARIANCE, j], rate)

    return kernel
