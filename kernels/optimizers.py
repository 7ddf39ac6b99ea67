"""Optimizer updates: one scalar rule per method, and the one pass over the flat buffers that applies it.

`hyper` is a float64 vector: hyper[LR], hyper[GRADIENT_FACTOR] (loss scale and clipping, folded into g), then the
rule's own numbers. `t` counts updates from 1. A rule takes and returns (p, s0, s1): a parameter and its two slots.

A slot that gets smaller than the smallest normal number is kept as 0. The moments of a weight without gradient, as of a
unit that relu has shut, would stay there for good, and a CPU takes several times as long for such numbers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numba import float64, int64

from .mathematics import inlined, normal_or_zero, sign
from .replay import GRADIENT_NOT_FINITE, SKIPPED, STEP, STOPPED
from .rows import read_row, vector
from .team import barrier, share

LR, GRADIENT_FACTOR, DECAY = range(3)
COEFFICIENTS = (
    8  # numbers that a rule has at most in a step; behind them kernels keep FACTOR, that of the gradient
)
FACTOR = COEFFICIENTS
BLOCK = 1024  # elements of a block: members share out whole blocks


@inlined
def sgd_coefficients(real, hyper, t):
    # What the velocity takes of g, what p takes of the velocity; weight decay, momentum, 1 where Nesterov.
    steps = hyper[5] > 0
    into, out = (-hyper[LR], 1.0) if steps else (1.0, -hyper[LR])
    return real(into), real(out), real(hyper[2]), real(hyper[3]), real(hyper[4])


@inlined
def sgd(p, g, s0, s1, c):
    into, out, decay, momentum, nesterov = c
    g = into * (g + decay * p)
    s0 = momentum * s0 + g
    return p + out * (g + momentum * s0 if nesterov > 0 else s0), s0, s1


@inlined
def plain_sgd(p, g, s0, s1, c):
    return p + c[0] * c[1] * (g + c[2] * p), s0, s1


@inlined
def adam_coefficients(real, hyper, t):
    # lr over the first bias correction, 1 / sqrt of the second, and what the rules need of beta1, beta2, eps;
    # where eps is the paper's epsilon hat, the second correction belongs to the step size.
    beta1, beta2, hat = hyper[3], hyper[4], hyper[6] > 0
    step_size = hyper[LR] / (1 - beta1**t)
    root = math.sqrt(1 - beta2**t)
    step_size, correction = (step_size * root, 1.0) if hat else (step_size, 1 / root)
    return (
        real(step_size),
        real(correction),
        real(1 - beta1),
        real(beta2),
        real(1 - beta2),
        real(hyper[5]),
        real(hyper[2]),
        real(hyper[LR]),
    )


@inlined
def adam_step(p, g, m, v, c):
    m = m + c[2] * (g - m)
    v = c[3] * v + c[4] * g * g
    return p - c[0] * m / (math.sqrt(v) * c[1] + c[5]), m, v


@inlined
def adam(p, g, m, v, c):
    return adam_step(p, g + c[6] * p, m, v, c)


@inlined
def adamw(p, g, m, v, c):
    return adam_step(p - c[7] * c[6] * p, g, m, v, c)


@inlined
def rmsprop_coefficients(real, hyper, t):
    # lr, weight decay, alpha, 1 - alpha, eps
    return real(hyper[LR]), real(hyper[2]), real(hyper[3]), real(1 - hyper[3]), real(hyper[4])


@inlined
def rmsprop(p, g, v, s1, c):
    lr, decay, alpha, rest, eps = c
    g = g + decay * p
    v = alpha * v + rest * g * g
    return p - lr * g / (math.sqrt(v) + eps), v, s1


@inlined
def adagrad_coefficients(real, hyper, t):
    # lr decayed by the step, weight decay, eps
    lr = hyper[LR] / (1 + (t - 1) * hyper[3])
    return real(lr), real(hyper[2]), real(hyper[4]), real(0), real(0)


@inlined
def adagrad(p, g, v, s1, c):
    lr, decay, eps, _, _ = c
    g = g + decay * p
    v = v + g * g
    return p - lr * g / (math.sqrt(v) + eps), v, s1


@inlined
def lion_coefficients(real, hyper, t):
    # lr, what weight decay takes of p, 1 - beta1, 1 - beta2
    return real(hyper[LR]), real(hyper[LR] * hyper[2]), real(1 - hyper[3]), real(1 - hyper[4]), real(0)


@inlined
def lion(p, g, m, s1, c):
    lr, decay, of_step, of_average, _ = c
    direction = m + of_step * (g - m)
    p = p - decay * p - lr * sign(direction)
    return p, m + of_average * (g - m), s1


@dataclass(frozen=True)
class Rule:
    """An update rule: how many slots per parameter it keeps, its coefficients once a step, its scalar step."""

    slots: int
    coefficients: Callable[..., Any]
    step: Callable[..., Any]


RULES = {
    "plain_sgd": Rule(0, sgd_coefficients, plain_sgd),
    "sgd": Rule(1, sgd_coefficients, sgd),
    "adam": Rule(2, adam_coefficients, adam),
    "adamw": Rule(2, adam_coefficients, adamw),
    "rmsprop": Rule(1, rmsprop_coefficients, rmsprop),
    "adagrad": Rule(1, adagrad_coefficients, adagrad),
    "lion": Rule(1, lion_coefficients, lion),
}


def count_of(coefficients):
    """How many numbers a rule's coefficients are: 5 or 8."""
    return len(coefficients(float, [0.5] * 16, 1))


