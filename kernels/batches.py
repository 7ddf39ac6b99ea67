"""Between two updates: examples of the next batch gathered into the step's buffers, counters moved on."""

from numba import float64, int64

from .replay import CURSOR, STEP, STOPPED
from .rows import matrix, read_row, vector


def gather(real, loop):
    """out[i] = source[order[cursor + i]]: the rows of the next batch.

    Operands: source (examples, n), order (examples,) int64, out (batch, n) written, counters.
    """

    def kernel(address):
        row = read_row(address)
        source, order = matrix(row, 0, real), vector(row, 1, int64)
        out, counters = matrix(row, 2, real), vector(row, 3, int64)
        first = counters[CURSOR]
        for i in loop(out.shape[0]):
            example = order[first + i]
            for j in range(out.shape[1]):
                out[i, j] = source[example, j]

    return kernel


def advance(real, loop):
    """Ends a step: cursor += batch, step += 1, and the learning rate of the next step from its table.

    Operands: counters, hyper (hyperparameters, lr first), rates (steps of an epoch,) float64, whose first belongs to
    step `start` and to every later beginning of an epoch, then
    the integers batch and start. A stopped run stays where it stopped.
    """

    def kernel(address):
        row = read_row(address)
        counters, hyper, rates = vector(row, 0, int64), vector(row, 1, float64), vector(row, 2, float64)
        if counters[STOPPED] == 0:
            counters[CURSOR] += row[10]
            counters[STEP] += 1
            k = counters[STEP] - row[11]
            if k >= 0 and rates.shape[0] > 0:
                hyper[0] = rates[k % rates.shape[0]]

    return kernel
