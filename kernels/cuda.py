"""The CUDA twins of the kernels: the same scalar functions inside grid-stride loops over device arrays.

Import this module only where CUDA is wanted: it needs `numba.cuda`, which nothing else here imports. A factory
`factory(real, *scalars)` returns the kernel as a Python function and `cuda_kernel` compiles it.

Matrices are 2-D and C-contiguous; labels and weights are vectors. Kernels over a matrix take a 2-D grid, x along its
columns, the others a 1-D one, of any size. Sums run over fixed blocks of rows, without atomics, so that their bits
depend on the shapes alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cuda
from numba.extending import register_jitable

from .compile import NUMBA_TYPES
from .optimizers import GRADIENT_FACTOR
from .replay import CURSOR, GRADIENT_NOT_FINITE, STEP, STOPPED


@functools.cache
def cuda_kernel(factory: Callable[..., Any], dtype: npt.DTypeLike, *scalars: Any) -> Any:
    """The kernel of `factory` over `dtype`, compiled when it is first launched: kernel[grid, block, stream](...)."""
    return cuda.jit(factory(NUMBA_TYPES[np.dtype(dtype)], *scalars))


# ---- dense -----------------------------------------------------------------------------------------------


def bias_activation(real, f):
    """a = f(z + b), in place over z (batch, n); b (n,)."""

    def kernel(z, b):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        for i in range(row, z.shape[0], rows):
            for j in range(column, z.shape[1], columns):
                z[i, j] = f(z[i, j] + b[j])

    return kernel


def bias_activation_keep(real, f):
    """z += b and a = f(z): z (batch, n) in place, b (n,), a (batch, n) written."""

    def kernel(z, b, a):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        for i in range(row, z.shape[0], rows):
            for j in range(column, z.shape[1], columns):
                t = z[i, j] + b[j]
                z[i, j] = t
                a[i, j] = f(t)

    return kernel


def delta(real, d_f):
    """BP2: delta = upstream * f', in place over upstream (batch, n); saved (batch, n) is the z or the a that d_f takes.

    BP3, first stage: partials (blocks, n) = column sums of each block of rows; `sum_partials` makes db of them.
    """

    def kernel(upstream, saved, partials):
        column, block = cuda.grid(2)
        columns, blocks = cuda.gridsize(2)
        batch, n = upstream.shape
        size = (batch + partials.shape[0] - 1) // partials.shape[0]
        for k in range(block, partials.shape[0], blocks):
            for j in range(column, n, columns):
                total = real(0)
                for i in range(k * size, min(batch, (k + 1) * size)):
                    d = upstream[i, j] * d_f(saved[i, j])
                    upstream[i, j] = d
                    total += d
                partials[k, j] = total

    return kernel


# ---- reductions ------------------------------------------------------------------------------------------


def column_partials(real):
    """partials (blocks, n) = column sums of each block of rows of x (batch, n)."""

    def kernel(x, partials):
        column, block = cuda.grid(2)
        columns, blocks = cuda.gridsize(2)
        size = (x.shape[0] + partials.shape[0] - 1) // partials.shape[0]
        for k in range(block, partials.shape[0], blocks):
            for j in range(column, x.shape[1], columns):
                total = real(0)
                for i in range(k * size, min(x.shape[0], (k + 1) * size)):
                    total += x[i, j]
                partials[k, j] = total

    return kernel


def sum_partials(real):
    """out[j] = sum over k of partials[k, j], in the order of k."""

    def kernel(partials, out):
        for j in range(cuda.grid(1), partials.shape[1], cuda.gridsize(1)):
            total = partials[0, j]
            for k in range(1, partials.shape[0]):
                total += partials[k, j]
            out[j] = total

    return kernel


# ---- the update ------------------------------------------------------------------------------------------


@register_jitable
def _five(v):
    return v[0], v[1], v[2], v[3], v[4]


@register_jitable
def _eight(v):
    return v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]


COEFFICIENTS = 8  # numbers that a rule gets at most


def _count(coefficients: Callable[..., Any]) -> int:
    """How many numbers a rule's coefficients are."""
    return len(coefficients(float, [0.5] * 16, 1))


def prepare_update(real, coefficients):
    """Before `update`: c (COEFFICIENTS,) = the coefficients of this step; a gradient that is not finite stops the run.

    gradients (n,), hyper float64, counters int64, c written. Every thread that stops the run writes the same number.
    """
    count = _count(coefficients)

    def kernel(gradients, hyper, counters, c):
        first = cuda.grid(1)
        if first == 0:
            values = coefficients(real, hyper, counters[STEP] + 1)
            for k in range(count):
                c[k] = values[k]
        for i in range(first, gradients.shape[0], cuda.gridsize(1)):
            if gradients[i] - gradients[i] != real(0) and counters[STOPPED] == 0:
                counters[STOPPED] = GRADIENT_NOT_FINITE

    return kernel


def update(real, slots, coefficients, rule):
    """p, s0, s1 = rule(p, g, s0, s1) over flat buffers, in place; nothing at all once the run is stopped.

    p, gradients (n,); s0, s1 (n,), or empty where the rule has no such slot; hyper, counters; c of `prepare_update`.
    """
    load = _five if _count(coefficients) == 5 else _eight

    def kernel(p, gradients, s0, s1, hyper, counters, c):
        if counters[STOPPED] == 0:
            numbers = load(c)
            factor, zero = real(hyper[GRADIENT_FACTOR]), real(0)
            for i in range(cuda.grid(1), p.shape[0], cuda.gridsize(1)):
                a = s0[i] if slots > 0 else zero
                b = s1[i] if slots > 1 else zero
                new, a, b = rule(p[i], factor * gradients[i], a, b, numbers)
                p[i] = new
                if slots > 0:
                    s0[i] = a
                if slots > 1:
                    s1[i] = b

    return kernel


# ---- batches ---------------------------------------------------------------------------------------------


def gather(real):
    """out[i] = source[order[cursor + i]]: source (examples, n), order (examples,), out (batch, n) written, counters."""

    def kernel(source, order, out, counters):
        column, row = cuda.grid(2)
        columns, rows = cuda.gridsize(2)
        first = counters[CURSOR]
        for i in range(row, out.shape[0], rows):
            example = order[first + i]
            for j in range(column, out.shape[1], columns):
                out[i, j] = source[example, j]

    return kernel


def advance(real):
    """Ends a step: cursor += batch, step += 1, hyper[0] = rates[(step - start) mod steps]. One thread works."""

    def kernel(counters, hyper, rates, batch, start):
        if cuda.grid(1) == 0 and counters[STOPPED] == 0:
            counters[CURSOR] += batch
            counters[STEP] += 1
            k = counters[STEP] - start
            if k >= 0 and rates.shape[0] > 0:
                hyper[0] = rates[k % rates.shape[0]]

    return kernel
