"""Gradient accumulation: the gradients and the loss of a batch from those of its micro-batches, one after the other.

    W_(1..j) = W_(1..j-1) + W_j,    c = W_j / W_(1..j),    g_(1..j) = (1 - c) g_(1..j-1) + c g_j,    the loss L alike

g_j is the mean of micro-batch j, weighted by its sample weights, whose sum is W_j. In the end g = sum W_j g_j / sum W_j
is the gradient of the whole batch. No mean is larger than what it is made of: none overflows where each g_j is finite.
"""

from numba import float64, int64

from .loss_passes import finish
from .losses import LOSS, WEIGHT
from .mathematics import inlined
from .optimizers import BLOCK
from .rows import read_row, vector
from .team import barrier, share


@inlined
def share_of_micro(weight, before):
    """c = W_j / W_(1..j) from W_j and W_(1..j-1); 0 where nothing weighs anything yet."""
    total = before + weight
    return weight / total if total > 0 else 0.0


@inlined
def mixed(mean, g, rest, c):
    """(1 - c) mean + c g, rest = 1 - c."""
    return rest * mean + c * g


@inlined
def mix_stats(micro, stats, counters, first, last):
    """Loss and weight of the batch so far, from those of the micro-batch in `micro`; `last` ends BP1 of the batch."""
    before = 0.0 if first else stats[WEIGHT]
    loss = micro[LOSS]
    if not first:
        c = share_of_micro(micro[WEIGHT], before)
        loss = mixed(stats[LOSS], loss, 1 - c, c)
    weight = before + micro[WEIGHT]
    if last:
        finish(loss, weight, 1.0, stats, counters)
    else:
        stats[LOSS], stats[WEIGHT] = loss, weight


def accumulate(real, first, last):
    """mean = (1 - c) mean + c g, or for the `first` micro-batch g; of the `last` one the result goes into g.

    Operands: g (n,), mean (n,), micro (the statistics of this micro-batch) and stats (those of the batch) float64,
    counters.
    """

    def kernel(address, me, team):
        row = read_row(address)
        g, mean = vector(row, 0, real), vector(row, 1, real)
        micro, stats, counters = vector(row, 2, float64), vector(row, 3, float64), vector(row, 4, int64)
        fraction = share_of_micro(micro[WEIGHT], stats[WEIGHT])
        c, rest = real(fraction), real(1 - fraction)
        n = g.shape[0]
        begin, end = share((n + BLOCK - 1) // BLOCK, me, team)
        for k in range(begin, end):
            gk, mk = g[k * BLOCK : min(n, (k + 1) * BLOCK)], mean[k * BLOCK : min(n, (k + 1) * BLOCK)]
            for i in range(gk.shape[0]):
                if first:
                    mk[i] = gk[i]
                elif last:
                    gk[i] = mixed(mk[i], gk[i], rest, c)
                else:
                    mk[i] = mixed(mk[i], gk[i], rest, c)
        barrier(me, team)  # every member has looked at the weights by now
        if me == 0:
            mix_stats(micro, stats, counters, first, last)

    return kernel
