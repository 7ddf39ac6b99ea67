"""Optimizer updates and penalties over flat buffers: a pass that prepares, a pass that works, sums in two stages."""

from __future__ import annotations

from numba import cuda, float64

from gpubp.kernels.loss_scale import DYNAMIC, SCALE, SMALLEST
from gpubp.kernels.losses import LOSS, PENALTY_SUM, WEIGHT
from gpubp.kernels.mathematics import inlined, normal_or_zero
from gpubp.kernels.optimizers import FACTOR, GRADIENT_FACTOR, count_of, loader_of
from gpubp.kernels.penalties import batch_share, d_penalty_of, penalty_of
from gpubp.kernels.replay import GRADIENT_NOT_FINITE, OVERFLOWED, SKIPPED, STEP, STOPPED

from .geometry import CHUNK, THREADS
from .reductions import block_sum, not_finite
from .storage import loader, saver
from .vectors import each, fold, plus, zeros


def look_at(real, width):
    """look(gradients, counters, scaling): what `prepare_update` does of a gradient that is not finite."""
    load, load_one = loader(real, real, width), loader(real, real, 1)
    bad, bad_one = not_finite(real, width), not_finite(real, 1)

    @inlined
    def stop(scaling, counters):
        # Nothing ends a step that the loss stopped: an overflow noted here would skip the first one after it.
        if counters[STOPPED] == 0:
            if scaling[DYNAMIC] != 0 and scaling[SCALE] > SMALLEST:
                counters[OVERFLOWED] = 1
            else:
                counters[STOPPED] = GRADIENT_NOT_FINITE

    @inlined
    def look(gradients, counters, scaling):
        first, threads, n = cuda.grid(1), cuda.gridsize(1), gradients.shape[0]
        whole = n - n % width
        for i in range(first * width, whole, threads * width):
            if bad(load(gradients, i)):
                stop(scaling, counters)
        for i in range(whole + first, n, threads):
            if bad_one(load_one(gradients, i)):
                stop(scaling, counters)

    return look


def prepare_update(real, coefficients, width=1):
    """Before `update`: c = the coefficients of this step and GRADIENT_FACTOR / SCALE; a look for NaN and infinity.

    gradients (n,) of `real`, hyper and scaling float64, counters int64, c (COEFFICIENTS + 1,) of `real` written. A
    gradient that is not finite sets counters[OVERFLOWED] where the loss scale is dynamic and not yet at its smallest,
    else counters[STOPPED]; all threads that do write the same number. Where the loss has set counters[STOPPED] neither
    is touched. Skipped steps do not count in the rule's t.
    """
    count, look = count_of(coefficients), look_at(real, width)

    def kernel(gradients, hyper, counters, scaling, c):
        if cuda.grid(1) == 0:
            values = coefficients(real, hyper, counters[STEP] + 1 - counters[SKIPPED])
            for k in range(count):
                c[k] = values[k]
            c[FACTOR] = real(hyper[GRADIENT_FACTOR] / scaling[SCALE])
        look(gradients, counters, scaling)

    return kernel


def _step(real, storage, slots, rule, width):
    """step(p, gradients, s0, s1, copy, i, factor, c): the rule on one vector of each buffer, from element i on."""
    load, save, zero = loader(real, real, width), saver(real, real, width), zeros(real, width)
    save_copy = None if storage is None else saver(real, storage, width)

    @inlined
    def lane(p, g, s0, s1, factor, c):
        return rule(p, factor * g, s0, s1, c)

    def slot(k):
        return inlined(lambda new: normal_or_zero(new[k]))

    of_p, of_s0, of_s1 = inlined(lambda new: new[0]), slot(1), slot(2)

    @inlined
    def copied(copy, i, new):
        if save_copy is not None:
            save_copy(copy, i, new)

    @inlined
    def step(p, gradients, s0, s1, copy, i, factor, c):
        a = load(s0, i) if slots > 0 else zero
        b = load(s1, i) if slots > 1 else zero
        new = each(lane, (load(p, i), load(gradients, i), a, b), (factor, c))
        parameters = each(of_p, (new,), ())
        save(p, i, parameters)
        copied(copy, i, parameters)
        if slots > 0:
            save(s0, i, each(of_s0, (new,), ()))
        if slots > 1:
            save(s1, i, each(of_s1, (new,), ()))

    return step


