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
from gpubp.errors import EntryError
from gpubp.kernels.losses import LOSSES, Loss
from gpubp.kernels.losses import loss as find

__all__ = ["LOSSES", "Loss", "check_range", "find", "resolve", "takes_labels"]

_LINKS = {
    "softmax_cross_entropy": {"sigmoid": "the softmax", "exp": "the softmax"},
    "focal": {"sigmoid": "the softmax", "exp": "the softmax"},
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
        shape = y.shape if on_gpu(y) else np.shape(y)
    except ValueError:  # ragged: the check of the targets says so
        return False
    return loss.softmax and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))


def check_range(loss: Loss, y: npt.NDArray[Any], later: Any = None) -> None:
    """EntryError where targets lie outside what the loss is defined for; y is (batch, n_outputs).

    For targets on a GPU `later.add` takes the verdict (a boolean of the device) and what raises.
    """
    low, high = {
        "softmax_cross_entropy": (0.0, np.inf),
        "focal": (0.0, np.inf),
        "binary_cross_entropy": (0.0, 1.0),
        "poisson": (0.0, np.inf),
    }.get(loss.name, (-np.inf, np.inf))
    if low == -np.inf:
        return
    bad = (y < low) | (y > high)

    def explain() -> None:
        index = tuple(map(int, np.unravel_index(int(bad.argmax()), bad.shape)))
        limits = f"at least {low:g}" if high == np.inf else f"from {low:g} to {high:g}"
        before = f"y: loss {loss.name!r} expects targets {limits}; got {float(y[index]):g} in"
        raise EntryError(before, index, "rescale the targets or choose another loss")

    if later is not None and not isinstance(bad, np.ndarray):
        later.add(~bad.any(), explain)  # type: ignore[unreachable]  # of a GPU
    elif bad.any():
        explain()
