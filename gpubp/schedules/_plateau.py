"""The schedule that watches the loss: lower once it has stopped falling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from gpubp.errors import ConfigError

from ._base import Factors, Schedule, Steps
from ._checks import checked_integer, checked_number


@dataclass(frozen=True)
class Plateau(Schedule):
    """factor = scale; after more than `patience` epochs no better, scale <- max(factor * scale, minimum).

    Better is a finite value below best - threshold |best|. `scale`, `best` and `bad_epochs` change
    only by `observe`, once per epoch, and stand in `state`: use one object per training run. For values >= 0
    this is PyTorch's ReduceLROnPlateau with eps=0 and no cooldown; below 0 its bar is
    best + threshold |best|.
    """

    name: ClassVar[str] = "plateau"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    minimum: float = 0.0
    scale: float = field(default=1.0, init=False, compare=False)
    best: float = field(default=math.inf, init=False, compare=False)
    bad_epochs: int = field(default=0, init=False, compare=False)

    def __post_init__(self) -> None:
        self._set(
            factor=checked_number(self.factor, "Plateau factor", 0, 1, above_low=True),
            patience=checked_integer(self.patience, "Plateau patience", 0),
            threshold=checked_number(self.threshold, "Plateau threshold", 0, 1),
            minimum=checked_number(self.minimum, "Plateau minimum", 0, 1),
        )

    @property
    def needs_total(self) -> bool:
        """False: the factor follows from the losses alone."""
        return False

    def _factor(self, s: Steps, total: int) -> Factors:
        return np.full(s.shape, self.scale)

    def observe(self, value: float) -> None:
        """Take an epoch's validation loss (or training loss); may lower `scale`."""
        value, bad = float(value), self.bad_epochs + 1
        bar = self.best * (1.0 - math.copysign(self.threshold, self.best))
        if math.isfinite(value) and value < bar:
            self._set(best=value)
            bad = 0
        if bad > self.patience:
            self._set(scale=max(self.scale * self.factor, self.minimum))
            bad = 0
        self._set(bad_epochs=bad)

    def state(self) -> dict[str, Any]:
        """{"scale", "best" (None before the first finite value; JSON has no infinity), "bad_epochs"}."""
        best = self.best if math.isfinite(self.best) else None
        return {"scale": self.scale, "best": best, "bad_epochs": self.bad_epochs}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned. Raises ConfigError, InputError."""
        if set(state) != {"scale", "best", "bad_epochs"}:
            got = sorted(map(str, state))
            raise ConfigError(f"schedule 'plateau': expected a state of scale, best, bad_epochs; got {got}")
        best = state["best"]
        self._set(
            scale=checked_number(state["scale"], "Plateau scale", 0, 1),
            best=math.inf if best is None else checked_number(best, "Plateau best", -math.inf, math.inf),
            bad_epochs=checked_integer(state["bad_epochs"], "Plateau bad_epochs", 0),
        )
