"""Layers: forward and backward of a dense layer, in the operations of a backend."""

from __future__ import annotations

from typing import Any

from gpubp.backend.base import Array, Backend
from gpubp.checks import positive
from gpubp.errors import ConfigError, InputError
from gpubp.kernels.activations import Activation
from gpubp.kernels.activations import activation as find_activation

_WIDTH = "every layer needs a unit"


class Dense:
    """a = g(x W + b) for x (batch, n_in), W (n_in, n_out), b (n_out,); a is (batch, n_out).

    `activation` names g; with `bias=False` there is no b. `initial` names the initializer of W, by default the one
    that fits g (He for rectifiers, Glorot for sigmoids; the network checks the name and draws); b starts at 0.
    Raises ConfigError and InputError.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: str = "identity",
        *,
        bias: bool = True,
        initial: str | None = None,
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
        """Names and shapes of the parameters; matrices are subject to penalties, vectors are not."""
        return {"W": (self.n_in, self.n_out)} | ({"b": (self.n_out,)} if self.bias else {})

    def bind(
        self,
        ops: Backend,
        parameters: dict[str, Array],
        gradients: dict[str, Array],
        stored: dict[str, Array],
    ) -> None:
        """Takes the views that hold this layer's parameters, gradients, and parameters as products read them."""
        self.W, self.dW, self.stored_W = parameters["W"], gradients["W"], stored["W"]
        if self.bias:
            self.b, self.db, self.stored_b = parameters["b"], gradients["b"], stored["b"]
        else:
            self.b, self.db = (ops.zeros((self.n_out,), self.W.dtype) for _ in range(2))
            self.stored_b = ops.zeros((self.n_out,), self.stored_W.dtype)

    def product(self, ops: Backend, x: Array) -> Array:
        """x W in the dtype of the parameters, before bias and activation."""
        return ops.matmul(x, self.stored_W, out=ops.empty((x.shape[0], self.n_out), self.W.dtype))

    def forward(self, ops: Backend, x: Array, *, keep: bool) -> tuple[Array, Array]:
        """a = g(x W + b), and with `keep` what `delta` needs of it."""
        return ops.dense(x, self.stored_W, self.stored_b, self.activation, keep=keep)

    def delta(self, ops: Backend, above: Dense, delta: Array, saved: Array) -> Array:
        """BP2, BP3: this layer's delta and db from the delta of the layer above."""
        return ops.dense_delta(delta, above.stored_W, saved, self.activation, self.db)

    def gradient(self, ops: Backend, x: Array, delta: Array) -> None:
        """BP4: dW = x^T delta."""
        ops.matmul(x.T, delta, out=self.dW)

    def dx(self, ops: Backend, delta: Array) -> Array:
        """dE/dx = delta W^T, in the dtype of the parameters."""
        return ops.matmul(delta, self.stored_W.T, out=ops.empty((delta.shape[0], self.n_in), self.W.dtype))

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again, without its parameters."""
        return {
            "layer": "dense",
            "n_in": self.n_in,
            "n_out": self.n_out,
            "activation": self.activation.name,
            "bias": self.bias,
            "initial": self.initial,
        }

    def __repr__(self) -> str:
        bias = "" if self.bias else ", bias=False"
        return f"Dense({self.n_in}, {self.n_out}, {self.activation.name!r}{bias})"


def from_config(config: dict[str, Any]) -> Dense:
    """The layer that `config()` described. Raises ConfigError for a kind that does not exist."""
    options = dict(config)
    kind = options.pop("layer", None)
    if kind != "dense":
        raise ConfigError(
            f"unknown layer: expected 'dense'; got {kind!r}; the file was written by a newer gpubp"
        )
    try:
        return Dense(options.pop("n_in"), options.pop("n_out"), **options)
    except (TypeError, KeyError) as error:
        raise ConfigError(
            f"layer: expected n_in, n_out, activation, bias, initial; got {config!r}"
        ) from error
