"""BatchNorm on a GPU: moments of blocks of rows, joined column by column; the way back by column sums in two stages."""

from __future__ import annotations

from numba import cuda

from gpubp.kernels.batch_norm import VARIANCE, followed, input_slope, joined
from gpubp.kernels.mathematics import inlined
from gpubp.kernels.norms import INVERSE, MEAN, inverse_of, normalized
from gpubp.kernels.replay import STOPPED

from .geometry import LANES, ROWS
from .reductions import tile_sum
from .storage import loader, saver
from .vectors import each, plus, zeros


def block_moments(real, storage, width=1):
    """partials (2 blocks, n) of `real`: mean of each column of x over each block of rows, below them sums of squares.

    x (batch, n) of `storage`; the squares are those of what is left of x without its mean. Blocks of LANES x ROWS.
    """
    load, save = loader(real, storage, width), saver(real, real, width)
    over_rows, zero, tile = tile_sum(real, width), zeros(real, width), LANES * width

    @inlined
    def quotient(total, rows):
        return total / rows

    @inlined
    def square(x, mean):
        return (x - mean) * (x - mean)

    def kernel(x, partials):
        batch, n = x.shape
        blocks = partials.shape[0] // 2
        size = (batch + blocks - 1) // blocks
        for k in range(cuda.blockIdx.y, blocks, cuda.gridDim.y):
            start, stop = k * size, min(batch, (k + 1) * size)
            rows = real(max(1, stop - start))
            for first in range(cuda.blockIdx.x * tile, n, cuda.gridDim.x * tile):
                j = first + cuda.threadIdx.x * width
                total, squares = zero, zero
                if j < n:
                    for i in range(start + cuda.threadIdx.y, stop, ROWS):
                        total = each(plus, (total, load(x, i * n + j)), ())
                mean = each(quotient, (over_rows(total),), (rows,))
                if j < n:
                    for i in range(start + cuda.threadIdx.y, stop, ROWS):
                        squares = each(plus, (squares, each(square, (load(x, i * n + j), mean), ())), ())
                squares = over_rows(squares)
                if j < n and cuda.threadIdx.y == 0:
                    save(partials, k * n + j, mean)
                    save(partials, (blocks + k) * n + j, squares)

    return kernel


def join_moments(real):
    """moments (KEPT, n), written, from the partials (2 blocks, n) of `block_moments`, in the order of the blocks.

    eps (1,); all of `real`; the integer batch. A thread has a column.
    """

    def kernel(partials, eps, moments, batch):
        blocks, n = partials.shape[0] // 2, partials.shape[1]
        size = (batch + blocks - 1) // blocks
        for j in range(cuda.grid(1), n, cuda.gridsize(1)):
            mean, squares = partials[0, j], partials[blocks, j]
            for k in range(1, blocks):
                new = min(batch, (k + 1) * size) - k * size
                if new > 0:
                    mean, squares = joined(
                        mean, squares, partials[k, j], partials[blocks + k, j], k * size, new
                    )
            variance = squares / real(batch)
            moments[MEAN, j], moments[VARIANCE, j] = mean, variance
            moments[INVERSE, j] = inverse_of(variance, eps[0])

    return kernel


def _of_column(f):
    @inlined
    def lane(x, mean, inverse, gain, bias):
        return f(gain * normalized(x, mean, inverse) + bias)

    return lane


def batch_normalize(real, storage, f, width=1):
    """a = f(gain n + bias): x (batch, n) and a, written, of `storage`; moments (KEPT, n), gain, bias (n,) of `real`."""
    load, save, load_real = (
        loader(real, storage, width),
        saver(real, storage, width),
        loader(real, real, width),
    )

    lane = _of_column(f)

    def kernel(x, gain, bias, moments, a):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = x.shape
        for j in range(column * width, n, columns * width):
            mean, inverse = load_real(moments, MEAN * n + j), load_real(moments, INVERSE * n + j)
            factor, shift = load_real(gain, j), load_real(bias, j)
            for i in range(row, batch, rows):
                place = i * n + j
                save(a, place, each(lane, (load(x, place), mean, inverse, factor, shift), ()))

    return kernel


def normalize_by_running(real, storage, f, width=1):
    """a = f(gain (x - m) / sqrt(v + eps) + bias): x (batch, n), a (batch, n) written, of `storage`.

    The running mean and variance m, v (n,), gain, bias (n,) and eps (1,) of `real`.
    """
    load, save, load_real = (
        loader(real, storage, width),
        saver(real, storage, width),
        loader(real, real, width),
    )

    lane = _of_column(f)

    def kernel(x, gain, bias, eps, a, mean, variance):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = x.shape
        for j in range(column * width, n, columns * width):
            center, inverse = load_real(mean, j), each(inverse_of, (load_real(variance, j),), (eps[0],))
            factor, shift = load_real(gain, j), load_real(bias, j)
            for i in range(row, batch, rows):
                place = i * n + j
                save(a, place, each(lane, (load(x, place), center, inverse, factor, shift), ()))

    return kernel


