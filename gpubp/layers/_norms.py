"""LayerNorm and RMSNorm, which bring each example's features to one size."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from gpubp.backend.base import Array, Backend, Drop
from gpubp.checks import positive, real_number
from gpubp.errors import InputError
from gpubp.kernels.activations import Activation
from gpubp.kernels.activations import activation as find_activation

from ._base import Above, Layer


class Norm(Layer):
    """a = g(gain (x - m) r + bias): as many outputs as inputs, and a delta that is dE/dx."""

    kind: ClassVar[str]  # in a configuration

    def __init__(self, n: int, activation: str | Activation, eps: float) -> None:
        name = type(self).__name__
        self.n_in = self.n_out = positive(n, f"{name}: n", "it is the width of the layer before")
        self.activation: Activation = find_activation(activation)
        number = real_number(eps)
        if not 1e-37 <= number <= 1e37:  # of others float32 makes 0 or infinity
            raise InputError(f"{name}: eps: expected a number from 1e-37 to 1e37; got {eps!r}")
        self.eps = number
        # Bound by the network: views of its flat buffers. A missing bias is a vector of zeros that nobody updates.
        self.gain: Array = None
        self.bias: Array = None
        self.dgain: Array = None
        self.dbias: Array = None
        self._eps: Array = None

    def gradient(self, ops: Backend, x: Array, delta: Array) -> None:
        """Nothing: `delta` has written them."""

    def upstream(self, ops: Backend, delta: Array) -> Array:
        """delta itself, which is dE/dx."""
        return delta

    def described(self) -> str:
        """Kind, width and activation."""
        return f"{type(self).__name__} of {self.n_out}, {self.activation.name}"

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again, without its parameters."""
        return {
            "layer": self.kind,
            "n": self.n_out,
            "activation": self.activation.config(),
            "eps": self.eps,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n_out}, {self.activation.name!r}, eps={self.eps:g})"


class _RowNorm(Norm):
    """m and r of each row."""

    center: ClassVar[bool]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """gain and, of LayerNorm, bias: vectors, to which penalties do not apply."""
        n = (self.n_out,)
        return {"gain": n, "bias": n} if self.center else {"gain": n}

    def initials(self) -> dict[str, str | float | None]:
        """gain is 1, bias 0."""
        return {"gain": 1.0, "bias": 0.0} if self.center else {"gain": 1.0}

    def bind(
        self,
        ops: Backend,
        parameters: dict[str, Array],
        gradients: dict[str, Array],
        stored: dict[str, Array],
    ) -> None:
        """Takes the views; parameters are read in their own dtype, whatever that of products is."""
        self.gain, self.dgain = parameters["gain"], gradients["gain"]
        if self.center:
            self.bias, self.dbias = parameters["bias"], gradients["bias"]
        else:
            self.bias, self.dbias = (ops.zeros((self.n_out,), self.gain.dtype) for _ in range(2))
        self._eps = ops.to_device(np.array([self.eps], self.gain.dtype))

    def gradients(self) -> dict[str, Array]:
        """dgain and, of LayerNorm, dbias."""
        return {"dgain": self.dgain} | ({"dbias": self.dbias} if self.center else {})

    def forward(self, ops: Backend, x: Array, *, keep: bool, drop: Drop | None = None) -> tuple[Array, Any]:
        """a, and what `delta` needs: x, m and r; `drop` drops some of a in a launch of its own."""
        a, moments = ops.normalize(x, self.gain, self.bias, self._eps, self.activation, center=self.center)
        if drop is not None:
            ops.dropout(a, a, drop)
        return a, (x, moments)

    def delta(
        self, ops: Backend, above: Above, delta: Array, saved: Any, *, drop: Drop | None = None
    ) -> Array:
        """dE/dx and the gradients."""
        upstream, (x, moments) = above.upstream(ops, delta), saved
        if drop is not None:
            ops.dropout(upstream, upstream, drop)
        return ops.normalize_delta(
            upstream,
            x,
            moments,
            self.gain,
            self.bias,
            self.activation,
            self.dgain,
            self.dbias,
            center=self.center,
        )

    def kept(self, *, dropped: bool) -> int:
        """a, m and r, and what stands above it on the way back."""
        return 2 * self.n_out + 4


class LayerNorm(_RowNorm):
    """a = g(gain (x - mean) / sqrt(variance + eps) + bias) for x (batch, n), mean and variance of each row.

    The variance is the biased one, over n. gain and bias (n,) start at 1 and 0; being vectors, they are subject to no
    penalty. `activation` names g, or is what `gpubp.activation` made. It stands between a linear layer and the
    activation, which it takes over: [Dense(784, 512), LayerNorm(512, "relu"), Dense(512, 10)].

    Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450. Raises ConfigError and InputError.
    """

    kind, center = "layer_norm", True

    def __init__(self, n: int, activation: str | Activation = "identity", *, eps: float = 1e-5) -> None:
        super().__init__(n, activation, eps)


class RMSNorm(_RowNorm):
    """a = g(gain x / sqrt(mean(x^2) + eps)) for x (batch, n), the mean over each row; a (batch, n). There is no bias.

    gain (n,) starts at 1; being a vector, it is subject to no penalty. `activation` names g, or is what
    `gpubp.activation` made.

    Source: Zhang, Sennrich 2019, NeurIPS. Raises ConfigError and InputError.
    """

    kind, center = "rms_norm", False

    def __init__(self, n: int, activation: str | Activation = "identity", *, eps: float = 1e-6) -> None:
        super().__init__(n, activation, eps)
