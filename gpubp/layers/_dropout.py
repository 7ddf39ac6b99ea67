"""Dropout, which stands before or between layers and is done by them."""

from __future__ import annotations

from typing import Any

from gpubp.checks import real_number
from gpubp.errors import InputError


class Dropout:
    """a' = a m / (1 - rate) of what the layer before it gives, or of the inputs: m = 0 with probability `rate`, else 1.

    In training steps only; `forward`, `predict` and `evaluate` drop nothing. Masks follow from the trainer's seed, the
    step and the place in the batch, the same ones on every device and at any number of threads. The rate is rounded to
    a multiple of 2^-16, and 1 / (1 - rate) is that of the rounded one.

    Source: Srivastava et al. 2014, JMLR 15; scaled in training, as PyTorch has it. Raises InputError.
    """

    def __init__(self, rate: float = 0.5) -> None:
        number = real_number(rate)
        if not 0 <= number < 1:
            raise InputError(f"Dropout: rate: expected a number of at least 0 and below 1; got {rate!r}")
        self.rate = number

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again."""
        return {"layer": "dropout", "rate": self.rate}

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"
