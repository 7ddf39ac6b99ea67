"""Evaluation: the mean loss of a trained network over data, and what a person reads beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.backend import State
from gpubp.backend.state import Seen
from gpubp.errors import InputError
from gpubp.kernels.activations import activation
from gpubp.kernels.losses import LOSS, LOSS_SUM, WEIGHT_SUM
from gpubp.kernels.replay import STOPPED
from gpubp.losses import Loss
from gpubp.network import Network

from .metrics import Running, metric, metric_name
from .reading import Reader, checked

if TYPE_CHECKING:
    from .trainer import Trainer


def evaluate(trainer: Trainer, x: Any, y: Any, sample_weight: Any) -> dict[str, float]:
    """`Trainer.evaluate`, whose docstring says what it does."""
    net, loss = trainer.net, trainer.loss
    with net.backend.ordered():
        data = checked(trainer, x, y, sample_weight)
        if isinstance(data, Reader):
            return _of_reader(trainer, data)
        x, y, w = data
        outputs = net.forward(x)
        value = evaluate_loss(net, loss, outputs, y, w)
        return {"loss": value, metric_name(loss): metric(loss, *map(net.backend.to_host, (outputs, y, w)))}


def _of_reader(trainer: Trainer, data: Reader) -> dict[str, float]:
    """The same of rows that are read chunk by chunk; loss and metric are summed up in float64."""
    net, loss, weight, total = trainer.net, trainer.loss, 0.0, 0.0
    running = Running(loss)
    for x, y, *w in data.chunks(net.rows_at_once):
        weights = w[0] if w else np.ones(len(x), net.dtype)
        outputs = net.forward(x)
        share = float(weights.sum(dtype=np.float64))
        if share > 0:
            total += share * evaluate_loss(net, loss, outputs, y, weights)
            weight += share
            running.add(net.backend.to_host(outputs), y, weights)
    if not weight:
        raise InputError(
            "sample_weight: expected a positive sum, got 0; give at least one row a positive weight."
        )
    return {"loss": total / weight, metric_name(loss): running.value()}


def evaluate_loss(net: Network, loss: Loss, outputs: Any, y: Any, w: Any) -> float:
    """The mean loss of output activations (batch, n_out) against checked targets.

    The kernel adds up a few thousand rows in the dtype of the network, and those sums in float64.
    """
    ops = net.backend
    y, w = ops.to_device(y), ops.to_device(w)
    rows = net.rows_of_pass  # as many as the held-out data of a population take, to the same bits
    seen = _losses(net, loss, outputs, y, w, rows)
    if seen.counters[STOPPED]:  # a sum that is not finite is in no sum; of all rows it says which it is
        seen = _losses(net, loss, outputs, y, w, len(outputs))
    if len(outputs) <= rows or seen.counters[STOPPED]:
        return float(seen.stats[LOSS])
    return float(seen.stats[LOSS_SUM] / seen.stats[WEIGHT_SUM])


def _losses(net: Network, loss: Loss, outputs: Any, y: Any, w: Any, rows: int) -> Seen:
    """What the kernel of the loss tells of `rows` examples after `rows` examples."""
    ops, state = net.backend, State(net.backend, 0)
    b, db = ops.zeros((net.n_out,), net.dtype), ops.empty((net.n_out,), net.dtype)
    for start in range(0, len(outputs), rows):
        part = slice(start, start + rows)
        a = ops.copy(outputs[part])  # the kernel overwrites what it is given
        ops.loss_delta(loss, activation("identity"), a, b, y[part], w[part], db, state)
    return state.read()
