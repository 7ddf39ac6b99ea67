"""Muon's launches for one matrix beside the products: momentum and norm, direction, polynomial, step."""

from __future__ import annotations

import math

from numba import cuda, float64

from gpubp.kernels.mathematics import inlined
from gpubp.kernels.muon import LEAST_NORM, A, between, momentum_of, polynomial, step_of, stepped
from gpubp.kernels.optimizers import FACTOR
from gpubp.kernels.replay import OVERFLOWED, STOPPED

from .geometry import CHUNK, THREADS
from .reductions import block_sum
from .storage import loader, saver
from .vectors import each, fold, plus


def _move(real, width):
    """step(g, m, i, factor, rest, pull): one vector of M moved, in place; the sum of U^2 over it."""
    load, save = loader(real, real, width), saver(real, real, width)

    @inlined
    def moved(m, g, factor, rest):
        return between(m, factor * g, rest)

    @inlined
    def square(g, m, factor, pull):
        u = float64(between(factor * g, m, pull))
        return u * u

    @inlined
    def step(g, m, i, factor, rest, pull):
        gradient = load(g, i)
        new = each(moved, (load(m, i), gradient), (factor, rest))
        save(m, i, new)
        return fold(plus, each(square, (gradient, new), (factor, pull)))

    return step


def muon_momentum(real, width=1):
    """M += (1 - mu) (factor G - M); partials = U^2 summed over chunks in float64. When stopped M stays.

    g, m (n,) of `real`, m in place; hyper float64, counters int64, c of the group; partials (chunks,) float64 written.
    Blocks of THREADS.
    """
    wide, single, total = _move(real, width), _move(real, 1), block_sum(float64)

    def kernel(g, m, hyper, counters, c, partials):
        if counters[STOPPED] == 0 and counters[OVERFLOWED] == 0:
            t, n, factor = cuda.threadIdx.x, g.shape[0], c[FACTOR]
            rest, pull = momentum_of(real, hyper)
            for k in range(cuda.blockIdx.x, partials.shape[0], cuda.gridDim.x):
                end = min(n, (k + 1) * CHUNK)
                whole = end - end % width
                mine = float64(0)
                for i in range(k * CHUNK + t * width, whole, THREADS * width):
                    mine += wide(g, m, i, factor, rest, pull)
                for i in range(whole + t, end, THREADS):
                    mine += single(g, m, i, factor, rest, pull)
                value = total(mine)
                if t == 0:
                    partials[k] = value

    return kernel


def _scale(real, storage, width):
    """step(g, m, x, i, factor, pull, inverse): one vector of X."""
    load, save = loader(real, real, width), saver(real, storage, width)

    @inlined
    def lane(g, m, factor, pull, inverse):
        return inverse * between(factor * g, m, pull)

    @inlined
    def step(g, m, x, i, factor, pull, inverse):
        save(x, i, each(lane, (load(g, i), load(m, i)), (factor, pull, inverse)))

    return step


def muon_scale(real, storage, width=1):
    """X = U / max(|U|, 1e-7) for the partials of `muon_momentum`, which every block adds up in the same order.

    g, m (n,) of `real`; x (n,) of `storage` written; hyper and partials float64, c of the group. Blocks of THREADS.
    """
    wide, single = _scale(real, storage, width), _scale(real, storage, 1)
    total = block_sum(float64)

    def kernel(g, m, x, hyper, c, partials):
        mine = float64(0)
        for k in range(cuda.threadIdx.x, partials.shape[0], THREADS):
            mine += partials[k]
        inverse = real(1 / max(math.sqrt(total(mine)), LEAST_NORM))
        factor = c[FACTOR]
        _, pull = momentum_of(real, hyper)
        first, threads, n = cuda.grid(1), cuda.gridsize(1), g.shape[0]
        whole = n - n % width
        for i in range(first * width, whole, threads * width):
            wide(g, m, x, i, factor, pull, inverse)
        for i in range(whole + first, n, threads):
            single(g, m, x, i, factor, pull, inverse)

    return kernel


def muon_polynomial(real, storage, width=1):
    """square = a I + b gram + c square, in place: gram, square (n, n) of `storage`."""
    load, save, lanes = loader(real, storage, width), saver(real, storage, width), tuple(range(width))

    @inlined
    def lane(gram, square, k, diagonal):
        value = polynomial(gram, square)
        return value + real(A) if k == diagonal else value

    def kernel(gram, square):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        n = gram.shape[0]
        for i in range(row, n, rows):
            for j in range(column * width, n, columns * width):
                place = i * n + j
                vectors = load(gram, place), load(square, place), lanes
                save(square, place, each(lane, vectors, (i - j,)))

    return kernel


def _advance(real, storage, copied, width):
    """step(w, x, copy, i, decay, step): one vector of W, and of its copy."""
    load, load_x, save = loader(real, real, width), loader(real, storage, width), saver(real, real, width)
    save_copy = None if copied is None else saver(real, copied, width)

    @inlined
    def copy_too(copy, i, new):
        if save_copy is not None:
            save_copy(copy, i, new)

    @inlined
    def step(w, x, copy, i, decay, size):
        new = each(stepped, (load(w, i), load_x(x, i)), (decay, size))
        save(w, i, new)
        copy_too(copy, i, new)

    return step


def muon_step(real, storage, copied, width=1):
    """W = W - lr decay W - lr scale X, in place, and W once more as `copied`; nothing when stopped.

    w (n,) of `real`, x (n,) of `storage`, scale (1,) float64, counters, c of the group; copy (n,) of `copied` written,
    or empty of `real` where `copied` is None: products then read W itself.
    """
    wide, single = _advance(real, storage, copied, width), _advance(real, storage, copied, 1)

    def kernel(w, x, scale, counters, c, copy):
        if counters[STOPPED] == 0 and counters[OVERFLOWED] == 0:
            decay, size = step_of(real, c, scale[0])
            first, threads, n = cuda.grid(1), cuda.gridsize(1), w.shape[0]
            whole = n - n % width
            for i in range(first * width, whole, threads * width):
                wide(w, x, copy, i, decay, size)
            for i in range(whole + first, n, threads):
                single(w, x, copy, i, decay, size)

    return kernel
