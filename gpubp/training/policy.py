"""What follows NaN or infinity in a training step: stop, leave the batch out, or go back and learn more slowly."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.errors import NumericalError, unknown_name
from gpubp.kernels.replay import SKIPPED, STEP

from .diagnose import Finding

if TYPE_CHECKING:
    from .position import Position
    from .step import Step
    from .trainer import Trainer

STOP, SKIP, ROLLBACK = POLICIES = ("stop", "skip", "rollback")
MOST_ROLLBACKS = 8  # in a row: the learning rate is then 1/256 of what it was
_MOST_TOLD = 3  # batches left out that an epoch names one by one: each costs a pass that looks for the layer
_SLOWER = 0.5


class RolledBack(Exception):
    """Ends an epoch that is to be repeated; `finding` says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding)
        self.finding = finding


def checked_policy(value: Any) -> str:
    """`value` if it names a policy; ConfigError otherwise."""
    if value not in POLICIES:
        raise unknown_name("on_nan", value, POLICIES)
    return str(value)


def of_one_step(trainer: Trainer, step: Step, finding: Finding) -> None:
    """What `Trainer.step` does with a step that was stopped, which has changed nothing. Raises NumericalError."""
    if trainer.on_nan == STOP or finding.lost:
        raise finding.error()
    if trainer.on_nan == SKIP:
        step.skip()
        _warn(f"{finding.what}; the batch is left out")
    else:
        slow_down(trainer)
        _warn(f"{finding.what}; {finding.kept}, the learning rate is now {trainer.optimizer.lr:g}")


def slow_down(trainer: Trainer) -> None:
    """Halves the optimizer's learning rate, for good: a checkpoint holds it."""
    trainer.optimizer = dataclasses.replace(trainer.optimizer, lr=_SLOWER * trainer.optimizer.lr)


class Policy:
    """The policy of a trainer through the epochs of one `fit`."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.name = trainer, trainer.on_nan
        ops, net = trainer.net.backend, trainer.net
        self.good = ops.empty(net.flat.shape, net.dtype)  # the weights before the epoch
        slots = trainer.slots if self.name == ROLLBACK else ()
        self._slots = [ops.empty(slot.shape, slot.dtype) for slot in slots]
        self._counts = ops.copy(trainer.state.counters)  # before the epoch; on the device: nothing waits
        self._rollbacks = 0
        self.skipped = 0  # batches of this epoch

    @property
    def watches(self) -> bool:
        """Whether every chunk of steps is looked at, on a GPU too: what follows a stop does nothing there."""
        return self.name != STOP

    def begin(self, at: Position | None = None) -> None:
        """Remembers what an epoch may go back to; of one that is gone on with, what was remembered at its beginning."""
        trainer, write = self.trainer, self.trainer.net.backend.write
        begun = (trainer.net.flat, *trainer.slots) if at is None else at.begun
        for copy, values in zip((self.good, *self._slots), begun, strict=False):
            write(copy, values)
        write(self._counts, trainer.state.counters)
        self.skipped = 0
        if at is not None:
            for which, count in ((STEP, trainer.steps - at.steps), (SKIPPED, at.overflowed)):
                write(self._counts[which : which + 1], [count])
            self.skipped, self._rollbacks = at.skipped, at.rollbacks

    def so_far(self) -> dict[str, Any]:
        """What a position keeps of this epoch."""
        ops = self.trainer.net.backend
        return {
            "overflowed": int(ops.to_host(self._counts)[SKIPPED]),
            "skipped": self.skipped,
            "rollbacks": self._rollbacks,
            "begun": tuple(np.array(ops.to_host(copy)) for copy in (self.good, *self._slots)),
        }

    def stopped(self, step: Step | None, finding: Finding) -> None:
        """Leaves the batch out, ends the epoch with RolledBack, or raises NumericalError."""
        if self.name == ROLLBACK:
            raise RolledBack(finding)
        if self.name == STOP or finding.lost or step is None:
            raise finding.error()
        step.skip()
        self.skipped += 1
        if self.skipped <= _MOST_TOLD:
            self._say(f"{finding.what}; the batch is left out")

    def end(self, steps: int) -> None:
        """After an epoch of so many steps. NumericalError where none of them could be made."""
        self._rollbacks = 0
        if self.skipped and self.skipped == steps:
            raise NumericalError(
                f"epoch {self.trainer.epoch + 1}: expected a batch with finite numbers; got NaN or infinity in all "
                f"{steps}; the weights are those of the beginning of the epoch; scale the inputs, or look at the data"
            )
        if self.skipped > _MOST_TOLD:
            self._say(f"epoch {self.trainer.epoch + 1}: {self.skipped} of {steps} batches are left out")

    def back(self, finding: Finding) -> None:
        """Weights, optimizer and counters as the epoch found them, and half the learning rate from there on."""
        trainer, ops = self.trainer, self.trainer.net.backend
        ops.write(trainer.net.flat, self.good)
        trainer.net.store()
        for copy, slot in zip(self._slots, trainer.slots, strict=True):
            ops.write(slot, copy)
        for which in (STEP, SKIPPED):
            ops.write(trainer.state.counters[which : which + 1], self._counts[which : which + 1])
        self._rollbacks += 1
        if self._rollbacks > MOST_ROLLBACKS:
            raise NumericalError(
                f"{finding.what}, and so after {MOST_ROLLBACKS} rollbacks; the weights are those of the beginning of "
                f"the epoch; scale the inputs, or look at the data (the learning rate is {trainer.optimizer.lr:g})"
            )
        slow_down(trainer)
        self._say(
            f"{finding.what}; rolled back to the beginning of epoch {trainer.epoch + 1}, the learning rate is now "
            f"{trainer.optimizer.lr:g}"
        )

    def _say(self, message: str) -> None:
        if self.trainer.display is not None:
            self.trainer.display.pause()
        _warn(message)


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
