"""BP1 of the losses behind a softmax: `lanes` threads of a warp share a row of logits, its maximum and its sums."""

from __future__ import annotations

import math

from numba import cuda

from gpubp.kernels.loss_scale import SCALE
from gpubp.kernels.losses import d_softmax, larger
from gpubp.kernels.mathematics import exp, inlined

from .losses import per_weight
from .reductions import WARP, over_row
from .storage import encoder
from .vectors import each, fold, plus


def softmax_loss(real, storage, f, d_f, l, d_l, integer_targets, lanes=WARP, held=0):
    """a = f(z + b), p = softmax(a); E = sum_j y_j l(ln p_j); delta = SCALE w/sum w (p sum_j q_j - q) f'(z), q = -y d_l.

    z (batch, n), b (n,), w (batch,) of `real`; y is (batch,) class numbers in int64 or (batch, n) target probabilities;
    delta (batch, n) of `storage`, z itself where the two are one type; losses (batch, 1) written: w l.
    `lanes`, a power of two up to 32, threads have a row; with `held` they hold it, up to `held` entries each, and it is
    read once; with 0 a row of any length is read three times. Blocks of whole warps.
    """
    factory = _held if held else _walked
    return factory(real, storage, f, d_f, _scalars(real, l, d_l, integer_targets), lanes, held)


def _scalars(real, l, d_l, integer_targets):
    """target(y, i, j), term(y, log_p) = y l, pull(y, log_p) = -y d_l: what depends on the loss and the targets."""
    if integer_targets:

        @inlined
        def target(y, i, j):
            return real(y[i] == j)

        @inlined
        def term(y, log_p):  # other classes count nothing, even where a is infinite
            return l(log_p) if y > real(0) else real(0)

        @inlined
        def pull(y, log_p):
            return -d_l(log_p) if y > real(0) else real(0)

    else:

        @inlined
        def target(y, i, j):
            return y[i, j]

        @inlined
        def term(y, log_p):
            return y * l(log_p)

        @inlined
        def pull(y, log_p):
            return -y * d_l(log_p)

    return target, term, pull


def _held(real, storage, f, d_f, scalars, lanes, held):
    """The whole row in registers, `held` entries a thread, those beyond its end taking no part."""
    encode = encoder(real, storage)
    target, term, pull = scalars
    row_sum, row_max = over_row(plus, lanes), over_row(larger, lanes)
    numbers, rows_of_warp, low = tuple(range(held)), WARP // lanes, real(-math.inf)

    @inlined
    def logit(k, z, b, i, lane):
        j = lane + k * lanes
        return z[i, j] + b[j] if j < z.shape[1] else real(0)

    @inlined
    def activate(k, t, lane, n):
        return f(t) if lane + k * lanes < n else low

    @inlined
    def above(a, top):
        return exp(a - top)

    @inlined
    def target_of(k, y, i, lane, n):
        j = lane + k * lanes
        return target(y, i, j) if j < n else real(0)

    @inlined
    def term_of(k, a, y, top, logsum, lane, n):
        return term(y, a - top - logsum) if lane + k * lanes < n else real(0)

    @inlined
    def pull_of(k, a, y, top, logsum, lane, n):
        return pull(y, a - top - logsum) if lane + k * lanes < n else real(0)

    @inlined
    def put(k, t, e, q, delta, i, lane, factor, inverse):
        j = lane + k * lanes
        if j < delta.shape[1]:
            delta[i, j] = encode(factor * d_softmax(e, q, inverse) * d_f(t))
        return k

    def kernel(z, b, y, w, stats, scaling, delta, losses):
        batch, n = z.shape
        scale = real(per_weight(stats)) * real(scaling[SCALE])
        thread, threads = cuda.grid(1), cuda.gridsize(1)
        lane = thread % lanes
        for first in range(thread // WARP * rows_of_warp, batch, threads // WARP * rows_of_warp):
            row = first + thread % WARP // lanes
            i = min(row, batch - 1)  # a warp goes together; rows beyond the last are not written
            t = each(logit, (numbers,), (z, b, i, lane))
            a = each(activate, (numbers, t), (lane, n))
            top = row_max(fold(larger, a))
            e = each(above, (a,), (top,))
            total = row_sum(fold(plus, e))
            targets = each(target_of, (numbers,), (y, i, lane, n))
            logsum = real(math.log(total))
            pulls = each(pull_of, (numbers, a, targets), (top, logsum, lane, n))
            mass = row_sum(fold(plus, pulls))
            value = row_sum(fold(plus, each(term_of, (numbers, a, targets), (top, logsum, lane, n))))
            if row < batch:
                each(put, (numbers, t, e, pulls), (delta, i, lane, w[i] * scale, mass / total))
                if lane == 0:
                    losses[i, 0] = w[i] * value

    return kernel


def _walked(real, storage, f, d_f, scalars, lanes, held):
    """Three walks over the row: its maximum and sum together, rescaled where the maximum rises; loss; delta."""
    encode = encoder(real, storage)
    target, term, pull = scalars
    row_sum, row_max = over_row(plus, lanes), over_row(larger, lanes)
    rows_of_warp, low = WARP // lanes, real(-math.inf)

    def kernel(z, b, y, w, stats, scaling, delta, losses):
        batch, n = z.shape
        scale = real(per_weight(stats)) * real(scaling[SCALE])
        thread, threads = cuda.grid(1), cuda.gridsize(1)
        lane = thread % lanes
        for first in range(thread // WARP * rows_of_warp, batch, threads // WARP * rows_of_warp):
            row = first + thread % WARP // lanes
            i = min(row, batch - 1)  # a warp goes together; rows beyond the last are not written
            highest, mine = low, real(0)
            for j in range(lane, n, lanes):
                a = f(z[i, j] + b[j])
                # exp(-|a - highest|) rescales the sum or is the new term; 1 where both are infinite alike
                e = real(1) if a == highest else exp(-abs(a - highest))
                mine = mine * e + real(1) if a > highest else mine + e
                highest = larger(a, highest)
            top = row_max(highest)
            total = row_sum(mine if highest == top else mine * exp(highest - top))
            total += top - top  # NaN where a logit is infinite, as in the sum of exp(a - top)
            logsum = real(math.log(total))
            mass, value = real(0), real(0)
            for j in range(lane, n, lanes):
                log_p, wanted = f(z[i, j] + b[j]) - top - logsum, target(y, i, j)
                mass += pull(wanted, log_p)
                value += term(wanted, log_p)
            factor, inverse, value = w[i] * scale, row_sum(mass) / total, row_sum(value)
            if row < batch:
                for j in range(lane, n, lanes):
                    t = z[i, j] + b[j]
                    a = f(t) - top
                    q = pull(target(y, i, j), a - logsum)
                    delta[i, j] = encode(factor * d_softmax(exp(a), q, inverse) * d_f(t))
            if lane == 0 and row < batch:
                losses[i, 0] = w[i] * value

    return kernel
