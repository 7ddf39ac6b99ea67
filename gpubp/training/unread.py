"""Steps that a device was given and that nobody has waited for yet, and their losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpubp.backend.base import Array
from gpubp.kernels.losses import LOSS

from .step import Step

if TYPE_CHECKING:
    from .trainer import Trainer

_MOST = 100  # steps until somebody looks whether one of them was stopped


class Unread:
    """How far the host has run ahead of what it knows of the device."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> Step | None:
        """Forgets the steps, because somebody waits for them now; the last of them."""
        last: Step | None = getattr(self, "_last", None)
        self._last: Step | None = None
        self._count = 0
        self.position: int | None = None  # the number of the next update, where it is known without reading
        return last

    @property
    def many(self) -> bool:
        """Whether it is time to look."""
        return self._count >= _MOST

    def add(self, trainer: Trainer, step: Step) -> StepLoss:
        """Takes a step that was just launched; its loss."""
        if self.position is None:
            self.position = trainer.steps
        else:
            self.position += 1
        self._last, self._count = step, self._count + 1
        return StepLoss(trainer)


class StepLoss:
    """The loss of one training step, on the device until `float()` reads it.

    Reading waits for the device and raises NumericalError where this step, or one since the last reading, was stopped.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        ops = trainer.net.backend
        self._value: Array = ops.copy(trainer.state.stats[LOSS : LOSS + 1])

    def __float__(self) -> float:
        self._trainer.settle()
        return float(self._trainer.net.backend.to_host(self._value)[0])

    def __repr__(self) -> str:
        return f"StepLoss({float(self)!r})"
