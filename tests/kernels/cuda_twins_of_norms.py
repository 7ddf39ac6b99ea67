"""The comparisons of `run_cuda_twins.py` for LayerNorm and RMSNorm."""

from __future__ import annotations

from typing import Any

import cuda_shim
import numpy as np
from cuda_twins import Storage, cpu, same, short

# The shim comes first: what follows takes its functions.
from gpubp.kernels import norms as cpu_norms
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.cuda import geometry, norms, reductions
from gpubp.kernels.reductions import granule_count

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
