"""The CUDA twins of the losses: BP1 in stages, each sum in an order that depends on the shapes alone.

    reduce_weights        stats[WEIGHT] = sum of w                                        one block of THREADS
    elementwise_loss      z becomes delta; losses and gradients, summed by blocks of rows
      or softmax_cross_entropy, then column_partials for the gradients
    sum_partials          db
    finish_loss           stats[LOSS] and the sums over the epoch                          one block of THREADS

Import it only where CUDA is wanted, as `kernels.cuda`.
"""

from __future__ import annotations

import math

from numba import cuda, float64
from numba.extending import register_jitable

from .loss_passes import finish
from .losses import WEIGHT
from .mathematics import exp

THREADS = 256  # of the one block of a reduction; a power of two


@register_jitable
def block_sum(mine):
    """The sum of one float64 per thread over the one block of `THREADS`, in every thread. Once a kernel."""
    shared = cuda.shared.array(THREADS, float64)
    t = cuda.threadIdx.x
    shared[t] = mine
    cuda.syncthreads()
    step = THREADS // 2
    while step > 0:
        if t < step:
            shared[t] += shared[t + step]
        cuda.syncthreads()
        step //= 2
    return shared[0]


@register_jitable
def _scale(stats):
    """1 / sum of the sample weights; 0 for a batch that weighs nothing."""
    total = stats[WEIGHT]
    return 1 / total if total > 0 else float64(0)


def reduce_weights(real):
    """stats[WEIGHT] = sum of w (batch,). One block of THREADS."""

    def kernel(w, stats):
        mine = float64(0)
        for i in range(cuda.threadIdx.x, w.shape[0], THREADS):
            mine += w[i]
        total = block_sum(mine)
        if cuda.threadIdx.x == 0:
            stats[WEIGHT] = total

    return kernel


def finish_loss(real, mean_over):
    """Adds up losses (rows, columns), divides by the weight and `mean_over`, and ends BP1. One block of THREADS."""

    def kernel(losses, stats, counters):
        rows, columns = losses.shape
        mine = float64(0)
        for e in range(cuda.threadIdx.x, rows * columns, THREADS):
            mine += losses[e // columns, e % columns]
        total = block_sum(mine)
        if cuda.threadIdx.x == 0:
            finish(total, _scale(stats) / mean_over, stats, counters)

    return kernel


def elementwise_loss(real, f, d_f, l, d_l, mean):
    """a = f(z + b); l(a, y) weighted by w; BP1: delta = dE/da * f'(z), over z.

    z, y (batch, n); b (n,); w (batch,); losses and gradients (blocks, n) = sums over each block of rows. `mean`
    divides by n.
    """

    def kernel(z, b, y, w, stats, losses, gradients):
        column, block = cuda.grid(2)
        columns, blocks = cuda.gridsize(2)
        batch, n = z.shape
        scale = real(_scale(stats) / n) if mean else real(_scale(stats))
        size = (batch + losses.shape[0] - 1) // losses.shape[0]
        for k in range(block, losses.shape[0], blocks):
            for j in range(column, n, columns):
                loss, gradient = real(0), real(0)
                for i in range(k * size, min(batch, (k + 1) * size)):
                    t = z[i, j] + b[j]
                    a = f(t)
                    d = w[i] * scale * d_l(a, y[i, j]) * d_f(t)
                    loss += w[i] * l(a, y[i, j])
                    z[i, j] = d
                    gradient += d
                losses[k, j] = loss
                gradients[k, j] = gradient

    return kernel


def softmax_cross_entropy(real, f, d_f, integer_targets):
    """a = f(z + b); l = sum_j y_j (ln sum_k exp(a_k) - a_j); delta = w/sum w (p sum_j y_j - y) f'(z), over z.

    z (batch, n), b (n,), w (batch,), losses (batch, 1) written; y is (batch,) class numbers in int64 or (batch, n)
    target probabilities. The plain version: one thread walks each row, so neighbouring threads read memory that lies
    a row apart; a warp or a block per row would be faster.
    """

    def kernel(z, b, y, w, stats, losses):
        n = z.shape[1]
        scale = real(_scale(stats))
        for i in range(cuda.grid(1), z.shape[0], cuda.gridsize(1)):
            for j in range(n):
                z[i, j] += b[j]
            top = f(z[i, 0])
            for j in range(1, n):
                a = f(z[i, j])
                top = a if a > top or a != a else top
            total = real(0)
            for j in range(n):
                total += exp(f(z[i, j]) - top)
            logsum = real(math.log(total))
            mass, value = real(1), real(0)
            if integer_targets:
                value = logsum - (f(z[i, y[i]]) - top)
            else:
                mass = real(0)
                for j in range(n):
                    mass += y[i, j]
                    value += y[i, j] * (logsum - (f(z[i, j]) - top))
            factor, inverse = w[i] * scale, mass / total
            for j in range(n):
                t = z[i, j]
                target = real(y[i] == j) if integer_targets else y[i, j]
                z[i, j] = factor * (exp(f(t) - top) * inverse - target) * d_f(t)
            losses[i, 0] = w[i] * value

    return kernel
