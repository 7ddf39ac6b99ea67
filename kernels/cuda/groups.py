"""The numbers of groups of parameters, each with its own learning rate and weight decay, and the look at gradients."""

from __future__ import annotations

from numba import cuda

from gpubp.kernels.groups import group_hyper
from gpubp.kernels.loss_scale import SCALE
from gpubp.kernels.optimizers import FACTOR, GRADIENT_FACTOR, count_of
from gpubp.kernels.replay import SKIPPED, STEP

from .updates import look_at


def prepare_groups(real, coefficients, width=1):
    """`prepare_update` for groups (n, 2) of (factor of the learning rate, weight decay): one row of c for each.

    gradients (n,) of `real`, hyper, groups and scaling float64, counters int64, own (n, len(hyper)) float64 scratch, c
    (n, COEFFICIENTS + 1) of `real` written. `update` of `updates` then takes a range and its group's row.
    """
    count, look = count_of(coefficients), look_at(real, width)

    def kernel(gradients, hyper, counters, scaling, groups, own, c):
        if cuda.grid(1) == 0:
            for k in range(groups.shape[0]):
                group_hyper(hyper, groups[k], own[k])
                values = coefficients(real, own[k], counters[STEP] + 1 - counters[SKIPPED])
                for j in range(count):
                    c[k, j] = values[j]
                c[k, FACTOR] = real(hyper[GRADIENT_FACTOR] / scaling[SCALE])
        look(gradients, counters, scaling)

    return kernel
