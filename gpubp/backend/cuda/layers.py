"""Products and dense layers on a GPU: fused with bias, activation or derivative where a measurement says so."""

from __future__ import annotations

from collections.abc import Sequence

from gpubp.backend import flops
from gpubp.backend.base import Array, Drop
from gpubp.kernels.activations import Activation
from gpubp.kernels.cuda import geometry

from .epilogues import Epilogue
from .fused import BACKWARD, WITH_DB, Kept, Ways, forward_epilogue, kept
from .launches import CudaLaunches, factories, matrix_width, real_type, shape_of
from .recording import CudaLaunch


class CudaLayers(CudaLaunches):
    """BP2, BP3, BP4 and the way forward."""

    fuse: bool

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        c = self.empty((a.shape[0], b.shape[1]), a.dtype) if out is None else out
        launch = self._product(a, b, c)
        assert launch is not None
        self._run(launch)
        return c

    def bias_activation(self, z: Array, b: Array, g: Activation, *, keep: bool) -> tuple[Array, Array]:
        a = self.empty(z.shape, z.dtype) if keep and g.d_f_of_output is None else None
        self._run(self._bias_activation(z, b, g, a))
        return (z, z) if a is None else (a, z)

    def dense(self, x: Array, W: Array, b: Array, g: Activation, *, keep: bool) -> tuple[Array, Array]:
        shape = x.shape[0], W.shape[1]
        epilogue = forward_epilogue(g.name, shape, b, keep=keep, empty=self.empty) if self.fuse else None
        if epilogue is None:
            return super().dense(x, W, b, g, keep=keep)
        out = self.empty(shape, b.dtype)
        label, work = f" + bias + {g.name}", flops.bias_activation(out, g)

        def fused() -> Sequence[CudaLaunch] | None:
            launch = self._product(x, W, out, epilogue, label=label, work=work)
            return None if launch is None else [launch]

        def separate() -> Sequence[CudaLaunch]:
            a = self.empty(shape, out.dtype) if keep and g.d_f_of_output is None else None
            return [*self._plain(x, W, out), self._bias_activation(out, b, g, a)]

        chosen = self._choose(f"dense {epilogue.kind}", x, W, out, Ways(fused=fused, separate=separate))
        if chosen is None:
            return super().dense(x, W, b, g, keep=keep)
        self._run(*chosen)
        return out, kept(epilogue, out)

    def bias_activation_dropout(self, z: Array, b: Array, g: Activation, drop: Drop) -> tuple[Array, Array]:
        a = self.empty(z.shape, z.dtype)
        width = matrix_width(z, b, a)
        self._run(
            self._kernel(
                f"bias + {g.name} + dropout {shape_of(z)}",
                factories().dropout.bias_activation_dropout,
                (real_type(z), factories().type_of(z.dtype)),
                (g.f, g.d_f, width),
                (z, b, a, drop.counters, *drop.numbers),
                geometry.elementwise(z.shape[0], z.shape[1], width),
                read=(z, b),
                written=(z, a),
                flops=flops.bias_activation_dropout(z, g),
            )
        )
        return a, z

    def dropout(self, x: Array, out: Array, drop: Drop) -> None:
        width = matrix_width(x, out)
        self._run(
            self._kernel(
                f"dropout {shape_of(x)}",
                factories().dropout.dropout,
                (real_type(x), factories().type_of(x.dtype)),
                (width,),
                (x, out, drop.counters, *drop.numbers),
                geometry.elementwise(x.shape[0], x.shape[1], width),
                read=(x,),
                written=(out,),
                flops=flops.dropout(x),
            )
        )

    def delta(self, upstream: Array, saved: Array, g: Activation, db: Array) -> Array:
        values = saved.values if isinstance(saved, Kept) else saved
        self._run(*self._delta(upstream, values, g, db))
        return upstream

    def dense_delta(self, delta: Array, W: Array, saved: Array, g: Activation, db: Array) -> Array:
        if not isinstance(saved, Kept) or g.name not in BACKWARD:
            return super().dense_delta(delta, W, saved, g, db)
        out = self.empty((delta.shape[0], W.shape[0]), delta.dtype)
        kind, work = BACKWARD[g.name], flops.delta(out, g)

        def with_db() -> Sequence[CudaLaunch] | None:
            epilogue = Epilogue(kind + WITH_DB, db, saved.aux)
            launch = self._product(delta, W.T, out, epilogue, label=f" + {kind} + db", work=work)
            return None if launch is None else [launch]

        def without_db() -> Sequence[CudaLaunch] | None:
            epilogue = Epilogue(kind, None, saved.aux)
            launch = self._product(delta, W.T, out, epilogue, label=f" + {kind}", work=work - out.size)
            return None if launch is None else [launch, *self._column_sums(out, db)]

        def separate() -> Sequence[CudaLaunch]:
            return [*self._plain(delta, W.T, out), *self._delta(out, saved.values, g, db)]

        ways = Ways(with_db=with_db, without_db=without_db, separate=separate)
        chosen = self._choose(f"dense_delta {kind}", delta, W.T, out, ways)
        self._run(*(separate() if chosen is None else chosen))
        return out

    def _plain(self, a: Array, b: Array, out: Array) -> list[CudaLaunch]:
        launch = self._product(a, b, out)
        return [] if launch is None else [launch]

    def _choose(self, what: str, a: Array, b: Array, out: Array, ways: Ways) -> Sequence[CudaLaunch] | None:
        """The launches of the way that is fastest here; None where it is the last, plain one."""
        with self._device():
            candidates = ways.candidates()
            *_, last = candidates
            shapes = f"{a.shape[0]}x{a.shape[1]}x{b.shape[1]} {self._precision_of(a)}"
            chosen = (
                last if len(candidates) == 1 else self._products.tuner.choose(f"{what} {shapes}", candidates)
            )
            return None if chosen in (None, last) else ways.launches(chosen)
