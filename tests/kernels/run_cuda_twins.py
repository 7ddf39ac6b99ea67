"""Runs every CUDA twin in Numba's simulator beside its CPU twin on the same inputs; `test_cuda_twins.py` starts it.

Needs NUMBA_ENABLE_CUDASIM=1 in the environment of its process. Grids are smaller than the data, so that every loop
takes more than one stride. Prints how many comparisons held; an assertion ends it otherwise.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numba import config

from gpubp.backend.launch import make_row
from gpubp.kernels import batches, cuda, cuda_losses, dense, loss_passes, optimizers
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.compile import cpu_kernel
from gpubp.kernels.cuda import cuda_kernel
from gpubp.kernels.losses import LOSSES, STATS, WEIGHT
from gpubp.kernels.optimizers import RULES
from gpubp.kernels.reductions import block_count
from gpubp.kernels.replay import COUNTERS, CURSOR, GRADIENT_NOT_FINITE, LOSS_NOT_FINITE, STEP, STOPPED

assert config.ENABLE_CUDASIM, "expected NUMBA_ENABLE_CUDASIM=1"

THREADS = cuda_losses.THREADS = 32  # the simulator starts a thread of the system for each of its own
SHAPES = ((0, 3), (1, 1), (1, 5), (13, 7), (70, 3))
GRID_2D, GRID_1D, ONE = ((2, 2), (3, 2)), (3, 5), (1, THREADS)
rng = np.random.default_rng(0)
held = 0


def array(*shape: int, dtype: Any) -> Any:
    return (2 * rng.standard_normal(shape)).astype(dtype)


def same(found: Any, expected: Any, what: str, exact: bool = False) -> None:
    """Equal to rounding: each twin may contract products and sums into one instruction or not."""
    global held
    if exact or expected.dtype.kind == "i":
        np.testing.assert_array_equal(found, expected, err_msg=what)
    else:
        eps = np.finfo(expected.dtype).eps
        size = max(1.0, np.abs(expected).max(initial=0.0))
        np.testing.assert_allclose(found, expected, rtol=40 * eps, atol=40 * eps * size, err_msg=what)
    held += 1


def cpu(factory: Any, dtype: Any, operands: tuple[Any, ...], *scalars: Any, integers: Any = ()) -> None:
    row = make_row(operands, integers)
    cpu_kernel(factory, dtype, *scalars).ctypes(row.ctypes.data)


def check_dense(dtype: Any, batch: int, n: int) -> None:
    blocks = max(block_count(batch, n), min(3, batch))
    for name, g in ACTIVATIONS.items():
        if batch not in (1, 13) and name not in ("tanh", "gelu"):
            continue
        z, b, upstream = array(batch, n, dtype=dtype), array(n, dtype=dtype), array(batch, n, dtype=dtype)
        mine, theirs = z.copy(), z.copy()
        cuda_kernel(cuda.bias_activation, dtype, g.f)[GRID_2D](mine, b)
        cpu(dense.bias_activation, dtype, (theirs, b), g.f)
        same(mine, theirs, f"bias_activation {name} {z.shape}")
        z_mine, z_theirs, a_mine, a_theirs = z.copy(), z.copy(), np.empty_like(z), np.empty_like(z)
        cuda_kernel(cuda.bias_activation_keep, dtype, g.f)[GRID_2D](z_mine, b, a_mine)
        cpu(dense.bias_activation_keep, dtype, (z_theirs, b, a_theirs), g.f)
        same(z_mine, z_theirs, f"bias_activation_keep {name} {z.shape}, z")
        same(a_mine, a_theirs, f"bias_activation_keep {name} {z.shape}, a")
        for saved, d_f in ((z_theirs, g.d_f), (a_theirs, g.d_f_of_output)):
            if d_f is None:
                continue
            mine, theirs = upstream.copy(), upstream.copy()
            partials, db, expected = np.full((blocks, n), 7, dtype), np.full(n, 7, dtype), np.empty(n, dtype)
            cuda_kernel(cuda.delta, dtype, d_f)[GRID_2D](mine, saved, partials)
            cuda_kernel(cuda.sum_partials, dtype)[GRID_1D](partials, db)
            cpu(dense.delta, dtype, (theirs, saved, expected, np.empty_like(partials)), d_f)
            same(mine, theirs, f"delta {d_f.__name__} {z.shape}")
            same(db, expected, f"delta {d_f.__name__} {z.shape}, db")


def check_loss(name: str, link: str, dtype: Any, batch: int, n: int, labels: bool, weigh: float) -> None:
    loss, g, blocks = LOSSES[name], ACTIVATIONS[link], max(block_count(batch, n), min(3, batch))
    z, b = array(batch, n, dtype=dtype), array(n, dtype=dtype)
    y = rng.integers(0, n, batch) if labels else rng.random((batch, n)).astype(dtype)
    w = (weigh * rng.random(batch)).astype(dtype)
    mine, theirs, db, expected = z.copy(), z.copy(), np.full(n, 7, dtype), np.full(n, 7, dtype)
    partials = np.full((2 * blocks, n), 7, dtype)
    state, reference = ((np.array([7, 7, 3.0, 2.0]), np.zeros(COUNTERS, np.int64)) for _ in range(2))
    sums, gradients = partials[:blocks], partials[blocks:]
    cuda_kernel(cuda_losses.reduce_weights, dtype)[ONE](w, state[0])
    if loss.l is None:
        sums = np.full((batch, 1), 7, dtype)
        kernel = cuda_kernel(cuda_losses.softmax_cross_entropy, dtype, g.f, g.d_f, labels)
        kernel[GRID_1D](mine, b, y, w, state[0], sums)
        cuda_kernel(cuda.column_partials, dtype)[GRID_2D](mine, gradients)
        factory: Any = loss_passes.softmax_cross_entropy
        scalars: Any = (g.f, g.d_f, labels)
    else:
        factory, scalars = (
            loss_passes.elementwise_loss,
            (g.f, g.d_f, loss.l, loss.d_l, loss.mean_over_outputs),
        )
        kernel = cuda_kernel(cuda_losses.elementwise_loss, dtype, *scalars)
        kernel[GRID_2D](mine, b, y, w, state[0], sums, gradients)
    cuda_kernel(cuda.sum_partials, dtype)[GRID_1D](gradients, db)
    cuda_kernel(cuda_losses.finish_loss, dtype, n if loss.mean_over_outputs else 1)[ONE](sums, *state)
    cpu(factory, dtype, (theirs, b, y, w, expected, np.empty_like(partials), *reference), *scalars)
    what = f"{name} of {link} {z.shape} labels={labels} weights up to {weigh}"
    same(mine, theirs, what)
    same(db, expected, f"{what}, db")
    same(state[1], reference[1], f"{what}, counters")
    eps = 40 * np.finfo(dtype).eps  # the sums are float64, their terms are not
    np.testing.assert_allclose(state[0], reference[0], rtol=eps, atol=eps, err_msg=what)


def check_loss_stops(dtype: Any) -> None:
    """A loss that is not finite sets STOPPED and stays out of the epoch's sums; an earlier cause stays."""
    for before, after in ((0, LOSS_NOT_FINITE), (GRADIENT_NOT_FINITE, GRADIENT_NOT_FINITE)):
        stats, counters = np.ones(STATS), np.zeros(COUNTERS, np.int64)
        counters[STOPPED] = before
        sums = np.full((2, 3), np.nan, dtype)
        cuda_kernel(cuda_losses.finish_loss, dtype, 1)[ONE](sums, stats, counters)
        assert counters[STOPPED] == after
        assert np.isnan(stats[0])
        assert (stats[WEIGHT:] == 1).all()


