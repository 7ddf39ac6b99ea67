"""BP1: bias, output activation, loss, delta and bias gradient in one pass over the last product."""

import math

from numba import float64, int64

from .losses import LOSS, LOSS_SUM, WEIGHT, WEIGHT_SUM, d_softmax, larger
from .mathematics import exp, inlined
from .reductions import sum_blocks
from .replay import LOSS_NOT_FINITE, STOPPED
from .rows import matrix, read_row, vector
from .team import barrier, granule, share_rows


@inlined
def sum_of(w):
    """Sum of the sample weights."""
    total = float64(0)
    for i in range(w.shape[0]):
        total += w[i]
    return total


@inlined
def finish(loss_sum, weight, scale, stats, counters):
    """Writes the batch's loss, adds it to the epoch's, and stops the run where it is not finite."""
    value = loss_sum * scale
    stats[LOSS], stats[WEIGHT] = value, weight
    if math.isfinite(value):
        stats[LOSS_SUM] += value * weight
        stats[WEIGHT_SUM] += weight
    elif counters[STOPPED] == 0:
        counters[STOPPED] = LOSS_NOT_FINITE


def elementwise_loss(real, f, d_f, l, d_l, mean):
    """a = f(z + b); E = sum w l(a, y) / sum w; BP1: delta = dE/da * f'(z); db = column sums of delta.

    Operands: z (batch, n), overwritten by delta; b (n,); y (batch, n); w (batch,); db (n,) written;
    partials (2 granules, n) scratch; stats and counters. `mean` divides by n.
    """

    def kernel(address, me, team):
        row = read_row(address)
        z, b, y = matrix(row, 0, real), vector(row, 1, real), matrix(row, 2, real)
        w, db, partials = vector(row, 3, real), vector(row, 4, real), matrix(row, 5, real)
        stats, counters = vector(row, 6, float64), vector(row, 7, int64)
        batch, n = z.shape
        all_weight = sum_of(w)
        scale = 1 / all_weight if all_weight > 0 else float64(0)  # 0 for a batch that weighs nothing
        if mean:
            scale /= n
        blocks = partials.shape[0] // 2
        losses, gradients = partials[:blocks], partials[blocks:]
        size = granule(batch)
        start, stop = share_rows(batch, me, team)
        if batch == 0 and me == 0:
            partials[:, :] = real(0)
        for first in range(start, stop, size):
            k = first // size
            losses[k, :] = real(0)
            gradients[k, :] = real(0)
            for i in range(first, min(stop, first + size)):
                weight = w[i]
                factor = real(weight * scale)
                for j in range(n):
                    t = z[i, j] + b[j]
                    a = f(t)
                    d = factor * d_l(a, y[i, j]) * d_f(t)
                    losses[k, j] += weight * l(a, y[i, j])
                    z[i, j] = d
                    gradients[k, j] += d
        barrier(me, team)
        sum_blocks(gradients, db, me, team)
        if me == 0:
            total = float64(0)
            for k in range(blocks):
                for j in range(n):
                    total += losses[k, j]
            finish(total, all_weight, scale, stats, counters)

    return kernel


def softmax_loss(real, f, d_f, l, d_l, integer_targets):
    """a = f(z + b), p = softmax(a); E = sum_j y_j l(ln p_j); delta = w/sum w (p sum_j q_j - q) f'(z), q = -y d_l; db.

    Operands as in `elementwise_loss`, but y is a vector of class numbers (batch,) in int64 or of target
    probabilities (batch, n); partials is (2 granules, n). The largest logit of a row is taken out before exp.
    """

    def kernel(address, me, team):
        row = read_row(address)
        z, b, w = matrix(row, 0, real), vector(row, 1, real), vector(row, 3, real)
        labels, y = vector(row, 2, int64), matrix(row, 2, real)
        db, partials = vector(row, 4, real), matrix(row, 5, real)
        stats, counters = vector(row, 6, float64), vector(row, 7, int64)
        batch, n = z.shape
        all_weight = sum_of(w)
        scale = 1 / all_weight if all_weight > 0 else float64(0)  # 0 for a batch that weighs nothing
        blocks = partials.shape[0] // 2
        losses, gradients = partials[:blocks], partials[blocks:]
        size = granule(batch)
        start, stop = share_rows(batch, me, team)
        if batch == 0 and me == 0:
            partials[:, :] = real(0)
        for first in range(start, stop, size):
            k = first // size
            losses[k, 0] = real(0)
            gradients[k, :] = real(0)
            for i in range(first, min(stop, first + size)):
                for j in range(n):
                    z[i, j] += b[j]
                top = f(z[i, 0])
                for j in range(1, n):
                    top = larger(f(z[i, j]), top)
                total = real(0)
                for j in range(n):
                    total += exp(f(z[i, j]) - top)
                logsum = real(math.log(total))
                mass, value = real(0), real(0)
                if integer_targets:
                    log_p = f(z[i, labels[i]]) - top - logsum
                    mass, value = -d_l(log_p), l(log_p)
                else:
                    for j in range(n):
                        log_p = f(z[i, j]) - top - logsum
                        mass -= y[i, j] * d_l(log_p)
                        value += y[i, j] * l(log_p)
                factor = real(w[i] * scale)
                inverse = mass / total
                for j in range(n):
                    t = z[i, j]
                    a = f(t) - top
                    pull = mass * real(labels[i] == j) if integer_targets else -y[i, j] * d_l(a - logsum)
                    d = factor * d_softmax(exp(a), pull, inverse) * d_f(t)
                    z[i, j] = d
                    gradients[k, j] += d
                losses[k, 0] += w[i] * value
        barrier(me, team)
        sum_blocks(gradients, db, me, team)
        if me == 0:
            total_loss = float64(0)
            for k in range(blocks):
                total_loss += losses[k, 0]
            finish(total_loss, all_weight, scale, stats, counters)

    return kernel
