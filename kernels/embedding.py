"""Embeddings: rows of a table in the place of the numbers of categories, and the gradient of that table.

    a = [x at all other columns, in order | E[o_1 + c_1] | E[o_2 + c_2] | ...]      c_k = x at categorical column k
    dE/dE[r] = sum over the examples with o_k + c_k = r of their k-th part of delta

Categories are numbers 0, 1, ... in floats, as they stand among the other inputs.
"""

import math

from numba import int64

from .atomics import load
from .mathematics import inlined
from .rows import matrix, read_row, vector
from .team import cut, share_rows

COLUMN, FIRST, COUNT = range(3)  # of a row of the plan: where in x, the first row in E, categories


@inlined
def category(value, count):
    """The category that `value` numbers, -1 where it is none of `count`."""
    real = type(value)  # in which all is compared: beside an integer Numba would take float64
    found = int64(value) if real(0) <= value < real(count) else int64(-1)
    return found if real(found) == value else int64(-1)


def embed(real):
    """a from x and E; an example with a number that is no category gets NaN, so that the loss tells.

    Operands: x (batch, n_in), E (rows, size), a (batch, n_out) written, passed (n,) int64: the other columns; plan
    (categorical columns, 3) int64.
    """

    def kernel(address, me, team):
        row = read_row(address)
        x, table, a = matrix(row, 0, real), matrix(row, 1, real), matrix(row, 2, real)
        passed, plan = vector(row, 3, int64), matrix(row, 4, int64)
        start, stop = share_rows(a.shape[0], me, team)
        for i in range(start, stop):
            place = passed.shape[0]
            for j in range(place):
                a[i, j] = x[i, passed[j]]
            for k in range(plan.shape[0]):
                c = category(x[i, plan[k, COLUMN]], plan[k, COUNT])
                for j in range(table.shape[1]):
                    a[i, place + j] = table[plan[k, FIRST] + c, j] if c >= 0 else real(math.nan)
                place += table.shape[1]

    return kernel


def embedding_gradient(real):
    """dE/dE from delta = dE/da, each row added up in the order of the batch, whatever the threads.

    Operands: x (batch, n_in), delta (batch, n_out), gradient (rows, size) written, plan (categorical columns, 3) int64.
    Each member takes rows of the table and looks for them in the whole batch.
    """

    def kernel(address, me, team):
        row = read_row(address)
        x, delta, gradient = matrix(row, 0, real), matrix(row, 1, real), matrix(row, 2, real)
        plan = matrix(row, 3, int64)
        size = gradient.shape[1]
        start, stop = cut(gradient.shape[0], 1, me, load(team))
        gradient[start:stop, :] = real(0)
        for i in range(x.shape[0]):
            place = delta.shape[1] - plan.shape[0] * size
            for k in range(plan.shape[0]):
                c = category(x[i, plan[k, COLUMN]], plan[k, COUNT])
                r = plan[k, FIRST] + c
                if c >= 0 and start <= r < stop:
                    for j in range(size):
                        gradient[r, j] += delta[i, place + j]
                place += size

    return kernel