def check_update(name: str, dtype: Any, n: int, bad: float | None) -> None:
    rule = RULES[name]
    hyper = np.array([1e-2, 0.5, 0.1, 0.9, 0.7, 1e-6])
    g = array(n, dtype=dtype)
    if bad is not None:
        g[n // 2] = bad
    buffers = [
        array(n, dtype=dtype),
        *(abs(array(n if k < rule.slots else 0, dtype=dtype)) for k in range(2)),
    ]
    mine, theirs = [a.copy() for a in buffers], [a.copy() for a in buffers]
    counters, reference = (np.array([0, 4, 0], np.int64) for _ in range(2))
    c = np.full(cuda.COEFFICIENTS, 7, dtype)
    cuda_kernel(cuda.prepare_update, dtype, rule.coefficients)[GRID_1D](g, hyper, counters, c)
    kernel = cuda_kernel(cuda.update, dtype, rule.slots, rule.coefficients, rule.step)
    kernel[GRID_1D](mine[0], g, *mine[1:], hyper, counters, c)
    blocks = np.zeros(max(1, -(-n // optimizers.BLOCK)), np.int64)
    scalars = (rule.slots, rule.coefficients, rule.step)
    cpu(optimizers.update, dtype, (theirs[0], g, *theirs[1:], hyper, reference, blocks), *scalars)
    assert (counters[STOPPED] == 0) == (bad is None)
    same(counters, reference, f"update {name}, counters")
    for k in range(3):
        same(mine[k], theirs[k], f"update {name} of {n}, buffer {k}")
        if bad is not None:
            same(mine[k], buffers[k], f"stopped update {name} of {n}, buffer {k}", exact=True)


def check_batches(dtype: Any, batch: int, n: int) -> None:
    counters = np.zeros(COUNTERS, np.int64)
    counters[CURSOR], examples = 2, batch + 5
    source, order = array(examples, n, dtype=dtype), rng.permutation(examples)
    out, expected = np.empty((batch, n), dtype), np.empty((batch, n), dtype)
    cuda_kernel(cuda.gather, dtype)[GRID_2D](source, order, out, counters)
    cpu(batches.gather, dtype, (source, order, expected, counters))
    same(out, expected, "gather", exact=True)
    same(out, source[order[2 : 2 + batch]], "gather by indexing", exact=True)
    for stopped in (0, LOSS_NOT_FINITE):
        for step in (0, 9, 11, 12, 40):
            counters = np.array([5, step, stopped], np.int64)
            reference, hyper, other = counters.copy(), np.array([9.0, 1.0]), np.array([9.0, 1.0])
            rates = np.array([0.1, 0.2, 0.3])
            cuda_kernel(cuda.advance, np.float64)[GRID_1D](counters, hyper, rates, 8, 10)
            cpu(batches.advance, np.float64, (reference, other, rates), integers=(8, 10))
            same(counters, reference, "advance, counters")
            same(hyper, other, "advance, hyper", exact=True)
            assert counters[STEP] == step + (stopped == 0)


def main() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # plain Python warns of overflow, compiled code does not
        for dtype in (np.float32, np.float64):
            for batch, n in SHAPES:
                check_batches(dtype, batch, n)
                if dtype is np.float32 or batch == 13:
                    check_dense(dtype, batch, n)
                for name in LOSSES:
                    links = ("identity", "tanh") if batch == 13 else ("identity",)
                    for link in links:
                        check_loss(name, link, dtype, batch, n, False, 1.0)
                        if name == "softmax_cross_entropy":
                            check_loss(name, link, dtype, batch, n, True, 1.0)
                check_loss("sse", "identity", dtype, batch, n, False, 0.0)
            check_loss_stops(dtype)
            for name in RULES:
                for size in (0, 1, 41):
                    check_update(name, dtype, size, None)
                for bad in (np.nan, np.inf, -np.inf):
                    check_update(name, dtype, 41, bad)
    print(f"{held} comparisons held")


if __name__ == "__main__":
    main()
