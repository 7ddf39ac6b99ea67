"""LayerNorm, RMSNorm and BatchNorm on a GPU; backward the gradients by both stages, then dE/dx."""

from __future__ import annotations

from gpubp.backend import flops
from gpubp.backend.base import Array, State
from gpubp.backend.terms import norm_name
from gpubp.kernels import batch_norm
from gpubp.kernels.activations import Activation
from gpubp.kernels.cuda import geometry
from gpubp.kernels.norms import KEPT

from .launches import CudaLaunches, factories, matrix_width, real_type, shape_of


class CudaNorms(CudaLaunches):
    """Rows, or columns, of one size, and the way back."""

    def normalize(
        self, x: Array, gain: Array, bias: Array, eps: Array, g: Activation, *, center: bool
    ) -> tuple[Array, Array]:
        a, moments = self.empty(x.shape, x.dtype), self.empty((x.shape[0], KEPT), gain.dtype)
        width = matrix_width(x, gain, bias, a)
        self._run(
            self._kernel(
                f"{norm_name(center)} + {g.name} {shape_of(x)}",
                factories().norms.normalize,
                (real_type(x), factories().type_of(x.dtype)),
                (g.f, center, width),
                (x, gain, bias, eps, a, moments),
                geometry.warps(x.shape[0]),
                read=(x, gain, bias),
                written=(a, moments),
                flops=flops.normalize(x, g, center),
            )
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
        kernels, types = factories().norms, (real_type(x), factories().type_of(x.dtype))
        blocks, n = geometry.row_blocks(*x.shape), x.shape[1]
        partials = self.empty((2 * blocks, n), gain.dtype)
        width = matrix_width(upstream, x, gain, bias, partials)
        gradients = self._kernel(
            f"{norm_name(center)} gradients {g.name} {shape_of(x)}",
            kernels.normalize_gradients,
            types,
            (g.d_f, width),
            (upstream, x, moments, gain, bias, partials),
            geometry.columns(blocks, n, width),
            read=(upstream, x, moments, gain, bias),
            changed=(partials,),
            flops=flops.normalize_gradients(x, g),
        )
        delta = self._kernel(
            f"{norm_name(center)} delta {g.name} {shape_of(x)}",
            kernels.normalize_delta,
            types,
            (g.d_f, center, width),
            (upstream, x, moments, gain, bias),
            geometry.warps(x.shape[0]),
            read=(upstream, x, moments, gain, bias),
            written=(upstream,),
            flops=flops.normalize_delta(x, g, center) - flops.normalize_gradients(x, g),
        )
        sums = [self._sum_partials(partials[:blocks], dgain, "dgain")]
        if center:
            sums.append(self._sum_partials(partials[blocks:], dbias, "dbias"))
        self._run(gradients, *sums, delta)
        return upstream

    def batch_normalize(
        self, x: Array, gain: Array, bias: Array, eps: Array, g: Activation
    ) -> tuple[Array, Array]:
        kernels, types = factories().batch_norm, (real_type(x), factories().type_of(x.dtype))
        blocks, (batch, n) = geometry.row_blocks(*x.shape), x.shape
        a, moments = self.empty(x.shape, x.dtype), self.empty((batch_norm.KEPT, n), gain.dtype)
        partials = self.empty((2 * blocks, n), gain.dtype)
        width = matrix_width(x, gain, bias, a, moments, partials)
        of_blocks = self._kernel(
            f"moments of blocks {shape_of(x)}",
            kernels.block_moments,
            types,
            (width,),
            (x, partials),
            geometry.columns(blocks, n, width),
            read=(x,),
            changed=(partials,),
            flops=4 * int(x.size),
        )
        joined = self._kernel(
            f"moments {n}",
            kernels.join_moments,
            types[:1],
            (),
            (partials, eps, moments, batch),
            geometry.flat(n),
            written=(moments,),
        )
        work = self._kernel(
            f"batch norm + {g.name} {shape_of(x)}",
            kernels.batch_normalize,
            types,
            (g.f, width),
            (x, gain, bias, moments, a),
            geometry.elementwise(batch, n, width),
            read=(x, gain, bias, moments),
            written=(a,),
            flops=flops.normalize_by_running(x, g),
        )
        self._run(of_blocks, joined, work)
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
        kernels, types = factories().batch_norm, (real_type(x), factories().type_of(x.dtype))
        blocks, (batch, n) = geometry.row_blocks(*x.shape), x.shape
        partials = self.empty((2 * blocks, n), gain.dtype)
        width = matrix_width(upstream, x, moments, gain, bias, dgain, dbias, partials)
        gradients = self._kernel(
            f"batch norm gradients {g.name} {shape_of(x)}",
            kernels.batch_normalize_gradients,
            types,
            (g.d_f, width),
            (upstream, x, moments, gain, bias, partials),
            geometry.columns(blocks, n, width),
            read=(upstream, x, moments, gain, bias),
            changed=(partials,),
            flops=flops.normalize_gradients(x, g),
        )
        delta = self._kernel(
            f"batch norm delta {g.name} {shape_of(x)}",
            kernels.batch_normalize_delta,
            types,
            (g.d_f, width),
            (upstream, x, moments, gain, bias, dgain, dbias),
            geometry.elementwise(batch, n, width),
            read=(upstream, x, moments, gain, bias, dgain, dbias),
            written=(upstream,),
            flops=flops.batch_normalize_delta(x, g) - flops.normalize_gradients(x, g),
        )
        sums = (
            self._sum_partials(partials[:blocks], dgain, "dgain"),
            self._sum_partials(partials[blocks:], dbias, "dbias"),
        )
        self._run(gradients, *sums, delta)
        return upstream

    def normalize_by_running(
        self, x: Array, gain: Array, bias: Array, eps: Array, g: Activation, mean: Array, variance: Array
    ) -> Array:
        a = self.empty(x.shape, x.dtype)
        width = matrix_width(x, gain, bias, a, mean, variance)
        self._run(
            self._kernel(
                f"running norm + {g.name} {shape_of(x)}",
                factories().batch_norm.normalize_by_running,
                (real_type(x), factories().type_of(x.dtype)),
                (g.f, width),
                (x, gain, bias, eps, a, mean, variance),
                geometry.elementwise(x.shape[0], x.shape[1], width),
                read=(x, gain, bias, mean, variance),
                written=(a,),
                flops=flops.normalize_by_running(x, g),
            )
        )
        return a

    def follow(
        self, mean: Array, variance: Array, moments: Array, momentum: Array, batch: int, state: State
    ) -> None:
        self._run(
            self._kernel(
                f"running moments {shape_of(mean)}",
                factories().batch_norm.follow,
                (real_type(mean),),
                (),
                (mean, variance, moments, momentum, state.counters, batch),
                geometry.flat(mean.size),
                read=(mean, variance, moments),
                written=(mean, variance),
                flops=flops.follow(mean),
            )
        )
