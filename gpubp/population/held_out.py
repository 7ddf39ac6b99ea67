"""The loss of a member over data that it is not trained on, recorded once and replayed after every epoch."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backend import State
from gpubp.kernels.activations import activation
from gpubp.kernels.losses import LOSS, LOSS_SUM, WEIGHT_SUM
from gpubp.kernels.replay import STOPPED
from gpubp.training import Trainer


class HeldOut:
    """The mean loss of `trainer`'s network over (x, y, w), arrays of the device: the bits of `evaluate`.

    It is that of the weights which the network has when the recording is replayed.
    """

    def __init__(self, trainer: Trainer, x: Any, y: Any, w: Any) -> None:
        self.trainer, self._data = trainer, (x, y, w)
        self._state, self._rows = State(trainer.net.backend, 0), trainer.net.rows_of_pass
        with trainer.net.backend.capture(self._state) as self.recording:
            self._once()

    def _once(self) -> None:
        net, ops, (x, y, w) = self.trainer.net, self.trainer.net.backend, self._data
        b, db = ops.zeros((net.n_out,), net.dtype), ops.empty((net.n_out,), net.dtype)
        for start in range(0, len(x), self._rows):
            part = slice(start, start + self._rows)
            a = net._forward(x[part])
            ops.loss_delta(self.trainer.loss, activation("identity"), a, b, y[part], w[part], db, self._state)

    def clear(self) -> None:
        """Forgets the sums of the last time."""
        ops, state = self.trainer.net.backend, self._state
        ops.write(state.stats, np.zeros(state.stats.shape))
        ops.write(state.counters, np.zeros(state.counters.shape, np.int64))

    def loss(self) -> float:
        """The loss, once the recording was replayed."""
        seen = self._state.read()
        if len(self._data[0]) <= self._rows or seen.counters[STOPPED]:
            return float(seen.stats[LOSS])
        return float(seen.stats[LOSS_SUM] / seen.stats[WEIGHT_SUM])
