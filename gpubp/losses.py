"""Losses by name, and what each asks of its targets; the mathematics stands in kernels/losses.py."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.errors import InputError
from gpubp.kernels.losses import LOSSES, Loss
from gpubp.kernels.losses import loss as find

__all__ = ["LOSSES", "Loss", "check_range", "find", "resolve", "takes_labels"]

_LINKS = {
    "softmax_cross_entropy": {"sigmoid": "the softmax", "exp": "the softmax"},
    "binary_cross_entropy": {"sigmoid": "the sigmoid"},
    "poisson": {"exp": "the exponential"},
}


def resolve(loss: str | Loss, output: str) -> Loss:
    """The loss by name; warns where the output activation repeats the link that the loss itself applies.

    Raises ConfigError for a name that does not exist.
    """
    found = loss if isinstance(loss, Loss) else find(loss)
    twice = _LINKS.get(found.name, {}).get(output)
    if twice:
        warnings.warn(
            f"loss {found.name!r}: expected a network with output='identity', whose outputs are logits; got "
            f"output={output!r}, and the loss applies {twice} on top of it; use output='identity'",
            UserWarning,
            stacklevel=3,
        )
    return found


def takes_labels(loss: Loss, y: Any) -> bool:
    """Whether targets y are class numbers of this loss rather than one value per output."""
    try:
        shape = np.shape(y)
    except ValueError:  # ragged: the check of the targets says so
        return False
    return loss.name == "softmax_cross_entropy" and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))


def check_range(loss: Loss, y: npt.NDArray[Any]) -> None:
    """InputError where targets lie outside what the loss is defined for; y is (batch, n_outputs)."""
    low, high = {
        "softmax_cross_entropy": (0.0, np.inf),
        "binary_cross_entropy": (0.0, 1.0),
        "poisson": (0.0, np.inf),
    }.get(loss.name, (-np.inf, np.inf))
    if low == -np.inf:
        return
    bad = (y < low) | (y > high)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        limits = f"at least {low:g}" if high == np.inf else f"from {low:g} to {high:g}"
        raise InputError(
            f"y: loss {loss.name!r} expects targets {limits}; got {y[row, column]:g} in row {row}, column {column}; "
            "rescale the targets or choose another loss"
        )
