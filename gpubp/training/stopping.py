"""Early stopping: ends a run whose validation loss no longer falls, and gives the best weights back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.checks import positive, real_number
from gpubp.errors import InputError


class EarlyStopping:
    """Stops after `patience` epochs in which the validation loss did not fall by more than `min_delta`.

    The parameters of the best epoch are restored when `fit` returns, Ctrl-C included; an error leaves those it names.
    """

    def __init__(self, patience: int = 10, min_delta: float = 0.0) -> None:
        self.patience = positive(patience, "EarlyStopping: patience")
        self.min_delta = real_number(min_delta)
        if not self.min_delta >= 0:
            raise InputError(f"EarlyStopping: min_delta: expected a number of at least 0; got {min_delta!r}")
        self.reset()

    def reset(self) -> None:
        """Forgets what was seen: every `fit` begins anew, but for the first of a loaded trainer."""
        self.best = math.inf
        self.bad_epochs = 0
        self.parameters: npt.NDArray[Any] | None = None  # of the best epoch, flat

    def observe(self, loss: float, flat: npt.NDArray[Any] | Callable[[], npt.NDArray[Any]]) -> bool:
        """Takes the epoch's validation loss and the flat parameters; True where it is time to stop.

        The parameters are copied where the loss is the best one, and only then asked for if they come as a function.
        """
        if loss < self.best - self.min_delta or self.parameters is None:
            self.best = math.inf if math.isnan(loss) else loss
            self.bad_epochs, self.parameters = 0, np.array(flat() if callable(flat) else flat)
        else:
            self.bad_epochs += 1
        return self.bad_epochs >= self.patience

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint; the best parameters are stored as a tensor beside them."""
        return {
            "patience": self.patience,
            "min_delta": self.min_delta,
            "best": None if math.isinf(self.best) else self.best,
            "bad_epochs": self.bad_epochs,
        }

    def load_state(self, state: dict[str, Any], parameters: npt.NDArray[Any] | None) -> None:
        """Takes back what `state` gave."""
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.bad_epochs, self.parameters = int(state["bad_epochs"]), parameters
