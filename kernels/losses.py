"""Losses: each value beside its derivative, and BP1: bias, activation, loss, delta and bias gradient in one pass.

The statistics of a loss, a float64 vector that the kernels of a step share, are

    stats[LOSS]          loss of this batch, the mean of l weighted by w
    stats[WEIGHT]        sum of the sample weights w of this batch
    stats[LOSS_SUM]      += LOSS * WEIGHT          so that LOSS_SUM / WEIGHT_SUM is the mean over an epoch
    stats[WEIGHT_SUM]    += WEIGHT
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numba import float64, int64

from gpubp.errors import unknown_name

from .mathematics import exp, inlined, log1p, sigmoid
from .reductions import sum_blocks
from .replay import LOSS_NOT_FINITE, STOPPED
from .rows import matrix, read_row, vector

LOSS, WEIGHT, LOSS_SUM, WEIGHT_SUM = range(4)
STATS = 4


@inlined
def half_sse(a, y):
    return type(a)(0.5) * (a - y) * (a - y)


@inlined
def d_half_sse(a, y):
    return a - y


@inlined
def squared_error(a, y):
    return (a - y) * (a - y)


@inlined
def d_squared_error(a, y):
    return type(a)(2) * (a - y)


@inlined
def absolute_error(a, y):
    return abs(a - y)


@inlined
def d_absolute_error(a, y):
    r = a - y  # the subgradient at 0 is 0; NaN stays NaN
    return type(a)(1) if r > 0 else (type(a)(-1) if r < 0 else r)


@inlined
def huber(a, y):
    r = abs(a - y)
    return type(a)(0.5) * r * r if r <= 1 else r - type(a)(0.5)


@inlined
def d_huber(a, y):
    r = a - y
    return type(a)(1) if r > 1 else (type(a)(-1) if r < -1 else r)


@inlined
def poisson(z, y):
    return exp(z) - y * z


@inlined
def d_poisson(z, y):
    return exp(z) - y


@inlined
def logistic(z, y):
    # -y ln s(z) - (1-y) ln(1-s(z)), rearranged so that no exponential overflows
    return (z if z > 0 else type(z)(0)) - y * z + log1p(exp(-abs(z)))


@inlined
def d_logistic(z, y):
    return sigmoid(z) - y


@dataclass(frozen=True)
class Loss:
    """A loss: E = sum_i w_i l_i / sum_i w_i over the examples of a batch.

    `l` and `d_l` are scalars of (output, target), summed over the outputs of an example, or averaged where
    `mean_over_outputs`; None for softmax cross-entropy, whose outputs depend on each other. `logits` says that the
    loss applies its own link, so that the network's output activation is "identity".
    """

    name: str
    l: Callable[..., Any] | None
    d_l: Callable[..., Any] | None
    mean_over_outputs: bool = False
    logits: bool = False


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("half_sse", half_sse, d_half_sse),
        Loss("sse", squared_error, d_squared_error),
        Loss("mse", squared_error, d_squared_error, mean_over_outputs=True),
        Loss("mae", absolute_error, d_absolute_error, mean_over_outputs=True),
        Loss("huber", huber, d_huber, mean_over_outputs=True),
        Loss("poisson", poisson, d_poisson, mean_over_outputs=True, logits=True),
        Loss("binary_cross_entropy", logistic, d_logistic, logits=True),
        Loss("softmax_cross_entropy", None, None, logits=True),
    )
}


def loss(name: str) -> Loss:
    """The loss called `name`; ConfigError with the nearest name otherwise."""
    if not isinstance(name, str) or name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return LOSSES[name]


@inlined
def weight_scale(w, stats):
    """1 / sum of the sample weights, in stats[WEIGHT]; 0 for a batch that weighs nothing."""
    total = float64(0)
    for i in range(w.shape[0]):
        total += w[i]
    stats[WEIGHT] = total
    return 1 / total if total > 0 else float64(0)


@inlined
def finish(loss_sum, scale, stats, counters):
    """Writes the batch's loss, adds it to the epoch's, and stops the run where it is not finite."""
    value = loss_sum * scale
    stats[LOSS] = value
    if math.isfinite(value):
        stats[LOSS_SUM] += value * stats[WEIGHT]
        stats[WEIGHT_SUM] += stats[WEIGHT]
    elif counters[STOPPED] == 0:
        counters[STOPPED] = LOSS_NOT_FINITE


def elementwise_loss(real, loop, f, d_f, l, d_l, mean):
    """a = f(z + b); E = sum w l(a, y) / sum w; BP1: delta = dE/da * f'(z); db = column sums of delta.

    Operands: z (batch, n), overwritten by delta; b (n,); y (batch, n); w (batch,); db (n,) written;
    partials (2 blocks, n) scratch; stats and counters. `mean` divides by n.
    """

    def kernel(address):
        row = read_row(address)
        z, b, y = matrix(row, 0, real), vector(row, 1, real), matrix(row, 2, real)
        w, db, partials = vector(row, 3, real), vector(row, 4, real), matrix(row, 5, real)
        stats, counters = vector(row, 6, float64), vector(row, 7, int64)
        batch, n = z.shape
        scale = weight_scale(w, stats)
        if mean:
            scale /= n
        blocks = partials.shape[0] // 2
        losses, gradients = partials[:blocks], partials[blocks:]
        size = (batch + blocks - 1) // blocks
        for k in loop(blocks):
            losses[k, :] = real(0)
            gradients[k, :] = real(0)
            for i in range(k * size, min(batch, (k + 1) * size)):
                weight = w[i]
                factor = real(weight * scale)
                for j in range(n):
                    t = z[i, j] + b[j]
                    a = f(t)
                    d = factor * d_l(a, y[i, j]) * d_f(t)
                    losses[k, j] += weight * l(a, y[i, j])
                    z[i, j] = d
                    gradients[k, j] += d
        total = float64(0)
        for k in range(blocks):
            for j in range(n):
                total += losses[k, j]
        sum_blocks(gradients, db)
        finish(total, scale, stats, counters)

    return kernel


def softmax_cross_entropy(real, loop, f, d_f, integer_targets):
    """a = f(z + b); l = sum_j y_j (ln sum_k exp(a_k) - a_j); delta = w/sum w (p sum_j y_j - y) f'(z); db.

    Operands as in `elementwise_loss`, but y is a vector of class numbers (batch,) in int64 or of target
    probabilities (batch, n); partials is (2 blocks, n). The largest logit of a row is taken out before exp.
    """

    def kernel(address):
        row = read_row(address)
        z, b, w = matrix(row, 0, real), vector(row, 1, real), vector(row, 3, real)
        labels, y = vector(row, 2, int64), matrix(row, 2, real)
        db, partials = vector(row, 4, real), matrix(row, 5, real)
        stats, counters = vector(row, 6, float64), vector(row, 7, int64)
        batch, n = z.shape
        scale = weight_scale(w, stats)
        blocks = partials.shape[0] // 2
        losses, gradients = partials[:blocks], partials[blocks:]
        size = (batch + blocks - 1) // blocks
        for k in loop(blocks):
            losses[k, 0] = real(0)
            gradients[k, :] = real(0)
            for i in range(k * size, min(batch, (k + 1) * size)):
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
                    value = logsum - (f(z[i, labels[i]]) - top)
                else:
                    mass = real(0)
                    for j in range(n):
                        mass += y[i, j]
                        value += y[i, j] * (logsum - (f(z[i, j]) - top))
                factor = real(w[i] * scale)
                inverse = mass / total
                for j in range(n):
                    t = z[i, j]
                    target = real(labels[i] == j) if integer_targets else y[i, j]
                    d = factor * (exp(f(t) - top) * inverse - target) * d_f(t)
                    z[i, j] = d
                    gradients[k, j] += d
                losses[k, 0] += w[i] * value
        total_loss = float64(0)
        for k in range(blocks):
            total_loss += losses[k, 0]
        sum_blocks(gradients, db)
        finish(total_loss, scale, stats, counters)

    return kernel
