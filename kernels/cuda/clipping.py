"""Clipping of gradients: a pass over the flat buffer that clips by value and adds up squares, then the factor."""

from __future__ import annotations

import math

from numba import cuda, float64

from gpubp.kernels.clipping import NORM, VALUE, clip_value, norm_factor
from gpubp.kernels.loss_scale import DYNAMIC, SCALE
from gpubp.kernels.mathematics import inlined
from gpubp.kernels.optimizers import GRADIENT_FACTOR
from gpubp.kernels.replay import GRADIENT_NOT_FINITE, STOPPED

from .geometry import CHUNK, THREADS
from .reductions import block_sum
from .storage import loader, saver
from .vectors import each, fold, plus


def _clip(real, by_value, by_norm, width):
    """step(gradients, i, limit): one vector of gradients clipped in place; the sum of its squares."""
    load, save = loader(real, real, width), saver(real, real, width)

    @inlined
    def square(g):
        return float64(g) * float64(g)

    @inlined
    def step(gradients, i, limit):
        g = load(gradients, i)
        if by_value:
            g = each(clip_value, (g,), (limit,))
            save(gradients, i, g)
        return fold(plus, each(square, (g,), ())) if by_norm else float64(0)

    return step


def clip(real, by_value, by_norm, width=1):
    """g = min(max(g, -SCALE v), SCALE v); partials = g^2 summed over chunks in float64: `finish_clip` ends it.

    gradients (n,) of `real`, in place, SCALE times what they are; limits (value, norm) and scaling float64; partials
    (chunks,) float64 written. Blocks of THREADS.
    """
    wide, single, total = (
        _clip(real, by_value, by_norm, width),
        _clip(real, by_value, by_norm, 1),
        block_sum(float64),
    )

    def kernel(gradients, limits, scaling, partials):
        limit = real(limits[VALUE] * scaling[SCALE])
        t, n = cuda.threadIdx.x, gradients.shape[0]
        for k in range(cuda.blockIdx.x, partials.shape[0], cuda.gridDim.x):
            end = min(n, (k + 1) * CHUNK)
            whole = end - end % width
            mine = float64(0)
            for i in range(k * CHUNK + t * width, whole, THREADS * width):
                mine += wide(gradients, i, limit)
            for i in range(whole + t, end, THREADS):
                mine += single(gradients, i, limit)
            if by_norm:
                value = total(mine)
                if t == 0:
                    partials[k] = value

    return kernel


def finish_clip(real):
    """hyper[GRADIENT_FACTOR] = min(1, limit / (norm + 1e-6)), norm = sqrt(sum of partials) / SCALE.

    One block of THREADS. A norm that is not finite sets counters[STOPPED], but with a dynamic loss scale:
    `prepare_update` then says what becomes of the step.
    """
    total = block_sum(float64)

    def kernel(partials, limits, hyper, counters, scaling):
        mine = float64(0)
        for k in range(cuda.threadIdx.x, partials.shape[0], THREADS):
            mine += partials[k]
        value = total(mine)
        if cuda.threadIdx.x == 0:
            hyper[GRADIENT_FACTOR] = norm_factor(math.sqrt(value) / scaling[SCALE], limits[NORM])
            if not math.isfinite(value) and scaling[DYNAMIC] == 0 and counters[STOPPED] == 0:
                counters[STOPPED] = GRADIENT_NOT_FINITE

    return kernel
