"""Losses by name, and what each asks of its targets; the mathematics stands in kernels/losses.py.

Target rows of softmax cross-entropy are taken as they are: l = sum_j y_j (ln sum_k exp(z_k) - z_j), with the delta
p sum_j y_j - y. Rows of probabilities sum to 1; a row with another sum s counts as its normalized row with weight s,
and a row of zeros not at all. Nothing is rescaled and nothing is said, for such rows may be meant as weights. So it is
with the focal loss, l = -sum_j y_j (1 - p_j)^2 ln p_j, p the softmax of z.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.checks import on_gpu
from gpubp.errors import ConfigError, EntryError
from gpubp.kernels.losses import LOSSES, Loss
from gpubp.kernels.losses import loss as find

__all__ = ["LOSSES", "Loss", "check_range", "find", "resolve", "takes_labels"]

_LINKS = {
    "softmax_cross_entropy": {"sigmoid": "the softmax", "exp": "the softmax"},
    "focal": {"sigmoid": "the softmax", "exp": "the softmax"},
    "binary_cross_entropy": {"sigmoid": "the sigmoid"},
    "poisson": {"exp": "the exponential"},
}
_RANGES = {  # of output activations
    "sigmoid": (0.0, 1.0),
    "exp": (0.0, np.inf),
    "softplus": (0.0, np.inf),
    "tanh": (-1.0, 1.0),
}


def resolve(loss: str | Loss, output: str) -> Loss:
    """The loss by name; warns where the output activation repeats the link that the loss itself applies.

    Raises ConfigError for a name that does not exist, and for outputs that the loss is not defined for.
    """
    found = find(loss)
    _check_outputs(found, output)
    twice = _LINKS.get(found.name, {}).get(output)
    if twice:
        warnings.warn(
            f"loss {found.name!r}: expected a network with output='identity', whose outputs are logits; got "
            f"output={output!r}, and the loss applies {twice} on top of it; use output='identity'",
            UserWarning,
            stacklevel=3,
        )
    return found


def _check_outputs(loss: Loss, output: str) -> None:
    """ConfigError where the output activation gives numbers that the loss is not defined for."""
    low, high = _RANGES.get(output, (-np.inf, np.inf))
    if low < loss.outputs[0] or high > loss.outputs[1]:
        fitting = [name for name, (a, b) in _RANGES.items() if loss.outputs[0] <= a and b <= loss.outputs[1]]
        cure = f"use output={fitting[0]!r}" if fitting else "choose another loss"
        raise ConfigError(
            f"loss {loss.name!r}: expected a network with outputs {_between(*loss.outputs)}; got output={output!r}; "
            f"{cure}"
        )


def _between(low: float, high: float) -> str:
    if high == np.inf:
        return f"of at least {low:g}"
    return f"of at most {high:g}" if low == -np.inf else f"from {low:g} to {high:g}"


def takes_labels(loss: Loss, y: Any) -> bool:
    """Whether targets y are class numbers of this loss rather than one value per output."""
    try:
        shape = y.shape if on_gpu(y) else np.shape(y)
    except ValueError:  # ragged: the check of the targets says so
        return False
    return loss.softmax and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))


def check_range(loss: Loss, y: npt.NDArray[Any], later: Any = None) -> None:
    """EntryError where targets lie outside what the loss is defined for; y is (batch, n_outputs).

    For targets on a GPU `later.add` takes the verdict (a boolean of the device) and what raises.
    """
    low, high = loss.targets
    if (low, high) == (-np.inf, np.inf):
        return
    bad = (y < low) | (y > high)

    def explain() -> None:
        index = tuple(map(int, np.unravel_index(int(bad.argmax()), bad.shape)))
        limits = _between(low, high).removeprefix("of ")
        before = f"y: loss {loss.name!r} expects targets {limits}; got {float(y[index]):g} in"
        raise EntryError(before, index, "rescale the targets or choose another loss")

    if later is not None and not isinstance(bad, np.ndarray):
        later.add(~bad.any(), explain)  # type: ignore[unreachable]  # of a GPU
    elif bad.any():
        explain()
