"""L1 and L2 penalties on the weights: their value joins the loss of the step, their gradient joins dW."""

from numba import float64, int64

from .losses import LOSS, PENALTY_SUM, WEIGHT
from .mathematics import inlined, sign
from .optimizers import BLOCK
from .replay import STOPPED
from .rows import read_row, vector
from .team import barrier, share


@inlined
def penalty_of(w, l1, half_l2):
    return l1 * abs(w) + half_l2 * w * w


@inlined
def d_penalty_of(w, l1, l2):
    return l1 * sign(w) + l2 * w


@inlined
def batch_share(divide, weight):
    """What a penalty is multiplied by: 1, or with `divide` 1 / weight, and 0 for a batch that weighs nothing."""
    if divide == 0:
        return 1.0
    return 1.0 / weight if weight > 0 else 0.0


def penalty(real):
    """E += s (l1 sum |W| + l2/2 sum W^2); dW += s (l1 sign(W) + l2 W), over the flat buffer of weights, not biases.

    Operands: weights, gradients (in place), strengths (l1, l2, divide) float64, stats, counters, partials (blocks,)
    float64. s is 1, or with divide = 1 the inverse of the batch's sum of weights.
    """

    def kernel(address, me, team):
        row = read_row(address)
        p, g = vector(row, 0, real), vector(row, 1, real)
        strengths, stats = vector(row, 2, float64), vector(row, 3, float64)
        counters, partials = vector(row, 4, int64), vector(row, 5, float64)
        scale = batch_share(strengths[2], stats[WEIGHT])
        l1, l2 = real(strengths[0] * scale), real(strengths[1] * scale)
        half = real(0.5) * l2
        n, blocks = p.shape[0], partials.shape[0]
        first, last = share(blocks, me, team)
        for k in range(first, last):
            value = float64(0)
            start, stop = k * BLOCK, min(n, (k + 1) * BLOCK)
            pk, gk = (
                p[start:stop],
                g[start:stop],
            )  # views from 0 on, as in the update, so that the loop vectorises
            for i in range(pk.shape[0]):
                w = pk[i]
                value += penalty_of(w, l1, half)
                gk[i] += d_penalty_of(w, l1, l2)
            partials[k] = value
        barrier(me, team)
        total = float64(0)
        for k in range(blocks):
            total += partials[k]
        if me == 0 and counters[STOPPED] == 0:
            stats[LOSS] += total
            stats[PENALTY_SUM] += total * stats[WEIGHT]  # apart: the loss of an epoch is that of its data

    return kernel


# The sum may be taken in any order inside a block, else LLVM adds one number at a time.
penalty.fastmath = {"contract", "reassoc"}  # type: ignore[attr-defined]
