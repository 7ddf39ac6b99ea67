"""Runs every CUDA kernel in Numba's simulator beside its CPU twin on the same inputs; `test_cuda_twins.py` starts it.

    NUMBA_ENABLE_CUDASIM=1 [GPUBP_TILE=32x8] python tests/kernels/run_cuda_twins.py [few]

Every storage (float32, float64, float16, bfloat16), plain and wide, shapes of 0, 1, odd and no multiple of a block,
grids smaller than the data, NaN and infinity. Blocks have 8x4 threads, on a GPU 32x8; GPUBP_TILE sets that,
`few` takes only shapes that fill several such blocks. Prints how many comparisons held; an assertion ends it otherwise.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import cuda_shim
import cuda_twins
import numpy as np
from cuda_twins import STORAGES, Storage, cpu, rng, same, short

# The shim comes first: what follows takes its functions.
from numba import float32
from own import OWN

from gpubp.kernels import dense as cpu_dense
from gpubp.kernels import dropout, loss_passes
from gpubp.kernels import gated as cpu_gated
from gpubp.kernels import sums as cpu_sums
from gpubp.kernels.activations import ACTIVATIONS as BUILT_IN
from gpubp.kernels.cuda import dense, gated, geometry, losses, reductions, softmax, sums
from gpubp.kernels.cuda import dropout as cuda_dropout
from gpubp.kernels.loss_scale import SCALE, SCALING
from gpubp.kernels.losses import LOSSES, STATS, WEIGHT
from gpubp.kernels.reductions import granule_count
from gpubp.kernels.replay import COUNTERS, GRADIENT_NOT_FINITE, LOSS_NOT_FINITE, STEP, STOPPED

ACTIVATIONS = BUILT_IN | OWN

launch = cuda_shim.launch
SHAPES = ((0, 3), (1, 1), (13, 7), (5, 16), (37, 40), (3, 80))


def blocks_of(batch: int, n: int) -> int:
    return max(geometry.row_blocks(batch, n), min(3, batch))


def sum_columns(s: Storage, x: Any, wide: bool) -> Any:
    """db by both stages, from the matrix x."""
    batch, n = x.shape
    blocks = blocks_of(batch, n)
    partials, db = np.full((blocks, n), 7, s.dtype), np.full(n, 7, s.dtype)
    w = s.width(n, wide)
    layout = short(geometry.columns(blocks, n, w))
    launch(reductions.column_partials, s.types, (w,), layout, x, partials)
    return sum_partials(s, partials, db, wide)


def sum_partials(s: Storage, partials: Any, db: Any, wide: bool) -> Any:
    n = len(db)
    w = geometry.width([db.itemsize], n) if wide else 1
    launch(reductions.sum_partials, (s.real,), (w,), short(geometry.columns(1, n, w)), partials, db)
    return db


def check_dense(s: Storage, batch: int, n: int, wide: bool, names: Any) -> None:
    w = s.width(n, wide)
    for name in names:
        g, what = ACTIVATIONS[name], f"{name} {batch}x{n} {s.name} wide={wide}"
        z, b, upstream = s.array(batch, n), s.array(n), s.array(batch, n)
        if batch == 13:
            z[2, 1], z[3, 2], z[4, 3], upstream[5, 1] = np.nan, np.inf, -np.inf, np.nan
        mine, theirs, layout = s.store(z), z.copy(), short(geometry.elementwise(batch, n, w))
        launch(dense.bias_activation, s.types, (g.f, w), layout, mine, s.store(b))
        cpu(cpu_dense.bias_activation, s.dtype, (theirs, b), g.f)
        same(s.load(mine), theirs, f"bias_activation {what}", rounding=s.rounding)
        z_mine, a_mine, derivative, a_theirs = s.store(z), s.store(0 * z), z.copy(), np.empty_like(z)
        launch(dense.bias_activation_keep, s.types, (g.f, w), layout, z_mine, s.store(b), a_mine)
        cpu(cpu_dense.bias_activation_keep, s.dtype, (derivative, b, a_theirs), g.f, g.d_f)
        # A GPU keeps z + b, the CPU f'(z + b), which its delta takes as it is.
        same(s.load(z_mine), z + b, f"bias_activation_keep {what}, z", rounding=s.rounding)
        same(s.load(a_mine), a_theirs, f"bias_activation_keep {what}, a", rounding=s.rounding)
        check_delta(s, upstream, z_mine, g.d_f, w, wide, what)
        if g.d_f_of_output is not None:
            check_delta(s, upstream, a_mine, g.d_f_of_output, w, wide, what)
        if s.stored == s.dtype:  # else the derivative is that of a z before rounding
            check_delta(s, upstream, z_mine, g.d_f, w, wide, what, derivative)


def check_dropout(s: Storage, batch: int, n: int, wide: bool) -> None:
    """The same masks, bit for bit, alone and with bias and activation; what is not finite is not hidden."""
    w, g = s.width(n, wide), ACTIVATIONS["tanh"]
    for step, seed, layer, threshold, top in ((0, 0, 0, 13107, 0), (2**33 + 7, 2**61 + 11, 3, 32768, 5)):
        counters, what = np.zeros(COUNTERS, np.int64), f"dropout {batch}x{n} {s.name} wide={wide} step={step}"
        counters[STEP], integers = step, (seed, layer, threshold, top)
        x, b, layout = s.array(batch, n), s.array(n), short(geometry.elementwise(batch, n, w))
        if batch == 13:
            x[2, 1], x[3, 2] = np.nan, np.inf
        mine, theirs = s.store(np.full((batch, n), 7, s.dtype)), np.empty((batch, n), s.dtype)
        launch(cuda_dropout.dropout, s.types, (w,), layout, s.store(x), mine, counters, *integers)
        cpu(dropout.dropout, s.dtype, (x, theirs, counters), integers=integers)
        same(s.load(mine), theirs, what, rounding=s.rounding)
        same((s.load(mine) == 0).astype(np.int64), (theirs == 0).astype(np.int64), f"{what}, masks")
        z, a, z_theirs, a_theirs = s.store(x), s.store(0 * x), x.copy(), np.empty_like(x)
        arguments = (z, s.store(b), a, counters, *integers)
        launch(cuda_dropout.bias_activation_dropout, s.types, (g.f, g.d_f, w), layout, *arguments)
        operands = (z_theirs, b, a_theirs, counters)
        cpu(dropout.bias_activation_dropout, s.dtype, operands, g.f, g.d_f, integers=integers)
        same(s.load(a), a_theirs, f"{what}, a", rounding=s.rounding)
        same(s.load(z), z_theirs, f"{what}, derivative", rounding=s.rounding)


def check_delta(
    s: Storage, upstream: Any, saved: Any, d_f: Any, w: int, wide: bool, what: str, derivative: Any = None
) -> None:
    batch, n = upstream.shape
    blocks = blocks_of(batch, n)
    mine, theirs, partials = s.store(upstream), upstream.copy(), np.full((blocks, n), 7, s.dtype)
    expected, scratch = np.empty(n, s.dtype), np.empty((granule_count(batch), n), s.dtype)
    layout = short(geometry.columns(blocks, n, w))
    launch(dense.delta, s.types, (d_f, w), layout, mine, saved, partials)
    db = sum_partials(s, partials, np.full(n, 7, s.dtype), wide)
    known, of = (s.load(saved), d_f) if derivative is None else (derivative, cpu_dense.given)
    cpu(cpu_dense.delta, s.dtype, (theirs, known, expected, scratch), of)
    same(s.load(mine), theirs, f"delta {what}", rounding=s.rounding)
    same(db, expected, f"delta {what}, db")
    x = s.load(mine)
    same(sum_columns(s, mine, wide), x.sum(axis=0), f"column sums {what}")


def check_gated(s: Storage, batch: int, n: int, wide: bool, names: Any) -> None:
    """Both ways, and the sum of two matrices."""
    w, blocks = s.width(n, wide), blocks_of(batch, 2 * n)
    for name in names:
        g, what = ACTIVATIONS[name], f"{name} {batch}x{n} {s.name} wide={wide}"
        z, b, upstream = s.array(batch, 2 * n), s.array(2 * n), s.array(batch, n)
        if batch == 13:
            z[2, 1], z[3, n + 2], z[4, 3], upstream[5, 1] = np.nan, np.inf, -np.inf, np.nan
        layout = short(geometry.elementwise(batch, n, w))
        plain, mine = (s.store(np.full((batch, n), 7, s.dtype)) for _ in range(2))
        kept = s.store(z)
        launch(gated.gated, s.types, (g.f, w), layout, s.store(z), s.store(b), plain)
        launch(gated.gated_keep, s.types, (g.f, g.d_f, w), layout, kept, s.store(b), mine)
        theirs, saved = np.empty((batch, n), s.dtype), z.copy()
        cpu(cpu_gated.gated_keep, s.dtype, (saved, b, theirs), g.f, g.d_f)
        same(s.load(plain), theirs, f"gated {what}", rounding=s.rounding)
        same(s.load(mine), theirs, f"gated_keep {what}, a", rounding=s.rounding)
        same(s.load(kept), saved, f"gated_keep {what}, kept", rounding=s.rounding)
        partials, expected = np.full((blocks, 2 * n), 7, s.dtype), np.empty(2 * n, s.dtype)
        saved, scratch = s.load(kept).copy(), np.empty((granule_count(batch), 2 * n), s.dtype)
        layout = short(geometry.columns(blocks, n, w))
        launch(gated.gated_delta, s.types, (w,), layout, s.store(upstream), kept, partials)
        cpu(cpu_gated.gated_delta, s.dtype, (upstream.copy(), saved, expected, scratch))
        same(s.load(kept), saved, f"gated_delta {what}", rounding=s.rounding)
        db = sum_partials(s, partials, np.full(2 * n, 7, s.dtype), wide)
        same(db, expected, f"gated_delta {what}, db")
    x, y = s.array(batch, n), s.array(batch, n)
    out, copy = (s.store(np.full((batch, n), 7, s.dtype)) for _ in range(2))
    total = np.empty_like(x)
    layout = short(geometry.elementwise(batch, n, w))
    launch(sums.add, s.types, (w,), layout, s.store(x), s.store(y), out)
    cpu(cpu_sums.add, s.dtype, (x, y, total))
    same(s.load(out), total, f"add {batch}x{n} {s.name} wide={wide}", rounding=s.rounding)
    launch(sums.clone, s.types[1:], (w,), layout, s.store(x), copy)
    same(s.load(copy), x, f"clone {batch}x{n} {s.name} wide={wide}", exact=True)


def softmax_variants(n: int, itemsize: int) -> list[tuple[int, int]]:
    lanes, held = geometry.softmax(n, itemsize)
    return list(dict.fromkeys([(lanes, held), (lanes, 0)] + [(32, 0), (8, 0), (32, 4)] * (n == 16)))


def check_loss(
    s: Storage,
    name: str,
    link: str,
    batch: int,
    n: int,
    wide: bool,
    *,
    labels: bool = False,
    weigh: float = 1.0,
) -> None:
    loss, g, blocks = LOSSES[name], ACTIVATIONS[link], blocks_of(batch, n)
    z, b = (2 * rng.standard_normal(shape).astype(s.dtype) for shape in ((batch, n), (n,)))
    y = rng.integers(0, n, batch) if labels else rng.random((batch, n)).astype(s.dtype)
    if batch == 5 and n == 16:
        z[1, 2], z[2, 3], z[3, 1], z[4, :] = np.nan, np.inf, -np.inf, -np.inf
    if batch == 37:
        z *= 30
    w, scaling = (weigh * rng.random(batch)).astype(s.dtype), np.zeros(SCALING)
    scaling[SCALE] = 64.0 if s.name == "float16" else 1.0
    theirs, expected = z.copy(), np.empty(n, s.dtype)
    scratch = np.empty((2 * granule_count(batch), n), s.dtype)
    reference = np.array([7, 7, 3.0, 2.0, 1.0]), np.zeros(COUNTERS, np.int64)
    factory, scalars = (
        (loss_passes.softmax_loss, (g.f, g.d_f, loss.l, loss.d_l, labels))
        if loss.softmax
        else (loss_passes.elementwise_loss, (g.f, g.d_f, loss.l, loss.d_l, loss.mean_over_outputs))
    )
    cpu(factory, s.dtype, (theirs, b, y, w, expected, scratch, *reference), *scalars)
    for variant in softmax_variants(n, z.itemsize) if loss.softmax else [(s.width(n, wide, s.dtype),)]:
        what = f"{name} of {link} {z.shape} {s.name} {variant} labels={labels} weights up to {weigh}"
        state = np.array([7, 7, 3.0, 2.0, 1.0]), np.zeros(COUNTERS, np.int64)
        mine = z.copy()
        delta = mine if s.stored == s.dtype else np.empty((batch, n), s.stored)
        launch(losses.reduce_weights, (s.real,), (), geometry.one_block(), w, state[0])
        if loss.softmax:
            sums, layout = np.full((batch, 1), 7, s.dtype), short(geometry.softmax_rows(batch, variant[0]))
            arguments = (mine, b, y, w, state[0], scaling, delta, sums)
            launch(softmax.softmax_loss, s.types, (*scalars, *variant), layout, *arguments)
            db = sum_columns(s, delta, wide)
        else:
            sums = np.full((blocks, geometry.tiles(n, *variant)), 7, s.dtype)
            gradients, layout = np.full((blocks, n), 7, s.dtype), short(geometry.columns(blocks, n, *variant))
            arguments = (mine, b, y, w, state[0], scaling, delta, sums, gradients)
            launch(losses.elementwise_loss, s.types, (*scalars, *variant), layout, *arguments)
            db = sum_partials(s, gradients, np.full(n, 7, s.dtype), wide)
        mean_over = n if loss.mean_over_outputs else 1
        launch(losses.finish_loss, (s.real,), (mean_over,), geometry.one_block(), sums, *state)
        same(s.load(delta), scaling[SCALE].astype(s.dtype) * theirs, what, rounding=s.rounding)
        if loss.softmax:
            same(db, s.load(delta).sum(axis=0), f"{what}, db")
        else:
            same(db, scaling[SCALE].astype(s.dtype) * expected, f"{what}, db")
        same(state[1], reference[1], f"{what}, counters")
        eps = 40 * np.finfo(s.dtype).eps  # the sums are float64, their terms are not
        np.testing.assert_allclose(state[0], reference[0], rtol=eps, atol=eps, err_msg=what)


def check_loss_stops() -> None:
    """A loss that is not finite sets STOPPED and stays out of the epoch's sums; an earlier cause stays."""
    for before, after in ((0, LOSS_NOT_FINITE), (GRADIENT_NOT_FINITE, GRADIENT_NOT_FINITE)):
        stats, counters = np.ones(STATS), np.zeros(COUNTERS, np.int64)
        counters[STOPPED] = before
        sums = np.full((2, 3), np.nan, np.float32)
        launch(losses.finish_loss, (float32,), (1,), geometry.one_block(), sums, stats, counters)
        assert counters[STOPPED] == after
        assert np.isnan(stats[0])
        assert (stats[WEIGHT:] == 1).all()


