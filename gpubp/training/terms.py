"""What makes an update of a loss, beside the optimizer: smoothed targets, what dropout drops, penalties, clipping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.checks import real_number
from gpubp.errors import ConfigError, InputError
from gpubp.losses import Loss
from gpubp.network import MOST_MASKS

# of a Trainer, as its files have them
TERMS = (
    "l1", "l2", "divide_penalty", "clip_norm", "clip_value", "label_smoothing", "ema", "accumulate", "groups",
)  # fmt: skip

_BINARY = "binary_cross_entropy"


def strength(value: Any, name: str) -> float:
    """The strength of a penalty."""
    number = real_number(value)
    if not 0 <= number < math.inf:
        raise InputError(f"{name}: expected a number of at least 0; got {value!r}")
    return number


def flag(value: Any, name: str) -> bool:
    """True or False, and nothing that only passes for it."""
    if not isinstance(value, bool):
        raise InputError(f"{name}: expected True or False; got {value!r}")
    return value


def limit(value: Any, name: str) -> float | None:
    """A limit that gradients are clipped to."""
    number = math.inf if value is None else real_number(value)
    if value is not None and not 0 < number < math.inf:
        raise InputError(f"{name}: expected None or a number above 0; got {value!r}")
    return None if value is None else number


def smoothing(value: Any, loss: Loss) -> float:
    """The rate of label smoothing; ConfigError for a loss that has no classes."""
    number = real_number(value)
    if not 0 <= number < 1:
        raise InputError(f"label_smoothing: expected a number of at least 0 and below 1; got {value!r}")
    if number and not (loss.softmax or loss.name == _BINARY):
        raise ConfigError(
            f"label_smoothing: expected a loss of classes, behind a softmax or {_BINARY!r}; got {loss.name!r}; leave "
            "it at 0, or change the loss"
        )
    return number


def smoothed(rate: float, loss: Loss, outputs: int) -> tuple[float, float]:
    """(on, off): targets y become on y + off, whose classes share `rate` alike."""
    return 1 - rate, rate / (outputs if loss.softmax else 2)


def masks_of(seed: int | None) -> int:
    """The seed of dropout's masks, which has nothing to do with the order of the examples."""
    return int(np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(1, np.uint64)[0] % MOST_MASKS)
