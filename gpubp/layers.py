"""Layers: forward and backward of a dense layer, in the operations of a backend; dropout behind it."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any

from gpubp.backend.base import Array, Backend, Drop
from gpubp.checks import positive, real_number
from gpubp.custom import activation_from_config
from gpubp.errors import ConfigError, InputError
from gpubp.kernels.activations import Activation
from gpubp.kernels.activations import activation as find_activation
from gpubp.kernels.dropout import DROPPED

_WIDTH = "every layer needs a unit"


class Dense:
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

    def forward(self, ops: Backend, x: Array, *, keep: bool, drop: Drop | None = None) -> tuple[Array, Array]:
        """a = g(x W + b), and with `keep` what `delta` needs of it; `drop` drops some of a, and always keeps that."""
        if drop is not None:
            z = ops.matmul(x, self.stored_W)
            return ops.bias_activation_dropout(z, self.stored_b, self.activation, drop)
        return ops.dense(x, self.stored_W, self.stored_b, self.activation, keep=keep)

    def delta(
        self, ops: Backend, above: Dense, delta: Array, saved: Array, *, drop: Drop | None = None
    ) -> Array:
        """BP2, BP3: this layer's delta and db from the delta of the layer above."""
        g = self.activation if drop is None else DROPPED
        return ops.dense_delta(delta, above.stored_W, saved, g, self.db)

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


class Dropout:
    """a' = a m / (1 - rate) of what the layer before it gives, or of the inputs: m = 0 with probability `rate`, else 1.

    In training steps only; `forward`, `predict` and `evaluate` drop nothing. Masks follow from the trainer's seed, the
    step and the place in the batch, the same ones on every device and at any number of threads. The rate is rounded to
    a multiple of 2^-16, and 1 / (1 - rate) is that of the rounded one.

    Source: Srivastava et al. 2014, JMLR 15; scaled in training, as PyTorch has it. Raises InputError.
    """

    def __init__(self, rate: float = 0.5) -> None:
        number = real_number(rate)
        if not 0 <= number < 1:
            raise InputError(f"Dropout: rate: expected a number of at least 0 and below 1; got {rate!r}")
        self.rate = number

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again."""
        return {"layer": "dropout", "rate": self.rate}

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"


Layer = Dense | Dropout


def from_config(config: dict[str, Any]) -> Layer:
    """The layer that `config()` described. Raises ConfigError for a kind that does not exist."""
    options = dict(config)
    kind = options.pop("layer", None)
    if kind not in ("dense", "dropout"):
        raise ConfigError(
            f"unknown layer: expected 'dense' or 'dropout'; got {kind!r}; the file was written by a newer gpubp"
        )
    try:
        if kind == "dropout":
            return Dropout(options.pop("rate"), **options)
        if isinstance(options.get("activation"), dict):
            options["activation"] = activation_from_config(options["activation"])
        return Dense(options.pop("n_in"), options.pop("n_out"), **options)
    except (TypeError, KeyError) as error:
        names = "rate" if kind == "dropout" else "n_in, n_out, activation, bias, initial, max_norm"
        raise ConfigError(f"layer: expected {names}; got {config!r}") from error


def from_widths(
    widths: list[Any],
    activation: str | Activation,
    output: str | Activation,
    *,
    max_norm: float | None = None,
) -> list[Dense]:
    """Dense layers between these widths: hidden ones with `activation` and `max_norm`, the last one with `output`."""
    if len(widths) < 2:
        raise InputError(f"layers: expected at least two widths, inputs and outputs; got {widths!r}")
    names = [activation] * (len(widths) - 2) + [output]
    limits = [max_norm] * (len(widths) - 2) + [None]
    pairs = zip(widths[:-1], widths[1:], names, limits, strict=True)
    return [Dense(n_in, n_out, g, max_norm=limit) for n_in, n_out, g, limit in pairs]


def with_dropout(layers: Sequence[Dense], rates: Sequence[float]) -> list[Layer]:
    """These layers, with Dropout behind each hidden one; `rates` has one for each, and 0 stands for none."""
    found: list[Layer] = []
    for layer, rate in zip(layers, [*rates, 0.0], strict=True):
        found += [layer, Dropout(rate)] if rate else [layer]
    return found


def in_order(layers: list[Layer]) -> tuple[list[Dense], list[float]]:
    """The dense layers, copied, and the rates of dropout: of the inputs, then of the outputs of each but the last.

    Raises InputError where layers do not fit each other, or where dropout has no place.
    """
    dense: list[Dense] = []
    rates = [0.0]
    for k, layer in enumerate(layers):
        if isinstance(layer, Dense):
            dense.append(copy.copy(layer))  # a network binds its own views
            rates.append(0.0)
        elif k > 0 and isinstance(layers[k - 1], Dropout):
            raise InputError(
                f"layers: expected one Dropout between layers; got two, {layers[k - 1]!r} and {layer!r}"
            )
        else:
            rates[-1] = layer.rate
    if not dense or isinstance(layers[-1], Dropout):
        raise InputError(
            f"layers: expected a Dense layer as the last one; got {layers!r}; Dropout stands before or between them"
        )
    for k, (below, above) in enumerate(itertools.pairwise(dense)):
        if below.n_out != above.n_in:
            raise InputError(
                f"layers: expected layer {k + 1} to take the {below.n_out} outputs of layer {k}; got n_in={above.n_in}"
            )
    return dense, rates[:-1]
