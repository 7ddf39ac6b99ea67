"""The exponential moving average of the weights on a GPU: one thread prepares, a pass works."""

from __future__ import annotations

from numba import cuda

from gpubp.kernels.averages import averaged, share_of_new
from gpubp.kernels.replay import OVERFLOWED, SKIPPED, STEP, STOPPED

from .storage import loader, saver
from .vectors import each


def prepare_average(real):
    """c = (1 - d) / (1 - d^t) for this update, by one thread; counters int64, decay = (d,) float64, c (1,) written."""

    def kernel(counters, decay, c):
        if cuda.grid(1) == 0:
            c[0] = real(share_of_new(decay[0], counters[STEP] + 1 - counters[SKIPPED]))

    return kernel


def average(real, width=1):
    """e += c[0] (p - e) for parameters and average (n,) of `real`, in place; nothing when stopped or skipped."""
    load, save = loader(real, real, width), saver(real, real, width)
    load_one, save_one = loader(real, real, 1), saver(real, real, 1)

    def kernel(p, e, counters, c):
        if counters[STOPPED] == 0 and counters[OVERFLOWED] == 0:
            share = c[0]
            first, threads, n = cuda.grid(1), cuda.gridsize(1), p.shape[0]
            whole = n - n % width
            for i in range(first * width, whole, threads * width):
                save(e, i, each(averaged, (load(e, i), load(p, i)), (share,)))
            for i in range(whole + first, n, threads):
                save_one(e, i, each(averaged, (load_one(e, i), load_one(p, i)), (share,)))

    return kernel
