"""Updates of parameters that do not all share a learning rate and a weight decay: numbers first, then range by range.

A group is (factor of the learning rate, weight decay). Its row of `c` holds the rule's coefficients of this step and,
at FACTOR, that of the gradient.
"""

from numba import float64, int64

from .mathematics import inlined
from .optimizers import (
    BLOCK,
    DECAY,
    FACTOR,
    GRADIENT_FACTOR,
    LR,
    all_finite,
    apply_to_block,
    count_of,
    loader_of,
)
from .replay import GRADIENT_NOT_FINITE, SKIPPED, STEP, STOPPED
from .rows import matrix, read_row, vector
from .team import barrier, share


@inlined
def group_hyper(hyper, group, out):
    """out = hyper with the group's learning rate and weight decay."""
    for k in range(out.shape[0]):
        out[k] = hyper[k]
    out[LR] = hyper[LR] * group[0]
    out[DECAY] = group[1]


def prepare_groups(real, coefficients):
    """c = the numbers of each group in this step; a gradient that is not finite sets counters[STOPPED].

    Operands: gradients, hyper, counters, groups (n, 2) float64, own (n, len(hyper)) float64 scratch, c (n,
    COEFFICIENTS + 1) written, bad (blocks,) int64 scratch. Steps that were left out do not count in the rule's t.
    """
    count = count_of(coefficients)

    def kernel(address, me, team):
        row = read_row(address)
        g, hyper, counters = vector(row, 0, real), vector(row, 1, float64), vector(row, 2, int64)
        groups, own, c = matrix(row, 3, float64), matrix(row, 4, float64), matrix(row, 5, real)
        bad = vector(row, 6, int64)
        n, blocks = g.shape[0], bad.shape[0]
        first, last = share(blocks, me, team)
        for k in range(first, last):
            bad[k] = not all_finite(g[k * BLOCK : min(n, (k + 1) * BLOCK)])
        barrier(me, team)
        if me == 0:
            if counters[STOPPED] == 0 and bad.sum() != 0:
                counters[STOPPED] = GRADIENT_NOT_FINITE
            for k in range(groups.shape[0]):
                group_hyper(hyper, groups[k], own[k])
                values = coefficients(real, own[k], counters[STEP] + 1 - counters[SKIPPED])
                for j in range(count):
                    c[k, j] = values[j]
                c[k, FACTOR] = real(hyper[GRADIENT_FACTOR])

    return kernel


def update_range(real, slots, coefficients, rule):
    """p, s0, s1 = rule(p, g, s0, s1) over a range of the flat buffers, in place; nothing when stopped.

    Operands: parameters, gradients, s0, s1 (of the same length, or empty where the rule has no such slot), counters,
    the group's row of c.
    """
    load_c = loader_of(coefficients)

    def kernel(address, me, team):
        row = read_row(address)
        p, g = vector(row, 0, real), vector(row, 1, real)
        s0, s1 = vector(row, 2, real), vector(row, 3, real)
        counters, c = vector(row, 4, int64), vector(row, 5, real)
        if counters[STOPPED] == 0:
            numbers, factor, n = load_c(c), c[FACTOR], p.shape[0]
            first, last = share((n + BLOCK - 1) // BLOCK, me, team)
            for k in range(first, last):
                start, stop = k * BLOCK, min(n, (k + 1) * BLOCK)
                apply_to_block(rule, slots, p, g, s0, s1, start, stop, factor, numbers)

    return kernel
