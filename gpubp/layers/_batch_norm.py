"""BatchNorm, which brings each feature to one size over the examples of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backend.base import Array, Backend, Drop, State
from gpubp.checks import real_number
from gpubp.errors import InputError
from gpubp.kernels.activations import Activation

from ._base import Above
from ._norms import Norm


class BatchNorm(Norm):
    """a = g(gain (x - mean) / sqrt(variance + eps) + bias) for x (batch, n), mean and variance of each column.

    In training the moments are those of the batch, the variance biased, over the batch; a batch, and with `accumulate`
    each micro-batch, has at least two examples. Behind each of them the running moments follow,

        running += momentum (that of the batch - running),    the variance unbiased, over batch - 1,

    unless its loss, or one before it in the step, is not finite (a gradient that is not finite is seen later).
    Predictions take these. They start at 0 and 1, and stand among `net.parameters()` as "1.mean" and "1.variance"
    without being trained: no gradient, penalty, decay or group reaches them, files hold them, `ema` averages them.

    gain and bias (n,) start at 1 and 0; being vectors, they are subject to no penalty. It stands between a linear layer
    and the activation, which it takes over: [Dense(784, 512), BatchNorm(512, "relu"), Dense(512, 10)].

    Source: Ioffe, Szegedy 2015, arXiv:1502.03167. Raises ConfigError and InputError.
    """

    kind = "batch_norm"
    untrained, nonnegative = ("mean", "variance"), ("variance",)
    fewest = 2

    def __init__(
        self,
        n: int,
        activation: str | Activation = "identity",
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__(n, activation, eps)
        self.momentum = real_number(momentum)
        if not 0 < self.momentum <= 1:
            raise InputError(
                f"BatchNorm: momentum: expected a number above 0, at most 1; got {momentum!r}; it is the share of the "
                "newest batch"
            )
        self.mean: Array = None
        self.variance: Array = None
        self._momentum: Array = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """gain and bias, vectors, to which penalties do not apply; mean and variance, which are not trained."""
        return dict.fromkeys(("gain", "bias", *self.untrained), (self.n_out,))

    def initials(self) -> dict[str, str | float | None]:
        """gain is 1, bias 0; mean 0, variance 1."""
        return {"gain": 1.0, "bias": 0.0, "mean": 0.0, "variance": 1.0}

    def bind(
        self,
        ops: Backend,
        parameters: dict[str, Array],
        gradients: dict[str, Array],
        stored: dict[str, Array],
    ) -> None:
        """Takes the views; parameters are read in their own dtype, whatever that of products is."""
        self.gain, self.dgain = parameters["gain"], gradients["gain"]
        self.bias, self.dbias = parameters["bias"], gradients["bias"]
        self.mean, self.variance = parameters["mean"], parameters["variance"]
        self._eps = ops.to_device(np.array([self.eps], self.gain.dtype))
        self._momentum = ops.to_device(np.array([self.momentum]))

    def gradients(self) -> dict[str, Array]:
        """dgain and dbias."""
        return {"dgain": self.dgain, "dbias": self.dbias}

    def forward(self, ops: Backend, x: Array, *, keep: bool, drop: Drop | None = None) -> tuple[Array, Any]:
        """a, and with `keep`, by the moments of the batch, x and these; else by the running ones."""
        if keep:
            if x.shape[0] < self.fewest:
                raise InputError(
                    f"{self!r}: expected at least {self.fewest} examples at a time, to take their variance; got "
                    f"{x.shape[0]}; pass more"
                )
            a, moments = ops.batch_normalize(x, self.gain, self.bias, self._eps, self.activation)
        else:
            running = self.mean, self.variance
            a = ops.normalize_by_running(x, self.gain, self.bias, self._eps, self.activation, *running)
            moments = None
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
        return ops.batch_normalize_delta(
            upstream, x, moments, self.gain, self.bias, self.activation, self.dgain, self.dbias
        )

    def follow(self, ops: Backend, saved: Any, state: State) -> None:
        """The running moments move towards those of the batch."""
        x, moments = saved
        ops.follow(self.mean, self.variance, moments, self._momentum, x.shape[0], state)

    def kept(self, *, dropped: bool) -> int:
        """a, and what stands above it on the way back."""
        return 2 * self.n_out

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again, without its parameters."""
        return {**super().config(), "momentum": self.momentum}

    def __repr__(self) -> str:
        return (
            f"BatchNorm({self.n_out}, {self.activation.name!r}, eps={self.eps:g}, momentum={self.momentum:g})"
        )
