"""What the outputs of a network mean, by the loss that it was trained with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .functions import loss_of

Array = npt.NDArray[Any]


def values(z: Array, loss: Any) -> Array:
    """The predicted values for outputs z: exp(z) are rates, 1 / (1 + exp(-z)) are probabilities, else z itself."""
    if loss == "poisson":
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(z))
    return _sigmoid(z) if loss == "binary_cross_entropy" else z


def class_probabilities(z: Array, loss: Any) -> Array | None:
    """(n, n_classes) for outputs z of a classifier, where the loss gives them that meaning, else None."""
    if loss == "binary_cross_entropy":
        return _sigmoid(z)
    if not loss_of(loss).softmax:
        return None
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _sigmoid(z: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-z) = infinity gives 0
        return np.asarray(1 / (1 + np.exp(-z)))
