"""BP1 on a GPU: the sum of the weights, delta with its sums by blocks, db, and the loss: four launches or five."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backend import flops
from gpubp.backend.base import Array, State
from gpubp.kernels.activations import Activation
from gpubp.kernels.cuda import geometry
from gpubp.kernels.losses import Loss

from .launches import CudaLaunches, factories, matrix_width, real_type, shape_of


class CudaLoss(CudaLaunches):
    """The loss and its derivative."""

    def loss_delta(
        self, loss: Loss, g: Activation, z: Array, b: Array, y: Array, w: Array, db: Array, state: State
    ) -> Array:
        storage = self.storage(z.dtype)
        delta = z if storage == z.dtype else self.empty(z.shape, storage)
        weigh = self._kernel(
            f"sum of weights {shape_of(w)}",
            factories().losses.reduce_weights,
            (real_type(z),),
            (),
            (w, state.stats),
            geometry.one_block(),
            read=(w,),
            changed=(state.stats,),
        )
        make = self._softmax if loss.softmax else self._elementwise
        first, losses, *sums = make(loss, g, z, b, y, w, delta, db, state)
        finish = self._kernel(
            "loss",
            factories().losses.finish_loss,
            (real_type(z),),
            (z.shape[1] if loss.mean_over_outputs else 1,),
            (losses, state.stats, state.counters),
            geometry.one_block(),
            changed=(state.stats, state.counters),
        )
        self._run(weigh, first, *sums, finish)
        return delta

    def _elementwise(
        self,
        loss: Loss,
        g: Activation,
        z: Array,
        b: Array,
        y: Array,
        w: Array,
        delta: Array,
        db: Array,
        state: State,
    ) -> tuple[Any, ...]:
        """The launch, its losses, and the launch that ends db."""
        gradients = self._partials(z, db)
        width = matrix_width(z, b, y, delta, gradients)
        blocks, n = gradients.shape
        losses = self.empty((blocks, geometry.tiles(n, width)), z.dtype)
        launch = self._kernel(
            _loss_name(loss, g, z),
            factories().losses.elementwise_loss,
            (real_type(z), factories().type_of(delta.dtype)),
            (g.f, g.d_f, loss.l, loss.d_l, loss.mean_over_outputs, width),
            (z, b, y, w, state.stats, state.scaling, delta, losses, gradients),
            geometry.columns(blocks, n, width),
            read=(z, b, y, w),
            written=(delta,),
            changed=(losses, gradients),
            flops=flops.loss_delta(loss, g, z, y),
        )
        return launch, losses, self._sum_partials(gradients, db)

    def _softmax(
        self,
        loss: Loss,
        g: Activation,
        z: Array,
        b: Array,
        y: Array,
        w: Array,
        delta: Array,
        db: Array,
        state: State,
    ) -> tuple[Any, ...]:
        """The launch, its losses, and the launches of db."""
        losses = self.empty((z.shape[0], 1), z.dtype)
        lanes, held = geometry.softmax(z.shape[1], z.itemsize)
        launch = self._kernel(
            _loss_name(loss, g, z),
            factories().softmax.softmax_loss,
            (real_type(z), factories().type_of(delta.dtype)),
            (g.f, g.d_f, loss.l, loss.d_l, y.dtype == np.int64, lanes, held),
            (z, b, y, w, state.stats, state.scaling, delta, losses),
            geometry.softmax_rows(z.shape[0], lanes),
            read=(z, b, y, w),
            written=(delta,),
            changed=(losses,),
            flops=flops.loss_delta(loss, g, z, y) - delta.size,  # db comes after
        )
        return launch, losses, *self._column_sums(delta, db)


def _loss_name(loss: Loss, g: Activation, z: Array) -> str:
    link = "" if g.name == "identity" else f"{g.name} + "
    return f"bias + {link}{loss.name} + delta {shape_of(z)}"
