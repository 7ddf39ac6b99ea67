"""LayerNorm, RMSNorm and BatchNorm on a CPU: one launch forward, one backward."""

from __future__ import annotations

from gpubp.backend import flops
from gpubp.backend.accesses import by_all, by_rows
from gpubp.backend.base import Array, State
from gpubp.backend.terms import norm_name
from gpubp.kernels import batch_norm, norms
from gpubp.kernels.activations import Activation
from gpubp.kernels.reductions import granule_count

from .launches import CpuLaunches, shape_of
from .layers import column_sums


class CpuNorms(CpuLaunches):
    """Rows, or columns, of one size, and the way back."""

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

    def batch_normalize(
        self, x: Array, gain: Array, bias: Array, eps: Array, g: Activation
    ) -> tuple[Array, Array]:
        n = x.shape[1]
        a, moments = self.empty(x.shape, x.dtype), self.empty((batch_norm.KEPT, n), x.dtype)
        partials = self.empty((2 * granule_count(len(x)), n), x.dtype)
        self._launch(
            f"batch norm + {g.name} {shape_of(x)}",
            batch_norm.batch_normalize,
            x.dtype,
            (x, gain, bias, eps, a, moments, partials),
            (g.f,),
            read=(x, gain, bias),
            written=(a, moments),
            flops=flops.batch_normalize(x, g),
            accesses=(
                by_rows(x),
                by_all(partials, written=True),
                by_rows(x, late=True),
                by_all(partials, late=True),
                by_all(gain, late=True),
                by_all(bias, late=True),
                by_all(eps, late=True),
                by_all(moments, written=True, late=True),
                by_rows(a, written=True, late=True),
            ),
        )
        return a, moments

    def batch_normalize_delta(
        self,
        upstream: Array,
        x: Array,
        moments: Array,
        gain: Array,
        bias: Array,
        g: Activation,
        dgain: Array,
        dbias: Array,
    ) -> Array:
        partials = self.empty((2 * granule_count(len(x)), x.shape[1]), x.dtype)
        self._launch(
            f"batch norm delta {g.name} + dgain + dbias {shape_of(x)}",
            batch_norm.batch_normalize_delta,
            x.dtype,
            (upstream, x, moments, gain, bias, dgain, dbias, partials),
            (g.d_f,),
            read=(upstream, x, moments, gain, bias),
            written=(upstream, dgain, dbias),
            flops=flops.batch_normalize_delta(x, g),
            accesses=(
                by_rows(upstream, written=True),
                by_rows(x),
                by_all(moments),
                by_all(gain),
                by_all(bias),
                *column_sums(partials, dgain),
                by_all(dbias, written=True, late=True),
                by_rows(upstream, written=True, late=True),
                by_rows(x, late=True),
                by_all(moments, late=True),
                by_all(gain, late=True),
            ),
        )
        return upstream

    def normalize_by_running(
        self, x: Array, gain: Array, bias: Array, eps: Array, g: Activation, mean: Array, variance: Array
    ) -> Array:
        a, inverses = self.empty(x.shape, x.dtype), self.empty(mean.shape, x.dtype)
        self._launch(
            f"running norm + {g.name} {shape_of(x)}",
            batch_norm.normalize_by_running,
            x.dtype,
            (x, gain, bias, eps, a, mean, variance, inverses),
            (g.f,),
            read=(x, gain, bias, mean, variance),
            written=(a,),
            flops=flops.normalize_by_running(x, g),
            accesses=(
                by_all(variance),
                by_all(eps),
                by_all(inverses, written=True),
                by_all(inverses, late=True),
                by_rows(x, late=True),
                by_all(gain, late=True),
                by_all(bias, late=True),
                by_all(mean, late=True),
                by_rows(a, written=True, late=True),
            ),
        )
        return a

    def follow(
        self, mean: Array, variance: Array, moments: Array, momentum: Array, batch: int, state: State
    ) -> None:
        self._launch(
            f"running moments {shape_of(mean)}",
            batch_norm.follow,
            mean.dtype,
            (mean, variance, moments, momentum, state.counters),
            (),
            integers=(batch,),
            read=(mean, variance, moments),
            written=(mean, variance),
            flops=flops.follow(mean),
            accesses=(
                by_all(mean, written=True),
                by_all(variance, written=True),
                by_all(moments),
                by_all(momentum),
                by_all(state.counters),
            ),
        )
