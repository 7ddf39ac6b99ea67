"""What layers that begin with x W have in common: the product, and the way back from delta = dE/dz."""

from __future__ import annotations

from typing import Any

from gpubp.backend.base import Array, Backend
from gpubp.checks import positive
from gpubp.errors import InputError
from gpubp.kernels.activations import Activation
from gpubp.kernels.activations import activation as find_activation

from ._base import Layer

_WIDTH = "every layer needs a unit"


class Product(Layer):
    """z = x W for x (batch, n_in), W (n_in, matrices n_out), and b, which is added to z, if there is one."""

    def __init__(
        self, n_in: int, n_out: int, activation: str | Activation, bias: bool, initial: str | None
    ) -> None:
        self.n_in, self.n_out = positive(n_in, "n_in", _WIDTH), positive(n_out, "n_out", _WIDTH)
        self.activation: Activation = find_activation(activation)
        if not isinstance(bias, bool):
            raise InputError(f"bias: expected True or False; got {bias!r}")
        self.bias = bias
        self.initial = initial
        # Bound by the network: views of its flat buffers. A missing bias is a vector of zeros that nobody updates.
        self.W: Array = None
        self.b: Array = None
        self.dW: Array = None
        self.db: Array = None
        # What products read: W and b themselves, or their copies in the storage of the precision.
        self.stored_W: Array = None
        self.stored_b: Array = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """W, a matrix, and b, if there is one."""
        n_z = self.matrices * self.n_out
        return {"W": (self.n_in, n_z)} | ({"b": (n_z,)} if self.bias else {})

    def initials(self) -> dict[str, str | float | None]:
        """W is drawn, b is 0."""
        W = {"W": self.initial or self.activation.initial}
        return {**W, "b": 0.0} if self.bias else {**W}

    def bind(
        self,
        ops: Backend,
        parameters: dict[str, Array],
        gradients: dict[str, Array],
        stored: dict[str, Array],
    ) -> None:
        """Takes the views; without a bias, zeros of its own stand for it."""
        self.W, self.dW, self.stored_W = parameters["W"], gradients["W"], stored["W"]
        if self.bias:
            self.b, self.db, self.stored_b = parameters["b"], gradients["b"], stored["b"]
        else:
            n_z = self.matrices * self.n_out
            self.b, self.db = (ops.zeros((n_z,), self.W.dtype) for _ in range(2))
            self.stored_b = ops.zeros((n_z,), self.stored_W.dtype)

    def gradients(self) -> dict[str, Array]:
        """db, then dW."""
        return {"db": self.db, "dW": self.dW}

    def gradient(self, ops: Backend, x: Array, delta: Array) -> None:
        """BP4: dW = x^T delta."""
        ops.matmul(x.T, delta, out=self.dW)

    def upstream(self, ops: Backend, delta: Array) -> Array:
        """delta W^T."""
        return ops.matmul(delta, self.stored_W.T)

    def dx(self, ops: Backend, delta: Array) -> Array:
        """dE/dx = delta W^T, in the dtype of the parameters."""
        return ops.matmul(delta, self.stored_W.T, out=ops.empty((delta.shape[0], self.n_in), self.W.dtype))

    @property
    def flops(self) -> int:
        """2 n_in n_out for each matrix in W: of x W for one example."""
        return 2 * self.n_in * self.matrices * self.n_out

    def described(self) -> str:
        """Widths, activation, and whether a bias is missing."""
        bias = "" if self.bias else ", no bias"
        return f"{self.n_in} to {self.n_out}, {self.activation.name}{bias}"

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again, without its parameters; its kind is added to it."""
        return {
            "n_in": self.n_in,
            "n_out": self.n_out,
            "activation": self.activation.config(),
            "bias": self.bias,
            "initial": self.initial,
        }
