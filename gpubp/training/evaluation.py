"""Evaluation: the mean loss of a trained network over data, and what a person reads beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpubp.backend import State
from gpubp.kernels.activations import activation
from gpubp.kernels.losses import LOSS
from gpubp.losses import Loss
from gpubp.network import Network

from .metrics import metric, metric_name

if TYPE_CHECKING:
    from .trainer import Trainer


def evaluate(trainer: Trainer, x: Any, y: Any, sample_weight: Any) -> dict[str, float]:
    """`Trainer.evaluate`, whose docstring says what it does."""
    net, loss = trainer.net, trainer.loss
    with net.backend.ordered():
        x, y, w = net.check_batch(x, y, loss, sample_weight)
        outputs = net.forward(x)
        value = evaluate_loss(net, loss, outputs, y, w)
        return {"loss": value, metric_name(loss): metric(loss, *map(net.backend.to_host, (outputs, y, w)))}


def evaluate_loss(net: Network, loss: Loss, outputs: Any, y: Any, w: Any) -> float:
    """The mean loss of output activations (batch, n_out) against checked targets."""
    ops, state = net.backend, State(net.backend, 0)
    b, db = ops.zeros((net.n_out,), net.dtype), ops.empty((net.n_out,), net.dtype)
    a = ops.copy(outputs)  # the kernel overwrites what it is given
    ops.loss_delta(loss, activation("identity"), a, b, ops.to_device(y), ops.to_device(w), db, state)
    return float(ops.to_host(state.stats)[LOSS])
