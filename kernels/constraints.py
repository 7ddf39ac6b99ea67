"""Constraints on the weights, restored after each update.

    W[:, j] <- W[:, j] min(1, c / |W[:, j]|)      max-norm: of each unit j, the Euclidean norm of its incoming weights

Source: Srivastava et al. 2014, JMLR 15, section 5.1.
"""

import math

from numba import float64, int64

from .atomics import load
from .mathematics import inlined
from .replay import STOPPED
from .rows import matrix, read_row, vector
from .team import TILE, cut


@inlined
def shrink(squares, limit):
    """min(1, limit / sqrt(squares)); 1 where that is not finite: such weights are lost, and are to be found."""
    norm = math.sqrt(squares)
    return limit / norm if limit < norm < math.inf else 1.0


def max_norm(real):
    """W[:, j] = W[:, j] min(1, c / |W[:, j]|), in place; nothing where the step was stopped.

    Operands: W (n_in, n_out); limit (c,) float64; counters; factors (n_out,) float64 scratch. Squares are added up in
    float64, by rows. Each member takes whole columns.
    """

    def kernel(address, me, team):
        row = read_row(address)
        w, limit = matrix(row, 0, real), vector(row, 1, float64)
        counters, factors = vector(row, 2, int64), vector(row, 3, float64)
        start, stop = cut(w.shape[1], TILE, me, load(team))
        if counters[STOPPED] != 0 or start == stop:
            return
        mine, smallest = factors[start:stop], float64(1)
        mine[:] = 0
        for i in range(w.shape[0]):
            columns = w[i, start:stop]  # read from 0 on, so that the loop vectorises
            for j in range(mine.shape[0]):
                mine[j] += float64(columns[j]) * float64(columns[j])
        for j in range(mine.shape[0]):
            mine[j] = shrink(mine[j], limit[0])
            smallest = min(smallest, mine[j])
        if smallest == 1:
            return
        for i in range(w.shape[0]):
            columns = w[i, start:stop]
            for j in range(mine.shape[0]):
                columns[j] *= real(mine[j])

    return kernel
