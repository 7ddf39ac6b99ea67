"""Where NaN or infinity came from, after a step was stopped by it or an epoch ended with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpubp.backend import State
from gpubp.backend.base import Array
from gpubp.errors import NumericalError
from gpubp.kernels.losses import LOSS, WEIGHT
from gpubp.kernels.optimizers import LR
from gpubp.kernels.replay import STEP, STOPPED

from .average import put_back
from .step import Step

if TYPE_CHECKING:
    from .trainer import Trainer

_BEGINNING = "the weights are those of the beginning of the epoch"


@dataclass(frozen=True)
class Finding:
    """NaN or infinity: at which step and where, what has become of the weights, the cure.

    `lost` says that the weights themselves were not finite, so that no step can follow on them.
    """

    what: str
    kept: str
    cure: str
    lost: bool

    def error(self) -> NumericalError:
        """The error that tells it, in one line."""
        return NumericalError(f"{self.what}; {self.kept}; {self.cure}")


def look(trainer: Trainer, step: Step, good: Array | None = None) -> Finding | None:
    """What a kernel stopped the run for, if one did; the trainer can then go on.

    The weights are those before the step. Where an earlier update has overflowed them they go back to `good`, the flat
    parameters of the epoch's beginning.
    """
    if not trainer.counter(STOPPED):
        return None
    net, ops = trainer.net, trainer.net.backend
    ops.write(trainer.state.counters[STOPPED : STOPPED + 1], [0])
    seen = _in_buffers(trainer, step)  # before they are computed again
    where = _in_micro_batches(trainer, step) or _beyond(trainer) or seen
    # where nothing is found, a GPU had been given more steps by then
    where = where or "a batch before the last one, which was not kept"
    lost, kept = not ops.all_finite(net.flat), "the weights are those before this step"
    if lost:
        kept = "the weights are lost, an earlier update overflowed: load others"
        if good is not None:
            put_back(trainer, good)
            kept = _BEGINNING
    lr = float(ops.to_host(trainer.state.hyper)[LR])
    what = f"training step {trainer.steps + 1}: expected finite numbers; got NaN or infinity in {where}"
    return Finding(what, kept, f"lower the learning rate (now {lr:g}) or scale the inputs", lost)


def raise_if_stopped(trainer: Trainer, step: Step, good: Array | None = None) -> None:
    """NumericalError that names layer and step where a kernel stopped the run, as `look` has it."""
    finding = look(trainer, step, good)
    if finding is not None:
        raise finding.error()


def check_weights(trainer: Trainer, good: Array) -> Finding | None:
    """Weights that finite gradients made overflow in an epoch's last steps, if they did; they go back to `good`."""
    net = trainer.net
    fine = net.backend.all_finite
    if fine(net.flat):
        return None
    bad = next(name for name, view in net.parameters().items() if not fine(view))
    put_back(trainer, good)
    what = f"training step {trainer.steps}: expected finite numbers; got NaN or infinity in parameter {bad}"
    return Finding(what, _BEGINNING, "lower the learning rate or scale the inputs", True)


def _in_micro_batches(trainer: Trainer, step: Step) -> str | None:
    """The first place of the step that is not finite; the network then has the gradients of the whole batch."""
    ops, state = trainer.net.backend, State(trainer.net.backend, 0)
    ops.write(state.counters[: STEP + 1], ops.to_host(trainer.state.counters)[: STEP + 1])  # and CURSOR
    for micro in step.micro:
        if step.source is not None or len(step.micro) > 1:  # else its rows are there, as they were filled in
            step.load(micro, state)
        where = first_not_finite(trainer, micro.x, micro.targets, micro.w, micro.first)
        if where is not None:
            return where
    if len(step.micro) > 1:
        step.gradients(state)
    return None


def _beyond(trainer: Trainer) -> str | None:
    """What was not finite where loss and gradients of the data are: the penalty, or the norm."""
    net, ops, state = trainer.net, trainer.net.backend, State(trainer.net.backend, 0)
    if trainer.l1 or trainer.l2:
        gradients = net.flat_gradients[: net.n_weights]
        ops.write(state.stats[WEIGHT : WEIGHT + 1], ops.to_host(trainer.state.stats)[WEIGHT : WEIGHT + 1])
        ops.penalty(net.flat[: net.n_weights], gradients, trainer.penalties, state)
        if not (ops.all_finite(gradients) and math.isfinite(float(ops.to_host(state.stats)[LOSS]))):
            return f"the penalty of l1={trainer.l1:g}, l2={trainer.l2:g}; lower them"
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.linalg.norm(ops.to_host(net.flat_gradients).astype(np.float64)))
    if trainer.clip_norm is not None and not math.isfinite(norm):
        return "the norm of the gradients, each of which is finite"
    return None


def _in_buffers(trainer: Trainer, step: Step) -> str | None:
    """The first launch of a stopped step whose buffers hold NaN or infinity: what no second computation may show."""
    net, launches = trainer.net, getattr(step.recording, "launches", ())
    for launch in launches:
        if launch.scope == "update":
            break  # its scratch holds anything behind a stop
        numbers = [array for array in launch.operands if array.dtype == net.dtype and array.size]
        if not all(map(net.backend.all_finite, numbers)):
            scope = f"loss, behind layer {len(net.layers) - 1}," if launch.scope == "loss" else launch.scope
            return (
                f"{scope or 'the step'} ({launch.name}), which computing it again does not give: suspect the "
                "memory, or what wrote into it meanwhile"
            )
    return None


def first_not_finite(trainer: Trainer, x: Array, y: Array, w: Array, first: int = 0) -> str | None:
    """The first place in the order of computation that is not finite, in words; None where all are finite.

    x are the rows of a batch from number `first` on.
    """
    net, ops, loss = trainer.net, trainer.net.backend, trainer.loss
    for name, view in net.parameters().items():
        if not ops.all_finite(view):
            return f"parameter {name}"
    state = State(ops, 0)
    ops.write(state.counters[STEP : STEP + 1], [trainer.steps])
    of_inputs, *drops = net.drops(trainer.masks, state, first)
    a = net.dropped(x, of_inputs)
    for k, (layer, drop) in enumerate(zip(net.layers, [*drops, None], strict=True)):
        a, _ = layer.forward(ops, a, keep=True, drop=drop)  # as in the step: by the moments of the batch
        if not ops.all_finite(a):
            return f"the output of layer {k} ({layer!r})"
    net.backpropagate(x, y, w, loss=loss, state=state, masks=trainer.masks, first=first)
    for k in reversed(range(len(net.layers))):  # the backward pass runs from the last layer down
        layer = net.layers[k]
        for name, gradient in layer.gradients().items():
            if not ops.all_finite(gradient):
                return f"the gradient {name} of layer {k} ({layer!r})"
    if not math.isfinite(float(ops.to_host(state.stats)[LOSS])):
        return f"the loss {loss.name}, behind layer {len(net.layers) - 1}"
    return None
