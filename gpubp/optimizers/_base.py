"""What every optimizer is: its numbers, checked, and the update rule of kernels/optimizers.py that reads them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from gpubp.checks import real_number
from gpubp.errors import InputError
from gpubp.kernels.optimizers import RULES, Rule

LEAST_EPS = 1e-37  # 0 in float32, too, would make 0/0 of a parameter whose gradient is 0


@dataclass(frozen=True)
class Optimizer:
    """Base of the optimizers: lr is the learning rate, which a schedule multiplies."""

    lr: float = 1e-3
    weight_decay: float = 0.0
    name: ClassVar[str]
    _rule: ClassVar[str]
    _numbers: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self._check("lr", self.lr, 0, math.inf)
        self._check("weight_decay", self.weight_decay, 0, math.inf)

    def _check(self, name: str, value: Any, low: float, high: float) -> None:
        """InputError unless low <= value < high and finite."""
        number = real_number(value)
        if not low <= number < high:
            limit = f"of at least {low:g}" + (f" and below {high:g}" if math.isfinite(high) else "")
            raise InputError(f"{type(self).__name__}: {name}: expected a number {limit}; got {value!r}")
        if getattr(self, name) is value and not isinstance(value, (int, float)):
            object.__setattr__(self, name, number)  # a NumPy scalar, which no JSON takes

    def _check_flag(self, name: str) -> None:
        """InputError unless the field is True or False."""
        value = getattr(self, name)
        if not isinstance(value, bool):
            raise InputError(f"{type(self).__name__}: {name}: expected True or False; got {value!r}")

    def _check_betas(self) -> None:
        """InputError unless `betas` are two numbers in [0, 1); makes them a tuple of floats."""
        betas = getattr(self, "betas", None)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise InputError(f"{type(self).__name__}: betas: expected two numbers; got {betas!r}")
        for beta in betas:
            self._check("betas", beta, 0, 1)
        object.__setattr__(self, "betas", tuple(float(beta) for beta in betas))

    @property
    def rule(self) -> Rule:
        """The update rule in kernels/optimizers.py."""
        return RULES[self._rule]

    def hyper(self) -> list[float]:
        """What the rule reads: learning rate, gradient factor, weight decay, then its own numbers."""
        return [self.lr, 1.0, self.weight_decay, *(float(getattr(self, name)) for name in self._numbers)]

    def config(self) -> dict[str, Any]:
        """A dict of plain values from which `from_config` makes this optimizer again."""
        return {"optimizer": self.name, **asdict(self)}
