"""Sums in an order that depends on the shape alone: of columns, of a row, of a block of threads; and all_finite."""

from __future__ import annotations

from numba import cuda

from gpubp.kernels.mathematics import inlined

from .geometry import LANES, ROWS, THREADS
from .storage import loader, saver
from .vectors import each, fold, plus, zeros

WARP, ALL = 32, 0xFFFFFFFF


def tile_sum(real, width):
    """total(mine): one vector a thread of a LANES x ROWS block, summed over its rows in order; whole blocks call it."""
    numbers = tuple(range(width))

    @inlined
    def put(k, value, shared, x, y):
        shared[k, y, x] = value
        return value

    @inlined
    def take(k, shared, x):
        value = shared[k, 0, x]
        for y in range(1, ROWS):
            value += shared[k, y, x]
        return value

    @inlined
    def total(mine):
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        shared = cuda.shared.array((width, ROWS, LANES), real)
        cuda.syncthreads()  # the sum before this one has been read
        each(put, (numbers, mine), (shared, x, y))
        cuda.syncthreads()
        return each(take, (numbers,), (shared, x))

    return total


def over_row(combine, lanes):
    """total(mine): `combine` over the `lanes` threads of a row, the same bits in each; whole warps call it."""

    @inlined
    def total(mine):
        distance = lanes // 2
        while distance > 0:
            mine = combine(mine, cuda.shfl_xor_sync(ALL, mine, distance))
            distance //= 2
        return mine

    return total


def block_sum(real):
    """total(mine): one number per thread of a block of THREADS, summed by halves; whole blocks call it."""

    @inlined
    def total(mine):
        t = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
        shared = cuda.shared.array(THREADS, real)
        cuda.syncthreads()  # the sum before this one has been read
        shared[t] = mine
        cuda.syncthreads()
        step = THREADS // 2
        while step > 0:
            if t < step:
                shared[t] += shared[t + step]
            cuda.syncthreads()
            step //= 2
        return shared[0]

    return total


def _column_sums(real, storage, width):
    """walk(x, out, blocks): out (blocks, n) = sums of each column of x over each block of rows."""
    load, save = loader(real, storage, width), saver(real, real, width)
    over_rows, zero, tile = tile_sum(real, width), zeros(real, width), LANES * width

    @inlined
    def walk(x, out, blocks):
        batch, n = x.shape
        size = (batch + blocks - 1) // blocks
        for k in range(cuda.blockIdx.y, blocks, cuda.gridDim.y):
            for first in range(cuda.blockIdx.x * tile, n, cuda.gridDim.x * tile):
                j = first + cuda.threadIdx.x * width
                total = zero
                if j < n:
                    for i in range(k * size + cuda.threadIdx.y, min(batch, (k + 1) * size), ROWS):
                        total = each(plus, (total, load(x, i * n + j)), ())
                total = over_rows(total)
                if j < n and cuda.threadIdx.y == 0:
                    save(out, k * n + j, total)

    return walk


def column_partials(real, storage, width=1):
    """partials (blocks, n) of `real` = column sums of each block of rows of x (batch, n). Blocks of LANES x ROWS."""
    walk = _column_sums(real, storage, width)

    def kernel(x, partials):
        walk(x, partials, partials.shape[0])

    return kernel


def sum_partials(real, width=1):
    """out[j] = sum over k of partials[k, j]: the second stage. Blocks of LANES x ROWS."""
    walk = _column_sums(real, real, width)

    def kernel(partials, out):
        walk(partials, out, 1)

    return kernel


def not_finite(real, width):
    """found(vector): whether one of its lanes is NaN or infinite."""

    @inlined
    def lane(x):
        return x - x

    @inlined
    def found(vector):
        return fold(plus, each(lane, (vector,), ())) != real(0)

    return found


def all_finite(real, storage, width=1):
    """flag[0] = 0 where an element of x (n,) is NaN or infinite, else left alone; flag (1,) int64."""
    load, load_one = loader(real, storage, width), loader(real, storage, 1)
    bad, bad_one = not_finite(real, width), not_finite(real, 1)

    def kernel(x, flag):
        first, threads, n = cuda.grid(1), cuda.gridsize(1), x.shape[0]
        whole = n - n % width
        for i in range(first * width, whole, threads * width):
            if bad(load(x, i)):
                flag[0] = 0
        for i in range(whole + first, n, threads):
            if bad_one(load_one(x, i)):
                flag[0] = 0

    return kernel
