"""Muon: momentum whose singular values are made about 1 is the step of a hidden matrix; AdamW takes the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from gpubp.backend import Backend, State
from gpubp.backend.base import Array
from gpubp.errors import InputError, unknown_name

from ._base import LEAST_EPS, Optimizer

MATCH_RMS, ORIGINAL = ADJUSTMENTS = ("match_rms_adamw", "original")
_MOST_STEPS = 99  # as PyTorch has it


@dataclass(frozen=True)
class Muon(Optimizer):
    """m = mu m + (1-mu) g;  u = (1-mu) g + mu m, or without Nesterov m;  p -= lr decay p;  p -= lr s O.

    So for the W (n_in, n_out) of each layer that has one, in a `Residual` too, except the last and, with `first=False`,
    the first; [W_u | W_v] of a gated layer is one matrix. O is u with all its singular values made about 1: X = u over
    its Frobenius norm, then `steps` times X <- (a I + b A + c A^2) X with A = X X^T and (a, b, c) = (3.4445, -4.7750,
    2.0315), on the smaller side of X. Its products have the network's precision. s is 0.2 sqrt(max(n_in, n_out)) with
    `adjust` "match_rms_adamw", which makes a step about as long as AdamW's, so that one lr and one weight_decay serve
    both; with "original" it is sqrt(max(1, n_out / n_in)), and lr is to be about 0.02.

    All other parameters take the steps of `AdamW` with `betas` and `eps`. Three products for each of the steps cost
    more than the gradients of a small batch do.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/, with the momentum of torch.optim.Muon; s by
    Liu et al. 2025, arXiv:2502.16982, section 2.2.
    """

    lr: float = 1e-3
    weight_decay: float = 1e-2
    momentum: float = 0.95
    nesterov: bool = True
    steps: int = 5
    adjust: str = MATCH_RMS
    first: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    name: ClassVar[str] = "muon"
    _rule: ClassVar[str] = "adamw"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("momentum", self.momentum, 0, 1)
        self._check_flag("nesterov")
        self._check_flag("first")
        self._check_betas()
        self._check("eps", self.eps, LEAST_EPS, math.inf)
        steps: Any = self.steps
        if isinstance(steps, bool) or not isinstance(steps, Integral) or not 1 <= int(steps) <= _MOST_STEPS:
            raise InputError(f"Muon: steps: expected an integer from 1 to {_MOST_STEPS}; got {steps!r}")
        object.__setattr__(self, "steps", int(steps))  # NumPy's is no JSON
        if self.adjust not in ADJUSTMENTS:
            raise unknown_name("Muon: adjust", self.adjust, ADJUSTMENTS)

    def hyper(self) -> list[float]:
        """What the kernels read: AdamW's numbers, then momentum and nesterov."""
        adamw = [self.lr, 1.0, self.weight_decay, *self.betas, self.eps, 0.0]
        return [*adamw, self.momentum, float(self.nesterov)]

    def scale(self, n_in: int, n_out: int) -> float:
        """s, by which lr is multiplied for a matrix of this shape."""
        if self.adjust == MATCH_RMS:
            return 0.2 * math.sqrt(max(n_in, n_out))
        return math.sqrt(max(1.0, n_out / n_in))


@dataclass(frozen=True)
class Matrix:
    """A hidden matrix of `Muon`: W (n_in, n_out), its gradient, its momentum, and the copy that products read."""

    W: Array
    gradient: Array
    momentum: Array
    stored: Array | None
    scale: Array  # (1,) in float64: s of Muon

    def step(self, ops: Backend, room: Room, steps: int, c: Array, state: State) -> None:
        """One update, by the row c of its group; nothing where the step was stopped."""
        x, y, gram, polynomial = room.views(*self.W.shape)
        ops.muon_direction(self.gradient, self.momentum, x, c, state)
        tall = x.shape[0] > x.shape[1]
        for _ in range(steps):
            ops.matmul(*((x.T, x) if tall else (x, x.T)), out=gram)
            ops.matmul(gram, gram, out=polynomial)
            ops.muon_polynomial(gram, polynomial)
            ops.matmul(*((x, polynomial) if tall else (polynomial, x)), out=y)
            x, y = y, x
        ops.muon_step(self.W, x, self.scale, c, state, self.stored)


class Room:
    """Memory in storage dtype that the matrices take turns in."""

    def __init__(self, ops: Backend, shapes: list[tuple[int, int]], storage: Any) -> None:
        size, side = max(m * n for m, n in shapes), max(min(shape) for shape in shapes)
        self._x = [ops.empty((size,), storage) for _ in range(2)]
        self._gram = [ops.empty((side * side,), storage) for _ in range(2)]

    def views(self, m: int, n: int) -> tuple[Array, Array, Array, Array]:
        """X and the next one (m, n); A and the polynomial of it, on the smaller side."""
        side = min(m, n)
        x, y = (flat[: m * n].reshape(m, n) for flat in self._x)
        gram, polynomial = (flat[: side * side].reshape(side, side) for flat in self._gram)
        return x, y, gram, polynomial
