"""One training step for one batch size: captured when it first runs, replayed from then on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.backend import Recording
from gpubp.backend.base import Array
from gpubp.kernels.replay import STOPPED

if TYPE_CHECKING:
    from .trainer import Trainer


@dataclass
class Source:
    """A data set on the device, the order of its examples in this epoch, and the learning rate of every step.

    `rates[k]` belongs to the k-th step of an epoch; the first epoch began at step `start`. `w` is None where every
    example weighs 1.
    """

    x: Array
    y: Array
    w: Array | None
    order: Array
    rates: Array
    start: int


class Step:
    """gather, forward, loss, backward, penalty, update, advance: the launches of one step over `batch` examples.

    Without a source the caller fills `x`, `y` and `w` before each run. The first run makes the launches for real
    while they are recorded, so that n runs are always n steps.
    """

    def __init__(self, trainer: Trainer, batch: int, *, labels: bool, source: Source | None = None) -> None:
        net, ops = trainer.net, trainer.net.backend
        self.trainer, self.batch, self.source = trainer, batch, source
        self.x = ops.empty((batch, net.n_in), net.dtype)
        self.y = ops.empty((batch,), np.int64) if labels else ops.empty((batch, net.n_out), net.dtype)
        self.w = ops.empty((batch,), net.dtype)
        ops.write(self.w, np.ones(batch))
        self._rates = ops.empty((0,), np.float64) if source is None else source.rates
        self.recording: Recording | None = None

    def run(self, times: int) -> None:
        """Makes `times` steps, or fewer where one of them set counters[STOPPED]."""
        if self.recording is None:
            with self.trainer.net.backend.capture(self.trainer.state) as recording:
                self._once()
            self.recording = recording
            times -= 1
            if self.trainer.counter(STOPPED):
                return
        if times > 0:
            self.recording.replay(times)

    def _once(self) -> None:
        trainer, net, state, source = self.trainer, self.trainer.net, self.trainer.state, self.source
        ops = net.backend
        with ops.scope("batch"):
            if source is not None:
                ops.gather(source.x, source.order, self.x, state)
                ops.gather(source.y, source.order, self.y, state)
                if source.w is not None:
                    ops.gather(source.w, source.order, self.w, state)
        net.backpropagate(self.x, self.y, self.w, loss=trainer.loss, state=state)
        with ops.scope("update"):
            if trainer.l1 or trainer.l2:
                weights, gradients = net.flat[: net.n_weights], net.flat_gradients[: net.n_weights]
                ops.penalty(weights, gradients, trainer.penalties, state)
            ops.update(trainer.optimizer.rule, net.flat, net.flat_gradients, trainer.slots, state)
            ops.advance(self.batch, self._rates, 0 if source is None else source.start, state)

    def fill(self, x: Any, y: Any, w: Any) -> None:
        """Copies a batch from the host into the step's buffers."""
        ops = self.trainer.net.backend
        for buffer, values in ((self.x, x), (self.y, y), (self.w, w)):
            ops.write(buffer, values)
