"""Between two updates: examples gathered, targets smoothed, storage converted, counters moved on."""

from __future__ import annotations

from numba import cuda, float32, float64

from gpubp.kernels.loss_scale import DYNAMIC, GOOD, GROW_AFTER, LARGEST, SCALE
from gpubp.kernels.mathematics import inlined
from gpubp.kernels.optimizers import LR
from gpubp.kernels.replay import CURSOR, OVERFLOWED, SKIPPED, STEP, STOPPED

from .storage import loader, saver
from .vectors import each, reader, writer


def _mover(source_type, storage, width):
    """move(source, from, out, to): one vector, converted where the two types differ."""
    if source_type == storage:
        load, save = reader(width), writer(width)
    else:
        real = float64 if float64 in (source_type, storage) else float32
        load, save = loader(real, source_type, width), saver(real, storage, width)

    @inlined
    def move(source, start, out, place):
        save(out, place, load(source, start))

    return move


def gather(source_type, storage, width=1):
    """out[i] = source[order[cursor + i]]: source (examples, n), order (examples,) int64, out (batch, n) written.

    counters int64. Class numbers are int64 with n = 1; floats are converted to `storage`.
    """
    move = _mover(source_type, storage, width)

    def kernel(source, order, out, counters):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = out.shape
        cursor = counters[CURSOR]
        for i in range(row, batch, rows):
            start = order[cursor + i] * n
            for j in range(column * width, n, columns * width):
                move(source, start + j, out, i * n + j)

    return kernel


def smooth(real, labels):
    """out = on y + off: y (batch, n) of `real`, or with `labels` int64 class numbers (batch,), rows of 0 and 1.

    out (batch, n) of `real` written; rates = (on, off) float64.
    """
    load, save = loader(real, real, 1), saver(real, real, 1)

    @inlined
    def of_class(y, i, j, n):
        return (real(y[i] == j),)

    @inlined
    def of_row(y, i, j, n):
        return load(y, i * n + j)

    @inlined
    def lane(target, on, off):
        return on * target + off

    target = of_class if labels else of_row

    def kernel(y, out, rates):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        batch, n = out.shape
        on, off = real(rates[0]), real(rates[1])
        for i in range(row, batch, rows):
            for j in range(column, n, columns):
                save(out, i * n + j, each(lane, (target(y, i, j, n),), (on, off)))

    return kernel


def cast(source_type, storage, width=1):
    """out = source in another type, flat: source (n,), out (n,) written."""
    wide, single = _mover(source_type, storage, width), _mover(source_type, storage, 1)

    def kernel(source, out):
        first, threads, n = cuda.grid(1), cuda.gridsize(1), source.shape[0]
        whole = n - n % width
        for i in range(first * width, whole, threads * width):
            wide(source, i, out, i)
        for i in range(whole + first, n, threads):
            single(source, i, out, i)

    return kernel


def advance():
    """Ends a step: cursor += batch, step += 1, hyper[LR] = rates[(step - start) mod steps]; then the loss scale.

    counters int64, hyper, rates (steps of an epoch,), scaling float64, the integers batch and start. One thread works.
    A step that overflowed counts as skipped and halves the scale; GROW_AFTER good ones in a row double it.
    """

    def kernel(counters, hyper, rates, scaling, batch, start):
        if cuda.grid(1) == 0 and counters[STOPPED] == 0:
            counters[CURSOR] += batch
            counters[STEP] += 1
            k = counters[STEP] - start
            if k >= 0 and rates.shape[0] > 0:
                hyper[LR] = rates[k % rates.shape[0]]
            if counters[OVERFLOWED] != 0:
                counters[OVERFLOWED] = 0
                counters[SKIPPED] += 1
                scaling[SCALE] *= 0.5
                scaling[GOOD] = 0
            elif scaling[DYNAMIC] != 0:
                scaling[GOOD] += 1
                if scaling[GOOD] >= GROW_AFTER:
                    scaling[GOOD] = 0
                    scaling[SCALE] = min(2 * scaling[SCALE], LARGEST)

    return kernel
