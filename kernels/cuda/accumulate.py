"""Gradient accumulation on a GPU: one thread takes loss and weight of a micro-batch in, a pass its gradients."""

from __future__ import annotations

from numba import cuda

from gpubp.kernels.accumulate import mix_stats, mixed, share_of_micro
from gpubp.kernels.losses import WEIGHT

from .storage import loader, saver
from .vectors import each


def prepare_accumulate(real, first, last):
    """c = W_j / W_(1..j) of this micro-batch, by one thread, and the statistics of the batch so far.

    micro (of this micro-batch) and stats float64, counters int64, c (2,) of `real` written: 1 - c and c.
    """

    def kernel(micro, stats, counters, c):
        if cuda.grid(1) == 0:
            share = share_of_micro(micro[WEIGHT], stats[WEIGHT])
            c[0], c[1] = real(1 - share), real(share)
            mix_stats(micro, stats, counters, first, last)

    return kernel


def accumulate(real, first, last, width=1):
    """mean = (1 - c) mean + c g, or for the `first` micro-batch g; of the `last` one the result goes into g.

    g and mean (n,) of `real`, c = (1 - c, c) as `prepare_accumulate` wrote it.
    """
    load, save = loader(real, real, width), saver(real, real, width)
    load_one, save_one = loader(real, real, 1), saver(real, real, 1)

    def kernel(g, mean, c):
        rest, share = c[0], c[1]
        out = g if last else mean
        thread, threads, n = cuda.grid(1), cuda.gridsize(1), g.shape[0]
        whole = n - n % width
        for i in range(thread * width, whole, threads * width):
            if first:
                save(out, i, load(g, i))
            else:
                save(out, i, each(mixed, (load(mean, i), load(g, i)), (rest, share)))
        for i in range(whole + thread, n, threads):
            if first:
                save_one(out, i, load_one(g, i))
            else:
                save_one(out, i, each(mixed, (load_one(mean, i), load_one(g, i)), (rest, share)))

    return kernel
