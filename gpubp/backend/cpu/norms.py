"""LayerNorm and RMSNorm on a CPU: one launch forward, one backward."""

from __future__ import annotations

from gpubp.backend import flops
from gpubp.backend.accesses import by_all, by_rows
from gpubp.backend.base import Array
from gpubp.backend.terms import norm_name
from gpubp.kernels import norms
from gpubp.kernels.activations import Activation
from gpubp.kernels.reductions import granule_count

from .launches import CpuLaunches, shape_of
from .layers import column_sums


class CpuNorms(CpuLaunches):
    """Rows of one size, and the way back."""

    def normalize(
        self, x: Array, gain: Array, bias: Array, eps: Array, g: Activation, *, center: bool
    ) -> tuple[Array, Array]:
        a, moments = self.empty(x.shape, x.dtype), self.empty((len(x), norms.KEPT), x.dtype)
        self._launch(
            f"{norm_name(center)} + {g.name} {shape_of(x)}",
            norms.normalize,
            x.dtype,
            (x, gain, bias, eps, a, moments),
            (g.f, center),
            read=(x, gain, bias),
            written=(a, moments),
            flops=flops.normalize(x, g, center),
            accesses=(
                by_rows(x),
                by_all(gain),
                by_all(bias),
                by_all(eps),
                by_rows(a, written=True),
                by_rows(moments, written=True),
            ),
        )
        return a, moments

    def normalize_delta(
        self,
        upstream: Array,
        x: Array,
        moments: Array,
        gain: Array,
        bias: Array,
        g: Activation,
        dgain: Array,
        dbias: Array,
        *,
        center: bool,
    ) -> Array:
        partials = self.empty((2 * granule_count(len(x)), x.shape[1]), x.dtype)
        self._launch(
            f"{norm_name(center)} delta {g.name} + dgain{' + dbias' if center else ''} {shape_of(x)}",
            norms.normalize_delta,
            x.dtype,
            (upstream, x, moments, gain, bias, dgain, dbias, partials),
            (g.d_f, center),
            read=(upstream, x, moments, gain, bias),
            written=(upstream, dgain, dbias) if center else (upstream, dgain),
            flops=flops.normalize_delta(x, g, center),
            accesses=(
                by_rows(upstream, written=True),
                by_rows(x),
                by_rows(moments),
                by_all(gain),
                by_all(bias),
                *column_sums(partials, dgain),
                by_all(dbias, written=True, late=True),
            ),
        )
        return upstream
