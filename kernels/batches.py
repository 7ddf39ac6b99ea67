"""Around the layers: examples gathered into the step's buffers, targets smoothed, counters moved on, inputs checked."""

from numba import carray, float64, int64
from numba.extending import register_jitable

from .atomics import load
from .panels import panel_columns
from .prefetch import call_in
from .replay import CURSOR, INPUT_NOT_FINITE, STEP, STOPPED
from .rows import matrix, pointer, read_row, vector
from .team import SIZE, barrier, granule, share_rows

AHEAD = 16 * 1024  # bytes of a batch that is fetched a step ahead: a larger one would push out the weights
WIDE = 8 * 1024  # bytes of a row that is fetched two rows ahead: a longer one the core fetches by itself


def gather(real):
    """out[i] = source[order[cursor + i]]: the rows of the next batch.

    Operands: source (examples, n), order (examples,) int64, out (batch, n) written, counters, then the panels in which
    out lies (panels.py) in the place of a fifth: members share out its rows, or take a panel each.

    The rows lie anywhere, so those to come are called into the cache: of a small batch, whose step takes not much
    longer than to wait for them, the rows of the batch behind it; of a larger one, where they are not too wide, the row
    after the next.
    """
    size = real.bitwidth // 8

    def kernel(address, me, team):
        row = read_row(address)
        m, n, panels = row[8], row[9], row[13]
        if panels > 1:
            for panel in range(me, panels, load(team + 8 * SIZE)):
                left, right = panel_columns(n, panel, panels)
                _gather(row, real, size, 0, m, left, right)
        else:
            start, stop = share_rows(m, me, team)
            _gather(row, real, size, start, stop, 0, n)

    return kernel


@register_jitable
def _gather(row, real, size, start, stop, left, right):
    """Gathers rows from start to stop, of them the columns from left to right: all, or a panel."""
    order, counters = vector(row, 1, int64), vector(row, 3, int64)
    rows, first, span = row[8], counters[CURSOR], right - left
    width, stride = size * span, size * row[9]
    source, small = row[1] + size * left, rows * stride <= AHEAD
    out = carray(pointer(row[7] + size * rows * left, real), (rows, span))
    for i in range(start, stop):
        if not small and stride <= WIDE and i + 2 < stop:
            call_in(source + stride * order[first + i + 2], width)
        example = carray(pointer(source + stride * order[first + i], real), (span,))
        for j in range(span):
            out[i, j] = example[j]
    following = first + rows
    if small:
        for i in range(start, min(stop, order.shape[0] - following)):
            call_in(source + stride * order[following + i], width)


def smooth(real, labels):
    """out = on y + off: targets that trust no class altogether.

    Operands: y (batch, n), or with `labels` class numbers (batch,) int64, which stand for rows of 0 and 1; out
    (batch, n) written; rates = (on, off) float64.
    """

    def kernel(address, me, team):
        row = read_row(address)
        classes, y, out = vector(row, 0, int64), matrix(row, 0, real), matrix(row, 1, real)
        rates = vector(row, 2, float64)
        on, off = real(rates[0]), real(rates[1])
        start, stop = share_rows(out.shape[0], me, team)
        for i in range(start, stop):
            for j in range(out.shape[1]):
                out[i, j] = on * (real(classes[i] == j) if labels else y[i, j]) + off

    return kernel


def advance(real):
    """Ends a step: cursor += batch, step += 1, and the learning rate of the next step from its table.

    Operands: counters, hyper (hyperparameters, lr first), rates (steps of an epoch,) float64, whose first belongs to
    step `start` and to every later beginning of an epoch, then
    the integers batch and start. A stopped run stays where it stopped.
    """

    def kernel(address, me, team):
        row = read_row(address)
        counters, hyper, rates = vector(row, 0, int64), vector(row, 1, float64), vector(row, 2, float64)
        if me == 0 and counters[STOPPED] == 0:
            counters[CURSOR] += row[10]
            counters[STEP] += 1
            k = counters[STEP] - row[11]
            if k >= 0 and rates.shape[0] > 0:
                hyper[0] = rates[k % rates.shape[0]]

    return kernel


def check_finite(real):
    """counters[STOPPED] = INPUT_NOT_FINITE where x has a NaN or an infinity.

    Operands: x (batch, n), bad (granules,) int64 scratch, counters.
    """

    def kernel(address, me, team):
        row = read_row(address)
        x, bad, counters = matrix(row, 0, real), vector(row, 1, int64), vector(row, 2, int64)
        size = granule(x.shape[0])
        start, stop = share_rows(x.shape[0], me, team)
        for first in range(start, stop, size):
            count = 0
            for i in range(first, min(stop, first + size)):
                for j in range(x.shape[1]):
                    count += 0 if x[i, j] - x[i, j] == real(0) else 1
            bad[first // size] = count
        barrier(me, team)
        if me == 0 and bad.sum() > 0:
            counters[STOPPED] = INPUT_NOT_FINITE

    return kernel
