"""BP1 in stages, each sum in an order that depends on the shapes alone.

    reduce_weights            stats[WEIGHT] = sum of w                                          one block
    elementwise_loss          delta; losses and gradients, summed by blocks of rows
      or softmax.softmax_loss, then column_partials of delta
    sum_partials              db
    finish_loss               stats[LOSS] and the sums over the epoch                            one block

Deltas, and so every gradient up to the update, are multiplied by scaling[SCALE].
"""

from __future__ import annotations

from numba import cuda, float64

from gpubp.kernels.loss_passes import finish
from gpubp.kernels.loss_scale import SCALE
from gpubp.kernels.losses import WEIGHT
from gpubp.kernels.mathematics import inlined

from .geometry import LANES, ROWS, THREADS
from .reductions import block_sum, tile_sum
from .storage import loader, saver
from .vectors import each, fold, plus, reader, zeros


@inlined
def per_weight(stats):
    """1 / sum of the sample weights; 0 for a batch that weighs nothing."""
    total = stats[WEIGHT]
    return 1 / total if total > 0 else float64(0)


def reduce_weights(real):
    """stats[WEIGHT] = sum of w (batch,). One block of THREADS."""
    total = block_sum(float64)

    def kernel(w, stats):
        mine = float64(0)
        for i in range(cuda.threadIdx.x, w.shape[0], THREADS):
            mine += w[i]
        weight = total(mine)
        if cuda.threadIdx.x == 0:
            stats[WEIGHT] = weight

    return kernel


def finish_loss(real, mean_over):
    """Adds up losses (rows, columns), divides by the weight and `mean_over`, and ends BP1. One block of THREADS."""
    total, read = block_sum(float64), reader(1)

    def kernel(losses, stats, counters):
        mine = float64(0)
        for e in range(cuda.threadIdx.x, losses.size, THREADS):
            mine += read(losses, e)[0]
        loss = total(mine)
        if cuda.threadIdx.x == 0:
            finish(loss, stats[WEIGHT], per_weight(stats) / mean_over, stats, counters)

    return kernel


@inlined
def _first(pair):
    return pair[0]


@inlined
def _second(pair):
    return pair[1]


def elementwise_loss(real, storage, f, d_f, l, d_l, mean, width=1):
    """a = f(z + b); l(a, y) weighted by w; BP1: delta = SCALE dE/da * f'(z).

    z, y (batch, n), b (n,), w (batch,) of `real`; delta (batch, n) of `storage`, z itself where the two are one type;
    losses (blocks, tiles) and gradients (blocks, n) of `real` = sums over each block of rows, losses over each tile of
    columns too. `mean` divides by n. Blocks of LANES x ROWS.
    """
    load, save, save_real = loader(real, real, width), saver(real, storage, width), saver(real, real, width)
    over_rows, over_block = tile_sum(real, width), block_sum(real)
    zero, tile = zeros(real, width), LANES * width

    @inlined
    def lane(z, b, y, weight, factor):
        t = z + b
        a = f(t)
        return factor * d_l(a, y) * d_f(t), weight * l(a, y)

    def kernel(z, b, y, w, stats, scaling, delta, losses, gradients):
        batch, n = z.shape
        blocks = losses.shape[0]
        size = (batch + blocks - 1) // blocks
        scale = (real(per_weight(stats) / n) if mean else real(per_weight(stats))) * real(scaling[SCALE])
        for k in range(cuda.blockIdx.y, blocks, cuda.gridDim.y):
            for first in range(cuda.blockIdx.x * tile, n, cuda.gridDim.x * tile):
                j = first + cuda.threadIdx.x * width
                loss, gradient = zero, zero
                if j < n:
                    bias = load(b, j)
                    for i in range(k * size + cuda.threadIdx.y, min(batch, (k + 1) * size), ROWS):
                        place, weight = i * n + j, w[i]
                        both = each(lane, (load(z, place), bias, load(y, place)), (weight, weight * scale))
                        d = each(_first, (both,), ())
                        save(delta, place, d)
                        gradient = each(plus, (gradient, d), ())
                        loss = each(plus, (loss, each(_second, (both,), ())), ())
                gradient, value = over_rows(gradient), over_block(fold(plus, loss))
                if cuda.threadIdx.y == 0:
                    if j < n:
                        save_real(gradients, k * n + j, gradient)
                    if cuda.threadIdx.x == 0:
                        losses[k, first // tile] = value

    return kernel
