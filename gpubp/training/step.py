"""One training step for one batch size: captured when it first runs, replayed from then on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.backend import Recording
from gpubp.backend.base import Array
from gpubp.kernels.replay import CURSOR, SKIPPED, STEP, STOPPED

from .room import Asked, find_room

if TYPE_CHECKING:
    from .trainer import Trainer


@dataclass
class Source:
    """A data set on the device, the order of its examples in this epoch, and the learning rate of every step.

    `rates[k]` belongs to the k-th step of an epoch; the first epoch began at step `start`. `w` is None where every
    example weighs 1. `asked` is what its first Step, that of the full batches, asked for.
    """

    x: Array
    y: Array
    w: Array | None
    order: Array
    rates: Array
    start: int
    asked: Asked | None = None


class Step:
    """gather, smooth, forward, loss, backward, penalty, clip, update, constrain, average, advance: one step's launches.

    Without a source the caller fills `x`, `y` and `w` before each run. The first run makes the launches for real
    while they are recorded, so that n runs are always n steps.
    """

    def __init__(self, trainer: Trainer, batch: int, *, labels: bool, source: Source | None = None) -> None:
        net, ops = trainer.net, trainer.net.backend
        self.trainer, self.batch, self.source = trainer, batch, source
        self._asked = Asked(batch, ops.memory().allocated)
        if source is not None:
            self._asked = source.asked = source.asked or replace(self._asked, examples=len(source.order))
        self._rates = ops.empty((0,), np.float64) if source is None else source.rates
        self.recording: Recording | None = None
        find_room(net, self._asked, lambda: self._allocate(labels))

    def _allocate(self, labels: bool) -> None:
        net, ops, batch = self.trainer.net, self.trainer.net.backend, self.batch
        self.x = ops.empty((batch, net.n_in), ops.storage(net.dtype))
        self.y = ops.empty((batch,), np.int64) if labels else ops.empty((batch, net.n_out), net.dtype)
        # what the loss compares with: y itself, or its smoothed form
        smooth = bool(self.trainer.label_smoothing)
        self.targets = ops.empty((batch, net.n_out), net.dtype) if smooth else self.y
        self.w = ops.empty((batch,), net.dtype)
        ops.write(self.w, np.ones(batch))

    def run(self, times: int) -> None:
        """Makes `times` steps; once one of them has set counters[STOPPED], the others change no weight."""
        if self.recording is None:
            find_room(self.trainer.net, self._asked, self._capture)
            times -= 1
        assert self.recording is not None
        if times > 0 and (self.trainer.net.backend.asynchronous or not self.trainer.counter(STOPPED)):
            self.recording.replay(times)

    def _capture(self) -> None:
        with self.trainer.net.backend.capture(self.trainer.state) as recording:
            self._once()
        self.recording = recording

    def _once(self) -> None:
        trainer, net, state, source = self.trainer, self.trainer.net, self.trainer.state, self.source
        ops = net.backend
        with ops.scope("batch"):
            if source is not None:
                ops.gather(source.x, source.order, self.x, state)
                ops.gather(source.y, source.order, self.y, state)
                if source.w is not None:
                    ops.gather(source.w, source.order, self.w, state)
            if self.targets is not self.y:
                ops.smooth(self.y, self.targets, trainer.targets)
        net.backpropagate(self.x, self.targets, self.w, loss=trainer.loss, state=state, masks=trainer.masks)
        by_value, by_norm = trainer.clip_value is not None, trainer.clip_norm is not None
        with ops.scope("update"):
            if trainer.l1 or trainer.l2:
                weights, gradients = net.flat[: net.n_weights], net.flat_gradients[: net.n_weights]
                ops.penalty(weights, gradients, trainer.penalties, state)
            if by_value or by_norm:
                ops.clip(net.flat_gradients, trainer.limits, state, by_value=by_value, by_norm=by_norm)
            rule = trainer.optimizer.rule
            ops.update(rule, net.flat, net.flat_gradients, trainer.slots[: rule.slots], state, net.stored)
            net.constrain(state)
            if trainer.ema is not None:
                ops.average(net.flat, trainer.slots[-1], trainer.decay, state)
            ops.advance(self.batch, self._rates, 0 if source is None else source.start, state)

    def skip(self) -> None:
        """Moves on without the step that was stopped, as `advance` would: cursor, step and learning rate."""
        ops, state = self.trainer.net.backend, self.trainer.state
        counters = ops.to_host(state.counters).copy()
        counters[CURSOR] += self.batch
        counters[STEP] += 1
        counters[SKIPPED] += 1
        counters[STOPPED] = 0
        ops.write(state.counters, counters)
        rates = ops.to_host(self._rates)
        if self.source is not None and rates.size:
            self.trainer.set_lr(float(rates[(counters[STEP] - self.source.start) % rates.size]))

    def fill(self, x: Any, y: Any, w: Any) -> None:
        """Copies a batch, of the host or of the device, into the step's buffers."""
        ops = self.trainer.net.backend
        for buffer, values in ((self.x, x), (self.y, y), (self.w, w)):
            if buffer.dtype == values.dtype:
                ops.write(buffer, values)
            else:
                ops.cast(ops.to_device(values), buffer)
