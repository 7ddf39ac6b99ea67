"""Gated linear units and the sums of residual blocks on a GPU."""

from __future__ import annotations

from gpubp.backend import flops
from gpubp.backend.base import Array
from gpubp.kernels.activations import Activation
from gpubp.kernels.cuda import geometry

from .launches import CudaLaunches, factories, matrix_width, real_type, shape_of


class CudaBlocks(CudaLaunches):
    """a = g(u) v and its way back; x + y."""

    def gated(self, z: Array, b: Array, g: Activation, *, keep: bool) -> tuple[Array, Array]:
        a = self.empty((z.shape[0], z.shape[1] // 2), z.dtype)
        kernels, width = factories().gated, matrix_width(a, z, b)
        self._run(
            self._kernel(
                f"gated {g.name} {shape_of(a)}",
                kernels.gated_keep if keep else kernels.gated,
                (real_type(z), factories().type_of(z.dtype)),
                (g.f, g.d_f, width) if keep else (g.f, width),
                (z, b, a),
                geometry.elementwise(a.shape[0], a.shape[1], width),
                read=(z, b),
                written=(z, a) if keep else (a,),
                flops=flops.gated(a, g, keep=keep),
            )
        )
        return a, z

    def gated_delta(self, upstream: Array, saved: Array, db: Array) -> Array:
        partials = self._partials(saved, db)
        width = matrix_width(upstream, saved, partials)
        launch = self._kernel(
            f"gated delta + db {shape_of(saved)}",
            factories().gated.gated_delta,
            (real_type(saved), factories().type_of(saved.dtype)),
            (width,),
            (upstream, saved, partials),
            geometry.columns(partials.shape[0], upstream.shape[1], width),
            read=(upstream, saved),
            written=(saved,),
            changed=(partials,),
            flops=flops.gated_delta(saved),
        )
        self._run(launch, self._sum_partials(partials, db))
        return saved

    def add(self, x: Array, y: Array, out: Array) -> None:
        width = matrix_width(x, y, out)
        self._run(
            self._kernel(
                f"add {shape_of(out)}",
                factories().sums.add,
                (real_type(out), factories().type_of(out.dtype)),
                (width,),
                (x, y, out),
                geometry.elementwise(out.shape[0], out.shape[1], width),
                read=(x, y),
                written=(out,),
                flops=int(out.size),
            )
        )

    def clone(self, x: Array) -> Array:
        out = self.empty(x.shape, x.dtype)
        width = matrix_width(x, out)
        self._run(
            self._kernel(
                f"copy {shape_of(out)}",
                factories().sums.clone,
                (factories().type_of(x.dtype),),
                (width,),
                (x, out),
                geometry.elementwise(out.shape[0], out.shape[1], width),
                read=(x,),
                written=(out,),
            )
        )
        return out
