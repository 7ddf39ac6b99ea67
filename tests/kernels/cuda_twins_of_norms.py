"""The comparisons of `run_cuda_twins.py` for LayerNorm, RMSNorm and BatchNorm."""

from __future__ import annotations

from typing import Any

import cuda_shim
import numpy as np
from cuda_twins import Storage, cpu, same, short

# The shim comes first: what follows takes its functions.
from gpubp.kernels import batch_norm as cpu_batch_norm
from gpubp.kernels import norms as cpu_norms
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.cuda import batch_norm, geometry, norms, reductions
from gpubp.kernels.reductions import granule_count
from gpubp.kernels.replay import COUNTERS, STOPPED

launch = cuda_shim.launch


def check_rows(s: Storage, batch: int, n: int, wide: bool) -> None:
    """Both norms forward and backward; what is not finite is where it is on the CPU."""
    w = s.width(n, wide, s.dtype)
    if wide and w == 1:
        return
    for name, center in (("tanh", True), ("gelu", False)):
        g, what = ACTIVATIONS[name], f"{name} center={center} {batch}x{n} {s.name} wide={wide}"
        x, upstream = s.array(batch, n), s.array(batch, n)
        gain, bias = (s.array(n).astype(s.dtype) for _ in range(2))
        if batch == 13:
            x[2, 1], x[3, 2], upstream[5, 1] = np.nan, np.inf, np.nan
        eps = np.array([1e-3], s.dtype)
        a, moments = s.store(0 * x), np.full((batch, cpu_norms.KEPT), 7, s.dtype)
        expected, known = np.empty_like(x), np.empty_like(moments)
        layout = short(geometry.warps(batch))
        arguments = (s.store(x), gain, bias, eps, a, moments)
        launch(norms.normalize, s.types, (g.f, center, w), layout, *arguments)
        cpu(cpu_norms.normalize, s.dtype, (x, gain, bias, eps, expected, known), g.f, center)
        same(moments, known, f"moments {what}")
        same(s.load(a), expected, f"normalize {what}", rounding=s.rounding)
        check_back(s, upstream, x, known, gain, bias, g, center, w, what)


def check_back(
    s: Storage,
    upstream: Any,
    x: Any,
    moments: Any,
    gain: Any,
    bias: Any,
    g: Any,
    center: bool,
    w: int,
    what: str,
) -> None:
    batch, n = x.shape
    blocks = max(geometry.row_blocks(batch, n), min(3, batch))
    mine, partials = s.store(upstream), np.full((2 * blocks, n), 7, s.dtype)
    arguments = (mine, s.store(x), moments, gain, bias)
    layout = short(geometry.columns(blocks, n, w))
    launch(norms.normalize_gradients, s.types, (g.d_f, w), layout, *arguments, partials)
    launch(norms.normalize_delta, s.types, (g.d_f, center, w), short(geometry.warps(batch)), *arguments)
    theirs, dgain, dbias = upstream.copy(), np.empty(n, s.dtype), np.full(n, 7, s.dtype)
    scratch = np.empty((2 * granule_count(batch), n), s.dtype)
    operands = (theirs, x, moments, gain, bias, dgain, dbias, scratch)
    cpu(cpu_norms.normalize_delta, s.dtype, operands, g.d_f, center)
    same(s.load(mine), theirs, f"normalize_delta {what}", rounding=s.rounding)
    for part, expected in ((partials[:blocks], dgain), (partials[blocks:], dbias)):
        if expected is dgain or center:
            found = np.full(n, 7, s.dtype)
            layout = short(geometry.columns(1, n, 1))
            launch(reductions.sum_partials, (s.real,), (1,), layout, part, found)
            same(found, expected, f"normalize_gradients {what}")


