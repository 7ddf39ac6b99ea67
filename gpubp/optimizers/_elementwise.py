"""Optimizers that treat every number alike; the update itself is a rule of kernels/optimizers.py.

For a parameter p with gradient g, slots that start at 0, and t counting updates from 1. `weight_decay` applies to
every parameter, biases too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from gpubp.errors import InputError
from gpubp.kernels.optimizers import RULES, Rule

from ._base import LEAST_EPS, Optimizer


@dataclass(frozen=True)
class SGD(Optimizer):
    """g += decay p;  v = momentum v + g;  p -= lr v, or with Nesterov p -= lr (g + momentum v).

    With `step_velocity` v holds steps:  v = momentum v - lr g;  p += v, or with Nesterov p += momentum v - lr g. The
    two forms are one while lr stays; where it changes, here alone earlier steps keep the lr they were made with.

    Source: Sutskever et al. 2013, whose form is that of `step_velocity`, as in scikit-learn; the other is PyTorch's
    (no dampening).
    """

    lr: float = 1e-2
    weight_decay: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    step_velocity: bool = False
    name: ClassVar[str] = "sgd"
    _numbers: ClassVar[tuple[str, ...]] = ("momentum", "nesterov", "step_velocity")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("momentum", self.momentum, 0, 1)
        self._check_flag("nesterov")
        self._check_flag("step_velocity")
        if self.nesterov and self.momentum == 0:
            raise InputError(
                "SGD: expected momentum above 0 with nesterov=True; got momentum=0; set momentum=0.9"
            )

    @property
    def rule(self) -> Rule:
        """The update rule in kernels/optimizers.py: without momentum one that keeps no velocity."""
        return RULES["sgd" if self.momentum else "plain_sgd"]


@dataclass(frozen=True)
class Adam(Optimizer):
    """g += decay p;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr/(1-b1^t) m / (sqrt(v/(1-b2^t)) + eps).

    With `epsilon_hat`  p -= lr sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + eps):  eps then is what the paper calls epsilon hat
    at the end of its section 2, and weighs more in the first steps.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1, as PyTorch has it; scikit-learn has the other form.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    epsilon_hat: bool = False
    name: ClassVar[str] = "adam"
    _rule: ClassVar[str] = "adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_betas()
        self._check("eps", self.eps, LEAST_EPS, math.inf)
        self._check_flag("epsilon_hat")

    def hyper(self) -> list[float]:
        """What the rule reads: learning rate, gradient factor, weight decay, b1, b2, eps, epsilon_hat."""
        return [self.lr, 1.0, self.weight_decay, *self.betas, self.eps, float(self.epsilon_hat)]


@dataclass(frozen=True)
class AdamW(Adam):
    """p -= lr decay p, then Adam's step on the plain g: the decay is decoupled from the gradient's scale.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101; default decay 0.01 as in PyTorch.
    """

    weight_decay: float = 1e-2
    name: ClassVar[str] = "adamw"
    _rule: ClassVar[str] = "adamw"


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """g += decay p;  v = alpha v + (1-alpha) g^2;  p -= lr g / (sqrt(v) + eps).

    Source: Tieleman and Hinton 2012, lecture 6e; eps outside the root, as PyTorch has it.
    """

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    name: ClassVar[str] = "rmsprop"
    _rule: ClassVar[str] = "rmsprop"
    _numbers: ClassVar[tuple[str, ...]] = ("alpha", "eps")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("alpha", self.alpha, 0, 1)
        self._check("eps", self.eps, LEAST_EPS, math.inf)


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """g += decay p;  v += g^2;  p -= lr / (1 + (t-1) lr_decay) g / (sqrt(v) + eps).

    Source: Duchi, Hazan and Singer 2011, in PyTorch's form.
    """

    lr: float = 1e-2
    lr_decay: float = 0.0
    eps: float = 1e-10
    name: ClassVar[str] = "adagrad"
    _rule: ClassVar[str] = "adagrad"
    _numbers: ClassVar[tuple[str, ...]] = ("lr_decay", "eps")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("lr_decay", self.lr_decay, 0, math.inf)
        self._check("eps", self.eps, LEAST_EPS, math.inf)


@dataclass(frozen=True)
class Lion(Optimizer):
    """p -= lr decay p;  p -= lr sign(b1 m + (1-b1) g);  m = b2 m + (1-b2) g, where sign(0) = 0.

    Every parameter moves by lr in each step, so lr is to be 3 to 10 times smaller than Adam's, and the decoupled
    weight_decay as much larger. Half of Adam's state.

    Source: Chen et al. 2023, arXiv:2302.06675, algorithm 2.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    name: ClassVar[str] = "lion"
    _rule: ClassVar[str] = "lion"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_betas()

    def hyper(self) -> list[float]:
        """What the rule reads: learning rate, gradient factor, weight decay, b1, b2."""
        return [self.lr, 1.0, self.weight_decay, *self.betas]
