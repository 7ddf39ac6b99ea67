"""The exponential moving average of the weights, kept beside the optimizer's slots.

    e_t = e_(t-1) + (1 - d) / (1 - d^t) (p_t - e_(t-1)),    d the decay, t counting updates from 1

This is e = d e + (1 - d) p from e_0 = 0, divided by 1 - d^t as Adam divides its moments: the weights before the first
update have no part in it, e_1 = p_1, and the buffer is the average itself after every step.
"""

from numba import float64, int64

from .mathematics import inlined
from .optimizers import BLOCK
from .replay import SKIPPED, STEP, STOPPED
from .rows import read_row, vector
from .team import share


@inlined
def share_of_new(decay, t):
    """(1 - d) / (1 - d^t): how far the average moves to the new weights."""
    return (1 - decay) / (1 - decay**t)


@inlined
def averaged(e, p, c):
    """e + c (p - e)."""
    return e + c * (p - e)


def average(real):
    """The average after one update, in place; nothing where the step was stopped. Steps left out do not count in t.

    Operands: parameters, average (n,), counters, decay (1,) float64.
    """

    def kernel(address, me, team):
        row = read_row(address)
        p, e = vector(row, 0, real), vector(row, 1, real)
        counters, decay = vector(row, 2, int64), vector(row, 3, float64)
        if counters[STOPPED] == 0:
            c = real(share_of_new(decay[0], counters[STEP] + 1 - counters[SKIPPED]))
            n = p.shape[0]
            first, last = share((n + BLOCK - 1) // BLOCK, me, team)
            for k in range(first, last):
                pk, ek = p[k * BLOCK : min(n, (k + 1) * BLOCK)], e[k * BLOCK : min(n, (k + 1) * BLOCK)]
                for i in range(pk.shape[0]):
                    ek[i] = averaged(ek[i], pk[i], c)

    return kernel
