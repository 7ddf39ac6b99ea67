"""The dense layer and the loss on a CPU: bias and activation, delta and bias gradient, each one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.backend import flops
from gpubp.backend.accesses import Access, by_all, by_first, by_rows
from gpubp.backend.base import Array, Drop, State
from gpubp.kernels import dense, dropout, loss_passes
from gpubp.kernels.activations import Activation
from gpubp.kernels.losses import Loss
from gpubp.kernels.reductions import granule_count

from .launches import CpuLaunches, shape_of


class CpuLayers(CpuLaunches):
    """BP1, BP2, BP3 and the way forward."""

    def bias_activation(self, z: Array, b: Array, g: Activation, *, keep: bool) -> tuple[Array, Array]:
        a, derivative = z, keep and g.d_f_of_output is None
        if derivative:  # f' is saved, as f and f' share most of their work
            a = self.empty(z.shape, z.dtype)
        self._launch(
            f"bias + {g.name} {shape_of(z)}",
            dense.bias_activation_keep if derivative else dense.bias_activation,
            z.dtype,
            (z, b, a) if derivative else (z, b),
            (g.f, g.d_f) if derivative else (g.f,),
            read=(z, b),
            written=(z, a) if derivative else (z,),
            flops=flops.bias_activation(z, g),
            accesses=(by_rows(z, written=True), by_all(b), by_rows(a, written=True)),
        )
        return a, z

    def bias_activation_dropout(self, z: Array, b: Array, g: Activation, drop: Drop) -> tuple[Array, Array]:
        a = self.empty(z.shape, z.dtype)
        self._launch(
            f"bias + {g.name} + dropout {shape_of(z)}",
            dropout.bias_activation_dropout,
            z.dtype,
            (z, b, a, drop.counters),
            (g.f, g.d_f),
            integers=drop.numbers,
            read=(z, b),
            written=(z, a),
            flops=flops.bias_activation_dropout(z, g),
            accesses=(
                by_rows(z, written=True),
                by_all(b),
                by_rows(a, written=True),
                by_all(drop.counters),
            ),
        )
        return a, z

    def dropout(self, x: Array, out: Array, drop: Drop) -> None:
        self._launch(
            f"dropout {shape_of(x)}",
            dropout.dropout,
            x.dtype,
            (x, out, drop.counters),
            integers=drop.numbers,
            read=(x,),
            written=(out,),
            flops=flops.dropout(x),
            accesses=(by_rows(x), by_rows(out, written=True), by_all(drop.counters)),
        )

    def delta(self, upstream: Array, saved: Array, g: Activation, db: Array) -> Array:
        partials = self.empty((granule_count(len(upstream)), upstream.shape[1]), upstream.dtype)
        self._launch(
            f"delta {g.name} + db {shape_of(upstream)}",
            dense.delta,
            upstream.dtype,
            (upstream, saved, db, partials),
            (dense.given if g.d_f_of_output is None else g.d_f_of_output,),
            read=(upstream, saved),
            written=(upstream, db),
            flops=flops.delta(upstream, g),
            accesses=(
                by_rows(upstream, written=True),
                by_rows(saved),
                *column_sums(partials, db),
            ),
        )
        return upstream

    def loss_delta(
        self, loss: Loss, g: Activation, z: Array, b: Array, y: Array, w: Array, db: Array, state: State
    ) -> Array:
        partials = self.zeros((2 * granule_count(len(z)), z.shape[1]), z.dtype)  # losses take a column
        operands = (z, b, y, w, db, partials, state.stats, state.counters)
        if loss.softmax:
            factory: Callable[..., Any] = loss_passes.softmax_loss
            scalars: tuple[Any, ...] = (g.f, g.d_f, loss.l, loss.d_l, y.dtype == np.int64)
        else:
            factory = loss_passes.elementwise_loss
            scalars = (g.f, g.d_f, loss.l, loss.d_l, loss.mean_over_outputs)
        link = "" if g.name == "identity" else f"{g.name} + "
        self._launch(
            f"bias + {link}{loss.name} + delta + db {shape_of(z)}",
            factory,
            z.dtype,
            operands,
            scalars,
            read=(z, b, y, w),
            written=(z, db),
            flops=flops.loss_delta(loss, g, z, y),
            accesses=(
                by_rows(z, written=True),
                by_all(b),
                by_rows(y),
                by_all(w),
                *column_sums(partials, db),
                by_first(state.stats, written=True, late=True),
                by_first(state.counters, written=True, late=True),
            ),
        )
        return z


def column_sums(partials: Array, db: Array) -> tuple[Access, ...]:
    """Any member adds up a granule of rows; behind the barrier inside, any adds the granules into its columns of db."""
    return by_all(partials, written=True), by_all(partials, late=True), by_all(db, written=True, late=True)
