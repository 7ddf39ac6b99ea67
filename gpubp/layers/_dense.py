"""The dense layer, whose equations are those of backpropagation."""

from __future__ import annotations

import math
from typing import Any

from gpubp.backend.base import Array, Backend, Drop
from gpubp.checks import positive, real_number
from gpubp.errors import InputError
from gpubp.kernels.activations import Activation
from gpubp.kernels.activations import activation as find_activation
from gpubp.kernels.dropout import DROPPED

from ._base import Layer

_WIDTH = "every layer needs a unit"


class Dense(Layer):
    """a = g(x W + b) for x (batch, n_in), W (n_in, n_out), b (n_out,); a is (batch, n_out).

    `activation` names g, or is what `gpubp.activation` made; with `bias=False` there is no b. `initial` names the
    initializer of W, by default the one that fits g (He for rectifiers, Glorot for sigmoids; the network checks the
    name and draws); b starts at 0. With `max_norm` = c each update ends with W[:, j] *= min(1, c / |W[:, j]|): the
    incoming weights of no unit grow longer than c.
    Raises ConfigError and InputError.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: str | Activation = "identity",
        *,
        bias: bool = True,
        initial: str | None = None,
        max_norm: float | None = None,
    ) -> None:
        self.n_in, self.n_out = positive(n_in, "n_in", _WIDTH), positive(n_out, "n_out", _WIDTH)
        self.activation: Activation = find_activation(activation)
        if not isinstance(bias, bool):
            raise InputError(f"bias: expected True or False; got {bias!r}")
        self.bias = bias
        self.initial = initial
        self.max_norm = None if max_norm is None else _limit(max_norm)
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
        return {"W": (self.n_in, self.n_out)} | ({"b": (self.n_out,)} if self.bias else {})

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
            self.b, self.db = (ops.zeros((self.n_out,), self.W.dtype) for _ in range(2))
            self.stored_b = ops.zeros((self.n_out,), self.stored_W.dtype)

    def gradients(self) -> dict[str, Array]:
        """db, then dW."""
        return {"db": self.db, "dW": self.dW}

    def product(self, ops: Backend, x: Array) -> Array:
        """x W in the dtype of the parameters, before bias and activation."""
        return ops.matmul(x, self.stored_W, out=ops.empty((x.shape[0], self.n_out), self.W.dtype))

    def forward(self, ops: Backend, x: Array, *, keep: bool, drop: Drop | None = None) -> tuple[Array, Array]:
        """a = g(x W + b), and with `keep` what `delta` needs of it; `drop` drops some of a, and always keeps that."""
        if drop is not None:
            z = ops.matmul(x, self.stored_W)
            return ops.bias_activation_dropout(z, self.stored_b, self.activation, drop)
        return ops.dense(x, self.stored_W, self.stored_b, self.activation, keep=keep)

    def delta(
        self, ops: Backend, above: Layer, delta: Array, saved: Any, *, drop: Drop | None = None
    ) -> Array:
        """BP2, BP3: dE/dz and db; in one operation with the product of a Dense above."""
        g = self.activation if drop is None else DROPPED
        if isinstance(above, Dense):
            return ops.dense_delta(delta, above.stored_W, saved, g, self.db)
        return ops.delta(above.upstream(ops, delta), saved, g, self.db)

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
        """2 n_in n_out: of x W for one example."""
        return 2 * self.n_in * self.n_out

    def kept(self, *, dropped: bool) -> int:
        """z and a, or a alone where the derivative takes that; and delta."""
        return self.n_out * (2 if self.activation.d_f_of_output is not None and not dropped else 3)

    def described(self) -> str:
        """Widths, activation, and whether a bias is missing."""
        bias = "" if self.bias else ", no bias"
        return f"{self.n_in} to {self.n_out}, {self.activation.name}{bias}"

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again, without its parameters."""
        return {
            "layer": "dense",
            "n_in": self.n_in,
            "n_out": self.n_out,
            "activation": self.activation.config(),
            "bias": self.bias,
            "initial": self.initial,
            **({} if self.max_norm is None else {"max_norm": self.max_norm}),
        }

    def __repr__(self) -> str:
        bias = "" if self.bias else ", bias=False"
        limit = "" if self.max_norm is None else f", max_norm={self.max_norm:g}"
        return f"Dense({self.n_in}, {self.n_out}, {self.activation.name!r}{bias}{limit})"


def _limit(max_norm: Any) -> float:
    number = real_number(max_norm)
    if not 0 < number < math.inf:
        raise InputError(f"max_norm: expected None or a number above 0; got {max_norm!r}")
    return number