def batch_normalize_gradients(real, storage, d_f, width=1):
    """partials (2 blocks, n) of `real`: column sums of d n over each block of rows, below them those of d.

    d = dE/da f'(gain n + bias): upstream = dE/da and x (batch, n) of `storage`, moments (KEPT, n), gain (n,) and
    bias (n,) of `real`. `sum_partials` makes dE/dgain and dE/dbias of them. Blocks of LANES x ROWS threads.
    """
    load, load_real, save = loader(real, storage, width), loader(real, real, width), saver(real, real, width)
    over_rows, zero, tile = tile_sum(real, width), zeros(real, width), LANES * width

    @inlined
    def of_bias(upstream, n, gain, bias):
        return upstream * d_f(gain * n + bias)

    @inlined
    def of_gain(d, n):
        return d * n

    def kernel(upstream, x, moments, gain, bias, partials):
        batch, n = x.shape
        blocks = partials.shape[0] // 2
        size = (batch + blocks - 1) // blocks
        for k in range(cuda.blockIdx.y, blocks, cuda.gridDim.y):
            for first in range(cuda.blockIdx.x * tile, n, cuda.gridDim.x * tile):
                j = first + cuda.threadIdx.x * width
                to_gain, to_bias = zero, zero
                if j < n:
                    mean, inverse = load_real(moments, MEAN * n + j), load_real(moments, INVERSE * n + j)
                    factor, shift = load_real(gain, j), load_real(bias, j)
                    for i in range(k * size + cuda.threadIdx.y, min(batch, (k + 1) * size), ROWS):
                        place = i * n + j
                        t = each(normalized, (load(x, place), mean, inverse), ())
                        d = each(of_bias, (load(upstream, place), t, factor, shift), ())
                        to_gain = each(plus, (to_gain, each(of_gain, (d, t), ())), ())
                        to_bias = each(plus, (to_bias, d), ())
                to_gain, to_bias = over_rows(to_gain), over_rows(to_bias)
                if j < n and cuda.threadIdx.y == 0:
                    save(partials, k * n + j, to_gain)
                    save(partials, (blocks + k) * n + j, to_bias)

    return kernel


def batch_normalize_delta(real, storage, d_f, width=1):
    """dE/dx from dE/da, in place over it: upstream and x (batch, n) of `storage`.

    moments (KEPT, n), gain, bias, dE/dgain and dE/dbias (n,) of `real`.
    """
    load, save, load_real = (
        loader(real, storage, width),
        saver(real, storage, width),
        loader(real, real, width),
    )

    @inlined
    def lane(upstream, x, mean, inverse, gain, bias, dgain, dbias, share):
        n = normalized(x, mean, inverse)
        return input_slope(upstream * d_f(gain * n + bias), n, gain, inverse, dgain, dbias, share)

    def kernel(upstream, x, moments, gain, bias, dgain, dbias):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = x.shape
        share = real(1) / real(max(1, batch))
        for j in range(column * width, n, columns * width):
            mean, inverse = load_real(moments, MEAN * n + j), load_real(moments, INVERSE * n + j)
            factor, shift = load_real(gain, j), load_real(bias, j)
            to_gain, to_bias = load_real(dgain, j), load_real(dbias, j)
            for i in range(row, batch, rows):
                place = i * n + j
                vectors = (
                    load(upstream, place),
                    load(x, place),
                    mean,
                    inverse,
                    factor,
                    shift,
                    to_gain,
                    to_bias,
                )
                save(upstream, place, each(lane, vectors, (share,)))

    return kernel


def follow(real):
    """The running mean and variance move to those of a batch, the variance unbiased; nothing when stopped.

    m and v (n,) in place, moments (KEPT, n) of `real`; momentum (1,) float64, counters int64; the integer batch.
    """

    def kernel(mean, variance, moments, momentum, counters, batch):
        if counters[STOPPED] == 0:
            rate, unbiased = real(momentum[0]), real(batch) / real(batch - 1)
            for j in range(cuda.grid(1), mean.shape[0], cuda.gridsize(1)):
                mean[j] = followed(mean[j], moments[MEAN, j], rate)
                variance[j] = followed(variance[j], unbiased * moments[VARIANCE, j], rate)

    return kernel
