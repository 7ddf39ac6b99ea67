"""What stands in a network's list of layers: parameters by name, a way forward, a way back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from gpubp.backend.base import Array, Backend, Drop, State
from gpubp.kernels.activations import Activation


class Above(Protocol):
    """What a layer's delta comes from: the layer above it, or the end of the block that it stands in."""

    def upstream(self, ops: Backend, delta: Array) -> Array:
        """dE/da of the layer below, from its own delta."""


class Layer(ABC):
    """a (batch, n_out) from x (batch, n_in).

    On the way back a layer has its `delta`, which it makes of what the layer above gives: for Dense dE/dz, for others
    what they say. From it follow its `gradient`, and the `upstream` of the layer below.
    """

    n_in: int
    n_out: int
    activation: Activation  # the last thing that is done to what the layer gives
    categories: Mapping[int, int] = MappingProxyType(
        {}
    )  # inputs that are numbers of categories: how many there are
    matrices: int = 1  # that stand side by side in W; each is drawn on its own
    inner: tuple[Layer, ...] = ()  # the layers that it is made of, which have all its parameters
    untrained: tuple[str, ...] = ()  # parameters that have no gradient, and that `follow` changes
    nonnegative: tuple[str, ...] = ()  # parameters that are never below 0
    fewest: int = 1  # examples that a training step needs

    # parameters

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters; matrices are subject to penalties, vectors are not."""

    @abstractmethod
    def initials(self) -> dict[str, str | float | None]:
        """What each parameter starts as: a number, or drawn by the initializer so called; None: the activation's."""

    @abstractmethod
    def bind(
        self,
        ops: Backend,
        parameters: dict[str, Array],
        gradients: dict[str, Array],
        stored: dict[str, Array],
    ) -> None:
        """Takes the views that hold this layer's parameters, gradients, and parameters as products read them."""

    @abstractmethod
    def gradients(self) -> dict[str, Array]:
        """What the way back has written, by the names that messages give it, first what is computed first."""

    # forward and backward

    @abstractmethod
    def forward(self, ops: Backend, x: Array, *, keep: bool, drop: Drop | None = None) -> tuple[Array, Any]:
        """a, and with `keep`, as in training, what `delta` needs; `drop` drops some of a, and always keeps that."""

    @abstractmethod
    def delta(
        self, ops: Backend, above: Above, delta: Array, saved: Any, *, drop: Drop | None = None
    ) -> Array:
        """This layer's delta from that of the layer above, and the gradients that one pass gives with it."""

    @property
    def keeps_upstream(self) -> bool:
        """Whether `delta` leaves dE/da, as `above` gives it, what it is."""
        return False

    @abstractmethod
    def gradient(self, ops: Backend, x: Array, delta: Array) -> None:
        """The gradients that `delta` has not written."""

    @abstractmethod
    def upstream(self, ops: Backend, delta: Array) -> Array:
        """dE/dx in the storage of the batch, where the layer below may write over it."""

    def dx(self, ops: Backend, delta: Array) -> Array:
        """dE/dx in the storage of the batch or the dtype of the parameters."""
        return self.upstream(ops, delta)

    def follow(self, ops: Backend, saved: Any, state: State) -> None:  # noqa: B027 (most train all they have)
        """Behind the way back of a training step, changes what is not trained, by what `forward` kept."""

    # what it costs

    @property
    def flops(self) -> int:
        """Floating-point operations of the products for one example, forward."""
        return 0

    @abstractmethod
    def kept(self, *, dropped: bool) -> int:
        """Numbers that a training step allocates for each example where this layer is not the last."""

    # configuration

    @abstractmethod
    def described(self) -> str:
        """The layer in a few words."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again, without its parameters."""