def main(few: bool) -> None:
    import cuda_twins_of_norms as norms
    import cuda_twins_of_updates as updates

    for s in STORAGES:
        for batch, n in ((41, 264),) if few else SHAPES:
            for wide in (False, True):
                if wide and s.width(n, True) == 1:
                    continue
                updates.check_batches(s, batch, n, wide)
                names = ACTIVATIONS if batch in (5, 13) and s.stored == s.dtype else ("tanh", "gelu")
                check_dense(s, batch, n, wide, names)
                check_gated(s, batch, n, wide, ("silu", "gelu") if s.stored == s.dtype else ("silu",))
                check_dropout(s, batch, n, wide)
                if batch != 37:  # rows that need several strides are those of 80 and 264 columns
                    norms.check_rows(s, batch, n, wide)
                    norms.check_columns(s, batch, n, wide)
                for name in LOSSES if s.stored == s.dtype else ("mse", "softmax_cross_entropy", "focal"):
                    for link in ("identity", "tanh") if batch == 13 else ("identity",):
                        check_loss(s, name, link, batch, n, wide)
                        if LOSSES[name].softmax:
                            check_loss(s, name, link, batch, n, wide, labels=True)
                check_loss(s, "sse", "identity", batch, n, wide, weigh=0.0)
        updates.check_all(s, few)
    check_loss_stops()
    print(f"{cuda_twins.held} comparisons held")


if __name__ == "__main__":
    with warnings.catch_warnings():
        # plain Python warns of overflow, compiled code does not
        warnings.simplefilter("ignore", RuntimeWarning)
        main("few" in sys.argv[1:])
