"""One training step for one batch size: captured when it first runs, replayed from then on."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.backend import Recording
from gpubp.backend.base import Array, Reuse, State
from gpubp.kernels.replay import CURSOR, SKIPPED, STEP, STOPPED

from .micro import Micro, cached_rows, check_fewest, sizes_of
from .room import Asked, bytes_of_inputs, find_room

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

    Up to the penalty they are made for each micro-batch, where the trainer accumulates the gradients of several, or a
    CPU takes the batch in several to keep each in its cache.
    Without a source the caller fills `x`, `y` and `w` before each run. The first run makes the launches for real
    while they are recorded, so that n runs are always n steps.
    """

    def __init__(self, trainer: Trainer, batch: int, *, labels: bool, source: Source | None = None) -> None:
        net, ops = trainer.net, trainer.net.backend
        check_fewest(net, batch, trainer.accumulate)
        self.trainer, self.batch, self.source = trainer, batch, source
        outside = 0 if source is not None else bytes_of_inputs(net)
        self._asked = Asked(batch, ops.memory().allocated, trainer.accumulate, cached_rows(net), outside)
        if source is not None:
            self._asked = source.asked = source.asked or replace(self._asked, examples=len(source.order))
        self._rates = ops.empty((0,), np.float64) if source is None else source.rates
        self.recording: Recording | None = None
        find_room(net, self._asked, lambda: self._allocate(labels))

    def _allocate(self, labels: bool) -> None:
        net, ops = self.trainer.net, self.trainer.net.backend
        sizes = sizes_of(self.batch, self._asked.parts(self.batch))
        # What a caller fills is the whole batch; micro-batches of a source go through the same rows, of which a replay
        # leaves nothing to be read (`gather`).
        rows = self.batch if self.source is None else sizes[0]
        self.x = ops.empty((rows, net.n_in), ops.storage(net.dtype))
        self.y = ops.empty((rows,), np.int64) if labels else ops.empty((rows, net.n_out), net.dtype)
        self.w = ops.empty((rows,), net.dtype)
        ops.write(self.w, np.ones(rows))
        # what the loss compares with: y itself, or its smoothed form
        smooth = ops.empty((sizes[0], net.n_out), net.dtype) if self.trainer.label_smoothing else None
        self._mean = self.trainer.gradient_mean() if len(sizes) > 1 else None
        self.micro: list[Micro] = []
        for first, size in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False):
            at = slice(first, first + size) if self.source is None else slice(size)
            x, y, w = self.x[at], self.y[at], self.w[at]
            self.micro.append(Micro(first, x, y, y if smooth is None else smooth[:size], w))

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
        self.gradients(state)
        by_value, by_norm = trainer.clip_value is not None, trainer.clip_norm is not None
        with ops.scope("update"):
            if trainer.l1 or trainer.l2:
                weights, gradients = net.flat[: net.n_weights], net.flat_gradients[: net.n_weights]
                ops.penalty(weights, gradients, trainer.penalties, state)
            if by_value or by_norm:
                ops.clip(net.flat_gradients, trainer.limits, state, by_value=by_value, by_norm=by_norm)
            trainer.update()
            net.constrain(state)
            if trainer.ema is not None:
                ops.average(net.flat, trainer.slots[-1], trainer.decay, state)
            ops.advance(self.batch, self._rates, 0 if source is None else source.start, state)

    def gradients(self, state: State) -> None:
        """Those of E without penalties, into the network's gradients, with loss and weight in state.stats."""
        net, ops = self.trainer.net, self.trainer.net.backend
        if len(self.micro) == 1:
            self.load(self.micro[0], state)
            self._backpropagate(self.micro[0], state)
            return
        part, kept = state.apart(), Reuse()
        for j, micro in enumerate(self.micro, 1):
            self.load(micro, state)
            with ops.reusing(kept):
                self._backpropagate(micro, part)
            with ops.scope("accumulate"):
                first, last = j == 1, j == len(self.micro)
                ops.accumulate(net.flat_gradients, self._mean, part, state, first=first, last=last)

    def _backpropagate(self, micro: Micro, state: State) -> None:
        trainer = self.trainer
        trainer.net.backpropagate(
            micro.x,
            micro.targets,
            micro.w,
            loss=trainer.loss,
            state=state,
            masks=trainer.masks,
            first=micro.first,
            follow=True,
        )

    def load(self, micro: Micro, state: State) -> None:
        """Gathers its rows from the source, if there is one, and smooths the targets, if they are to be."""
        ops, source = self.trainer.net.backend, self.source
        with ops.scope("batch"):
            if source is not None:
                order = source.order[micro.first :]
                ops.gather(source.x, order, micro.x, state)
                ops.gather(source.y, order, micro.y, state)
                if source.w is not None:
                    ops.gather(source.w, order, micro.w, state)
            if micro.targets is not micro.y:
                ops.smooth(micro.y, micro.targets, self.trainer.targets)

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
