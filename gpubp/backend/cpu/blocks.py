"""Gated linear units and the sums of residual blocks on a CPU, each one launch."""

from __future__ import annotations

from gpubp.backend import flops
from gpubp.backend.accesses import by_all, by_rows
from gpubp.backend.base import Array
from gpubp.kernels import gated, sums
from gpubp.kernels.activations import Activation
from gpubp.kernels.reductions import granule_count

from .launches import CpuLaunches, shape_of
from .layers import column_sums


class CpuBlocks(CpuLaunches):
    """a = g(u) v and its way back; x + y."""

    def gated(self, z: Array, b: Array, g: Activation, *, keep: bool) -> tuple[Array, Array]:
        a = self.empty((len(z), z.shape[1] // 2), z.dtype)
        self._launch(
            f"gated {g.name} {shape_of(a)}",
            gated.gated_keep if keep else gated.gated,
            z.dtype,
            (z, b, a),
            (g.f, g.d_f) if keep else (g.f,),
            read=(z, b),
            written=(z, a) if keep else (a,),
            flops=flops.gated(a, g, keep=keep),
            accesses=(by_rows(z, written=keep), by_all(b), by_rows(a, written=True)),
        )
        return a, z

    def gated_delta(self, upstream: Array, saved: Array, db: Array) -> Array:
        partials = self.empty((granule_count(len(saved)), saved.shape[1]), saved.dtype)
        self._launch(
            f"gated delta + db {shape_of(saved)}",
            gated.gated_delta,
            saved.dtype,
            (upstream, saved, db, partials),
            read=(upstream, saved),
            written=(saved, db),
            flops=flops.gated_delta(saved),
            accesses=(by_rows(upstream), by_rows(saved, written=True), *column_sums(partials, db)),
        )
        return saved

    def add(self, x: Array, y: Array, out: Array) -> None:
        self._launch(
            f"add {shape_of(out)}",
            sums.add,
            out.dtype,
            (x, y, out),
            read=(x, y),
            written=(out,),
            flops=int(out.size),
            accesses=(by_rows(x), by_rows(y), by_rows(out, written=True)),
        )

    def clone(self, x: Array) -> Array:
        out = self.empty(x.shape, x.dtype)
        self._launch(
            f"copy {shape_of(out)}",
            sums.clone,
            out.dtype,
            (x, out),
            read=(x,),
            written=(out,),
            accesses=(by_rows(x), by_rows(out, written=True)),
        )
        return out