def update(real, storage, slots, coefficients, rule, width=1):
    """p, s0, s1 = rule(p, g, s0, s1) over flat buffers, in place, and p once more as `storage`; nothing when stopped.

    p, gradients (n,) of `real`; s0, s1 (n,), or empty where the rule has no such slot; counters; c of `prepare_update`;
    copy (n,) of `storage` written, or empty of `real` where `storage` is None: products then read p itself.
    """
    load_c = loader_of(coefficients)
    wide, single = (_step(real, storage, slots, rule, w) for w in (width, 1))

    def kernel(p, gradients, s0, s1, counters, c, copy):
        if counters[STOPPED] == 0 and counters[OVERFLOWED] == 0:
            numbers, factor = load_c(c), c[FACTOR]
            first, threads, n = cuda.grid(1), cuda.gridsize(1), p.shape[0]
            whole = n - n % width
            for i in range(first * width, whole, threads * width):
                wide(p, gradients, s0, s1, copy, i, factor, numbers)
            for i in range(whole + first, n, threads):
                single(p, gradients, s0, s1, copy, i, factor, numbers)

    return kernel


def _penalize(real, width):
    """step(weights, gradients, i, l1, l2, scale): gradients in place; the penalty of one vector of weights."""
    load, save = loader(real, real, width), saver(real, real, width)

    @inlined
    def gradient(w, g, l1, l2, scale):
        return g + scale * d_penalty_of(w, l1, l2)

    @inlined
    def step(weights, gradients, i, l1, l2, scale):
        w = load(weights, i)
        save(gradients, i, each(gradient, (w, load(gradients, i)), (l1, l2, scale)))
        return fold(plus, each(penalty_of, (w,), (l1, real(0.5) * l2)))

    return step


def penalty(real, width=1):
    """dW += SCALE s (l1 sign(W) + l2 W); partials = s (l1 |W| + l2/2 W^2) summed over chunks: `finish_penalty` ends it.

    weights, gradients (n,) of `real`, gradients in place; strengths (l1, l2, divide), stats and scaling float64;
    partials (chunks,) float64 written. s is 1, or with divide = 1 the inverse of stats[WEIGHT]. Blocks of THREADS.
    """
    wide, single, total = _penalize(real, width), _penalize(real, 1), block_sum(float64)

    def kernel(weights, gradients, strengths, stats, scaling, partials):
        share = batch_share(strengths[2], stats[WEIGHT])
        l1, l2, scale = real(strengths[0] * share), real(strengths[1] * share), real(scaling[SCALE])
        t, n = cuda.threadIdx.x, weights.shape[0]
        for k in range(cuda.blockIdx.x, partials.shape[0], cuda.gridDim.x):
            end = min(n, (k + 1) * CHUNK)
            whole = end - end % width
            mine = real(0)
            for i in range(k * CHUNK + t * width, whole, THREADS * width):
                mine += wide(weights, gradients, i, l1, l2, scale)
            for i in range(whole + t, end, THREADS):
                mine += single(weights, gradients, i, l1, l2, scale)
            value = total(float64(mine))
            if t == 0:
                partials[k] = value

    return kernel


def finish_penalty(real):
    """Adds up partials (chunks,) into stats[LOSS] and stats[PENALTY_SUM]; counters. One block of THREADS."""
    total = block_sum(float64)

    def kernel(partials, stats, counters):
        mine = float64(0)
        for k in range(cuda.threadIdx.x, partials.shape[0], THREADS):
            mine += partials[k]
        value = total(mine)
        if cuda.threadIdx.x == 0 and counters[STOPPED] == 0:
            stats[LOSS] += value
            stats[PENALTY_SUM] += value * stats[WEIGHT]

    return kernel