@inlined
def _five(v):
    return v[0], v[1], v[2], v[3], v[4]


@inlined
def _eight(v):
    return v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]


def loader_of(coefficients):
    """load(vector): the tuple that a rule takes, from a vector that begins with its coefficients."""
    return _five if count_of(coefficients) == 5 else _eight


@inlined
def all_finite(block):
    """Whether no element is NaN or infinite."""
    finite = True
    for i in range(block.shape[0]):
        finite &= block[i] - block[i] == 0
    return finite


@inlined
def apply_to_block(rule, slots, p, g, s0, s1, start, stop, factor, c):
    """The rule on the elements of one block, in place; what it gives subnormal of s0 and s1 is kept as 0."""
    zero = type(factor)(0)
    # Views that are read from 0 on: an index that might be negative keeps LLVM from vectorising.
    pk, gk, s0k, s1k = p[start:stop], g[start:stop], s0[start:stop], s1[start:stop]
    for i in range(pk.shape[0]):
        a = s0k[i] if slots > 0 else zero
        b = s1k[i] if slots > 1 else zero
        new, a, b = rule(pk[i], factor * gk[i], a, b, c)
        pk[i] = new
        if slots > 0:
            s0k[i] = normal_or_zero(a)
        if slots > 1:
            s1k[i] = normal_or_zero(b)


def update(real, slots, coefficients, rule):
    """p, s0, s1 = rule(p, g, s0, s1) over flat buffers, in place, subnormal slots as 0; nothing where g is not finite.

    Operands: parameters, gradients, s0, s1 (of the same length, or empty where the rule has no such slot), hyper,
    counters, bad (blocks,) int64 scratch, parts: the first block of each part of the buffers, ascending from 0, and the
    number of blocks. Members share out each part by itself, as they share the rows of a weight gradient, so that who
    updates weights has written their gradient and will read them: what another core has written comes slowly. The first
    sweep looks for NaN and infinity and, where it finds one, sets counters[STOPPED] and leaves every buffer as it was.
    Steps that were left out do not count in the rule's t.
    """

    def kernel(address, me, team):
        row = read_row(address)
        p, g = vector(row, 0, real), vector(row, 1, real)
        s0, s1 = vector(row, 2, real), vector(row, 3, real)
        hyper, counters, bad = vector(row, 4, float64), vector(row, 5, int64), vector(row, 6, int64)
        parts, n = vector(row, 7, int64), p.shape[0]
        for part in range(parts.shape[0] - 1):
            first, last = share(parts[part + 1] - parts[part], me, team)
            for k in range(parts[part] + first, parts[part] + last):
                bad[k] = not all_finite(g[k * BLOCK : min(n, (k + 1) * BLOCK)])
        # Looked at before the barrier: behind it the first member may go on, and change them for the next step.
        stopped = counters[STOPPED] != 0
        c = coefficients(real, hyper, counters[STEP] + 1 - counters[SKIPPED])
        factor = real(hyper[GRADIENT_FACTOR])
        barrier(me, team)
        finite = bad.sum() == 0
        if me == 0 and not finite and not stopped:
            counters[STOPPED] = GRADIENT_NOT_FINITE
        if finite and not stopped:
            for part in range(parts.shape[0] - 1):
                first, last = share(parts[part + 1] - parts[part], me, team)
                for k in range(parts[part] + first, parts[part] + last):
                    apply_to_block(rule, slots, p, g, s0, s1, k * BLOCK, min(n, (k + 1) * BLOCK), factor, c)

    return kernel
