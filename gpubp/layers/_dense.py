"""The dense layer, whose equations are those of backpropagation."""

from __future__ import annotations

import math
from typing import Any

from gpubp.backend.base import Array, Backend, Drop
from gpubp.checks import real_number
from gpubp.errors import InputError
from gpubp.kernels.activations import ACTIVATIONS, Activation
from gpubp.kernels.dropout import DROPPED

from ._base import Above
from ._product import Product


class Dense(Product):
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
        super().__init__(n_in, n_out, activation, bias, initial)
        self.max_norm = None if max_norm is None else _limit(max_norm)

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
        self, ops: Backend, above: Above, delta: Array, saved: Any, *, drop: Drop | None = None
    ) -> Array:
        """BP2, BP3: dE/dz and db; in one operation with the product of the layer above, where that begins with one."""
        g = self.activation if drop is None else DROPPED
        if isinstance(above, Product):
            return ops.dense_delta(delta, above.stored_W, saved, g, self.db)
        return ops.delta(above.upstream(ops, delta), saved, g, self.db)

    @property
    def keeps_upstream(self) -> bool:
        """Where dE/dz is dE/da."""
        return self.activation is ACTIVATIONS["identity"]

    def kept(self, *, dropped: bool) -> int:
        """z and a, or a alone where the derivative takes that; and delta."""
        return self.n_out * (2 if self.activation.d_f_of_output is not None and not dropped else 3)

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again, without its parameters."""
        limit = {} if self.max_norm is None else {"max_norm": self.max_norm}
        return {"layer": "dense", **super().config(), **limit}

    def __repr__(self) -> str:
        bias = "" if self.bias else ", bias=False"
        limit = "" if self.max_norm is None else f", max_norm={self.max_norm:g}"
        return f"Dense({self.n_in}, {self.n_out}, {self.activation.name!r}{bias}{limit})"


def _limit(max_norm: Any) -> float:
    number = real_number(max_norm)
    if not 0 < number < math.inf:
        raise InputError(f"max_norm: expected None or a number above 0; got {max_norm!r}")
    return number
