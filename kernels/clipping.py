"""Clipping of gradients: entries into [-v, v], then all of them together to a norm of at most c.

    g <- min(max(g, -v), v)             [as PyTorch's clip_grad_value_]
    g <- g min(1, c / (|g| + 1e-6))     [as PyTorch's clip_grad_norm_; Pascanu et al. 2013, arXiv:1211.5063]

|g| is the Euclidean norm over all parameters of the network. The factor is no pass of its own: it goes into
hyper[GRADIENT_FACTOR], by which the update multiplies.
"""

import math

from numba import float64, int64

from .mathematics import inlined
from .optimizers import BLOCK, GRADIENT_FACTOR
from .replay import GRADIENT_NOT_FINITE, STOPPED
from .rows import read_row, vector
from .team import barrier, share

VALUE, NORM = range(2)  # the limits
_EPSILON = 1e-6


@inlined
def clip_value(g, limit):
    """min(max(g, -limit), limit); an infinity stays, as NaN does, so that the update finds it."""
    infinity = type(g)(math.inf)  # in each comparison: a choice after the two keeps LLVM from vectorising
    y = limit if (g > limit) & (g < infinity) else g
    return -limit if (y < -limit) & (y > -infinity) else y


@inlined
def norm_factor(norm, limit):
    """min(1, limit / (norm + 1e-6)); 1 where the norm is NaN."""
    factor = limit / (norm + _EPSILON)
    return factor if factor < 1 else 1.0


def clip(real, by_value, by_norm):
    """Clips gradients by value, in place, and by norm, as a factor; which of the two, `by_value` and `by_norm` say.

    Operands: gradients, limits (value, norm) float64, hyper, counters, partials (blocks,) float64. Squares are added up
    in float64: none of a float32 overflows or vanishes. A norm that is not finite sets counters[STOPPED].
    """

    def kernel(address, me, team):
        row = read_row(address)
        g, limits = vector(row, 0, real), vector(row, 1, float64)
        hyper, counters = vector(row, 2, float64), vector(row, 3, int64)
        partials = vector(row, 4, float64)
        n, blocks = g.shape[0], partials.shape[0]
        limit = real(limits[VALUE])
        first, last = share(blocks, me, team)
        for k in range(first, last):
            block = g[k * BLOCK : min(n, (k + 1) * BLOCK)]  # read from 0 on, so that the loop vectorises
            if by_value:
                for i in range(block.shape[0]):
                    block[i] = clip_value(block[i], limit)
            total = float64(0)
            if by_norm:
                for i in range(block.shape[0]):
                    total += float64(block[i]) * float64(block[i])
            partials[k] = total
        if by_norm:
            barrier(me, team)
            if me == 0:
                total = float64(0)
                for k in range(blocks):
                    total += partials[k]
                hyper[GRADIENT_FACTOR] = norm_factor(math.sqrt(total), limits[NORM])
                if not math.isfinite(total) and counters[STOPPED] == 0:
                    counters[STOPPED] = GRADIENT_NOT_FINITE

    return kernel


# The sum may be taken in any order inside a block, else LLVM adds one number at a time.
clip.fastmath = {"contract", "reassoc"}  # type: ignore[attr-defined]
