"""L1 and L2 penalties on the weights: their value joins the loss, their gradient joins dW."""

from numba import float64, int64

from .losses import LOSS, LOSS_SUM, WEIGHT
from .optimizers import BLOCK
from .replay import STOPPED
from .rows import read_row, vector


def penalty(real, loop):
    """E += l1 sum |W| + l2/2 sum W^2; dW += l1 sign(W) + l2 W, over the flat buffer of weights (biases excluded).

    Operands: weights, gradients (in place), strengths (l1, l2) float64, stats, counters, partials (blocks,) float64.
    """

    def kernel(address):
        row = read_row(address)
        p, g = vector(row, 0, real), vector(row, 1, real)
        strengths, stats = vector(row, 2, float64), vector(row, 3, float64)
        counters, partials = vector(row, 4, int64), vector(row, 5, float64)
        l1, l2 = real(strengths[0]), real(strengths[1])
        half = real(0.5) * l2
        n, blocks = p.shape[0], partials.shape[0]
        for k in loop(blocks):
            value = float64(0)
            start, stop = k * BLOCK, min(n, (k + 1) * BLOCK)
            pk, gk = (
                p[start:stop],
                g[start:stop],
            )  # views from 0 on, as in the update, so that the loop vectorises
            for i in range(pk.shape[0]):
                w = pk[i]
                value += l1 * abs(w) + half * w * w
                gk[i] += l1 * (real(w > 0) - real(w < 0)) + l2 * w
            partials[k] = value
        total = float64(0)
        for k in range(blocks):
            total += partials[k]
        if counters[STOPPED] == 0:
            stats[LOSS] += total
            stats[LOSS_SUM] += total * stats[WEIGHT]

    return kernel


# The sum may be taken in any order inside a block, else LLVM adds one number at a time.
penalty.fastmath = {"contract", "reassoc"}  # type: ignore[attr-defined]
