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

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters; matrices are subject to penalties, vectors are not."""
        return {"W": (self.n_in, self.n_out)} | ({"b": (self.n_out,)} if self.bias else {})

    def bind(self, ops: Backend, parameters: dict[str, Array], gradients: dict[str, Array]) -> None:
        """Takes the views that hold this layer's parameters and gradients."""
        self.W, self.dW = parameters["W"], gradients["W"]
        self.b = parameters["b"] if self.bias else ops.zeros((self.n_out,), self.W.dtype)
        self.db = gradients["b"] if self.bias else ops.zeros((self.n_out,), self.W.dtype)

    def product(self, ops: Backend, x: Array) -> Array:
        """x W, before bias and activation."""
        return ops.matmul(x, self.W)

    def forward(self, ops: Backend, x: Array, *, keep: bool) -> tuple[Array, Array]:
        """a = g(x W + b), and with `keep` what `backward` needs of it."""
        return ops.bias_activation(self.product(ops, x), self.b, self.activation, keep=keep)

    def backward(
        self, ops: Backend, x: Array, saved: Array, upstream: Array, *, need_dx: bool = True
    ) -> Array | None:
        """BP2 and BP3, then BP4: from dE/da (overwritten) to dW, db and dE/dx."""
        delta = ops.delta(upstream, saved, self.activation, self.db)
        return self.backward_delta(ops, x, delta, need_dx=need_dx)

    def backward_delta(self, ops: Backend, x: Array, delta: Array, *, need_dx: bool = True) -> Array | None:
        """BP4: dW = x^T delta; and dE/dx = delta W^T, the upstream of the layer below."""
        dx = ops.matmul(delta, self.W.T) if need_dx else None
        ops.matmul(x.T, delta, out=self.dW)
        return dx

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
