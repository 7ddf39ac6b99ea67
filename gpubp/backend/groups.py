"""The contract of a backend for updates that are not one rule over all parameters: groups, and Muon's matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gpubp.kernels.optimizers import Rule

from .state import State
from .terms import Array


class GroupedUpdates(ABC):
    """`prepare_groups` once a step, before anything else of its update; then a launch for each range or matrix."""

    @abstractmethod
    def prepare_groups(self, rule: Rule, gradients: Array, groups: Array, state: State) -> Array:
        """Stops the step where a gradient is not finite; c, whose rows the launches of each group take.

        groups (n, 2) in float64: the factor of the learning rate, and the weight decay, of each. In a row of c stand
        the rule's coefficients of this step and the factor of the gradient.
        """

    @abstractmethod
    def update_range(
        self,
        rule: Rule,
        parameters: Array,
        gradients: Array,
        slots: tuple[Array, ...],
        c: Array,
        state: State,
        stored: Array | None = None,
    ) -> None:
        """`Backend.update` of a range of the flat buffers, by its row of c; nothing where the step was stopped."""

    @abstractmethod
    def muon_direction(self, gradient: Array, momentum: Array, out: Array, c: Array, state: State) -> None:
        """M += (1 - mu) (G - M); out = U / |U|_F, U = G + mu (M - G) or M: matrices of one shape, out as stored.

        Where the step was stopped M stays, and `out` is not to be used.
        """

    @abstractmethod
    def muon_polynomial(self, gram: Array, square: Array) -> None:
        """square = a I + b gram + c square, in place, for square = gram gram, as stored: Newton and Schulz's matrix."""

    @abstractmethod
    def muon_step(
        self, W: Array, x: Array, scale: Array, c: Array, state: State, stored: Array | None = None
    ) -> None:
        """W -= lr decay W + lr scale x, scale (1,) in float64; nothing where the step was stopped.

        `stored` is the copy of W in storage dtype that the products read, written in the same pass.
        """
