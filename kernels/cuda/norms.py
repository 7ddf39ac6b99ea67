"""LayerNorm and RMSNorm: a warp has a row, its mean and its squares; column sums go in two stages."""

from __future__ import annotations

from numba import cuda

from gpubp.kernels.mathematics import inlined
from gpubp.kernels.norms import INVERSE, MEAN, d_normalized, inverse_of, normalized

from .geometry import LANES, ROWS
from .reductions import WARP, over_row, tile_sum
from .storage import loader, saver
from .vectors import each, fold, plus, zeros


def normalize(real, storage, f, center, width=1):
    """a = f(gain n + bias); with `center` LayerNorm, without RMSNorm: x (batch, n), a (batch, n) written, of `storage`.

    gain (n,), bias (n,), eps (1,) and moments (batch, KEPT), written, of `real`. Blocks of whole warps.
    """
    load, save, load_real = (
        loader(real, storage, width),
        saver(real, storage, width),
        loader(real, real, width),
    )
    row_sum, zero, step = over_row(plus, WARP), zeros(real, width), WARP * width

    @inlined
    def square(x, mean):
        return (x - mean) * (x - mean)

    @inlined
    def lane_of(x, gain, bias, mean, inverse):
        return f(gain * normalized(x, mean, inverse) + bias)

    def kernel(x, gain, bias, eps, a, moments):
        batch, n = x.shape
        thread, threads = cuda.grid(1), cuda.gridsize(1)
        lane = thread % WARP
        for i in range(thread // WARP, batch, threads // WARP):
            mean, sums = real(0), zero
            if center:
                for j in range(lane * width, n, step):
                    sums = each(plus, (sums, load(x, i * n + j)), ())
                mean = row_sum(fold(plus, sums)) / real(n)
            sums = zero
            for j in range(lane * width, n, step):
                sums = each(plus, (sums, each(square, (load(x, i * n + j),), (mean,))), ())
            inverse = inverse_of(row_sum(fold(plus, sums)) / real(n), eps[0])
            if lane == 0:
                moments[i, MEAN], moments[i, INVERSE] = mean, inverse
            for j in range(lane * width, n, step):
                place = i * n + j
                operands = (load(x, place), load_real(gain, j), load_real(bias, j))
                save(a, place, each(lane_of, operands, (mean, inverse)))

    return kernel


def normalize_gradients(real, storage, d_f, width=1):
    """partials (2 blocks, n) of `real`: column sums of d n over each block of rows, below them those of d.

    d = dE/da f'(gain n + bias): upstream = dE/da and x (batch, n) of `storage`, moments (batch, KEPT), gain (n,) and
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
                    factor, shift = load_real(gain, j), load_real(bias, j)
                    for i in range(k * size + cuda.threadIdx.y, min(batch, (k + 1) * size), ROWS):
                        place = i * n + j
                        t = each(normalized, (load(x, place),), (moments[i, MEAN], moments[i, INVERSE]))
                        d = each(of_bias, (load(upstream, place), t, factor, shift), ())
                        to_gain = each(plus, (to_gain, each(of_gain, (d, t), ())), ())
                        to_bias = each(plus, (to_bias, d), ())
                to_gain, to_bias = over_rows(to_gain), over_rows(to_bias)
                if j < n and cuda.threadIdx.y == 0:
                    save(partials, k * n + j, to_gain)
                    save(partials, (blocks + k) * n + j, to_bias)

    return kernel


def normalize_delta(real, storage, d_f, center, width=1):
    """dE/dx from dE/da, in place over it: upstream and x (batch, n) of `storage`.

    moments (batch, KEPT), gain (n,) and bias (n,) of `real`. Blocks of whole warps.
    """
    load, save, load_real = (
        loader(real, storage, width),
        saver(real, storage, width),
        loader(real, real, width),
    )
    row_sum, zero, step = over_row(plus, WARP), zeros(real, width), WARP * width

    @inlined
    def pull(upstream, n, gain, bias):
        return gain * (upstream * d_f(gain * n + bias))

    @inlined
    def times(g, n):
        return g * n

    def kernel(upstream, x, moments, gain, bias):
        batch, n = x.shape
        thread, threads = cuda.grid(1), cuda.gridsize(1)
        lane = thread % WARP
        for i in range(thread // WARP, batch, threads // WARP):
            mean, inverse = moments[i, MEAN], moments[i, INVERSE]
            sum_g, sum_gn = zero, zero
            for j in range(lane * width, n, step):
                place = i * n + j
                t = each(normalized, (load(x, place),), (mean, inverse))
                g = each(pull, (load(upstream, place), t, load_real(gain, j), load_real(bias, j)), ())
                sum_g = each(plus, (sum_g, g), ())
                sum_gn = each(plus, (sum_gn, each(times, (g, t), ())), ())
            mean_g = row_sum(fold(plus, sum_g)) / real(n) if center else real(0)
            mean_gn = row_sum(fold(plus, sum_gn)) / real(n)
            for j in range(lane * width, n, step):
                place = i * n + j
                t = each(normalized, (load(x, place),), (mean, inverse))
                g = each(pull, (load(upstream, place), t, load_real(gain, j), load_real(bias, j)), ())
                save(upstream, place, each(d_normalized, (g, t), (inverse, mean_g, mean_gn)))

    return kernel
