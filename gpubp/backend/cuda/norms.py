"""LayerNorm and RMSNorm on a GPU: one launch forward; backward the gradients by both stages, then dE/dx."""

from __future__ import annotations

from gpubp.backend import flops
from gpubp.backend.base import Array
from gpubp.backend.terms import norm_name
from gpubp.kernels.activations import Activation
from gpubp.kernels.cuda import geometry
from gpubp.kernels.norms import KEPT

from .launches import CudaLaunches, factories, matrix_width, real_type, shape_of


class CudaNorms(CudaLaunches):
    """Rows of one size, and the way back."""

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