def check_columns(s: Storage, batch: int, n: int, wide: bool) -> None:
    """BatchNorm forward and backward, its running moments and what predictions make of them."""
    w = s.width(n, wide, s.dtype)
    if (wide and w == 1) or batch < 2:
        return
    for name in ("tanh", "gelu"):
        g, what = ACTIVATIONS[name], f"{name} {batch}x{n} {s.name} wide={wide}"
        x, upstream = s.array(batch, n), s.array(batch, n)
        gain, bias = (s.array(n).astype(s.dtype) for _ in range(2))
        if batch == 13:
            x[2, 1], upstream[5, 0] = np.nan, np.nan  # of an infinity the mean is inf or NaN, as rows are cut
        eps, blocks = np.array([1e-3], s.dtype), max(geometry.row_blocks(batch, n), min(3, batch))
        partials, moments = (
            np.full((2 * blocks, n), 7, s.dtype),
            np.full((cpu_batch_norm.KEPT, n), 7, s.dtype),
        )
        stored, a = s.store(x), s.store(0 * x)
        by_columns, flat = short(geometry.columns(blocks, n, w)), short(geometry.flat(n))
        elementwise = short(geometry.elementwise(batch, n, w))
        launch(batch_norm.block_moments, s.types, (w,), by_columns, stored, partials)
        launch(batch_norm.join_moments, (s.real,), (), flat, partials, eps, moments, batch)
        launch(batch_norm.batch_normalize, s.types, (g.f, w), elementwise, stored, gain, bias, moments, a)
        expected, known = np.empty_like(x), np.empty_like(moments)
        scratch = np.empty((2 * granule_count(batch), n), s.dtype)
        operands = (x, gain, bias, eps, expected, known, scratch)
        cpu(cpu_batch_norm.batch_normalize, s.dtype, operands, g.f)
        same(moments, known, f"moments {what}")
        same(s.load(a), expected, f"batch_normalize {what}", rounding=s.rounding)

        mine, dgain, dbias = s.store(upstream), np.full(n, 7, s.dtype), np.full(n, 7, s.dtype)
        arguments = (mine, stored, known, gain, bias)
        launch(batch_norm.batch_normalize_gradients, s.types, (g.d_f, w), by_columns, *arguments, partials)
        for part, sums in ((partials[:blocks], dgain), (partials[blocks:], dbias)):
            launch(reductions.sum_partials, (s.real,), (1,), short(geometry.columns(1, n, 1)), part, sums)
        launch(batch_norm.batch_normalize_delta, s.types, (g.d_f, w), elementwise, *arguments, dgain, dbias)
        theirs, to_gain, to_bias = upstream.copy(), np.empty(n, s.dtype), np.empty(n, s.dtype)
        operands = (theirs, x, known, gain, bias, to_gain, to_bias, scratch)
        cpu(cpu_batch_norm.batch_normalize_delta, s.dtype, operands, g.d_f)
        same(dgain, to_gain, f"dgain {what}")
        same(dbias, to_bias, f"dbias {what}")
        same(s.load(mine), theirs, f"batch_normalize_delta {what}", rounding=s.rounding)
        check_running(s, known, stored, x, gain, bias, eps, g, w, what)


def check_running(
    s: Storage, moments: Any, stored: Any, x: Any, gain: Any, bias: Any, eps: Any, g: Any, w: int, what: str
) -> None:
    batch, n = x.shape
    momentum, counters = np.array([0.1]), np.zeros(COUNTERS, np.int64)
    mean, variance = s.array(n).astype(s.dtype), np.abs(s.array(n)).astype(s.dtype)
    theirs = mean.copy(), variance.copy()
    for counters[STOPPED] in (1, 0):
        operands = (mean, variance, moments, momentum, counters)
        launch(batch_norm.follow, (s.real,), (), short(geometry.flat(n)), *operands, batch)
        cpu(
            cpu_batch_norm.follow,
            s.dtype,
            (*theirs, moments, momentum, counters),
            integers=(batch,),
        )
        for found, expected in zip((mean, variance), theirs, strict=True):
            same(found, expected, f"follow {what}", exact=counters[STOPPED] == 1)
    a, expected = s.store(0 * x), np.empty_like(x)
    arguments = (stored, gain, bias, eps, a, mean, variance)
    layout = short(geometry.elementwise(batch, n, w))
    launch(batch_norm.normalize_by_running, s.types, (g.f, w), layout, *arguments)
    operands = (x, gain, bias, eps, expected, mean, variance, np.empty(n, s.dtype))
    cpu(cpu_batch_norm.normalize_by_running, s.dtype, operands, g.f)
    same(s.load(a), expected, f"normalize_by_running {what}", rounding=s.rounding)
