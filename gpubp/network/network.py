"""A network: layers in order, and backpropagation through them by its four equations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy.typing as npt

from gpubp.backend import Backend, State, get_backend
from gpubp.backend.base import Array, Drop
from gpubp.errors import ConfigError, InputError
from gpubp.host_memory import lets_go
from gpubp.kernels.activations import Activation
from gpubp.kernels.losses import LOSS
from gpubp.layers import Dropout, Given, backward, forward, from_config
from gpubp.locks import lock
from gpubp.losses import Loss, resolve

from .arguments import Batch, checked_batch, dtype_of, layers_of, mask_seed, precision_of
from .forward import Forward


class Network(Forward):
    """A multilayer perceptron x (batch, n_in) -> a (batch, n_out).

    `layers` is a list of widths (hidden layers get `activation`, the last one `output`: names, or what
    `gpubp.activation` made) or of layers, with Dropout wherever training drops outputs or inputs; the attribute
    `layers` holds all others. `dtype` is that of parameters and results, "float32" or "float64"; inputs are
    converted to it. `precision` is that of the products: None or dtype's own name; the others need a GPU. `seed` fixes
    the initial parameters.

    Raises InputError, ConfigError, DeviceError, DeviceMemoryError.
    """

    @lets_go
    def __init__(
        self,
        layers: Sequence[int] | Sequence[Given],
        activation: str | Activation = "relu",
        output: str | Activation = "identity",
        *,
        device: str | Backend = "auto",
        dtype: npt.DTypeLike = "float32",
        precision: str | None = None,
        seed: int | None = None,
    ) -> None:
        self.layers, self.rates = layers_of(layers, activation, output)
        self.dtype = dtype_of(dtype)
        self.precision = precision_of(precision, self.dtype)
        self.backend = get_backend(device).with_precision(self.dtype, self.precision)
        self._lock = lock()
        with self.backend.ordered():
            self._allocate()
            super().__init__()
            self.initialize(seed)

    def backpropagate(
        self,
        x: Array,
        y: Array,
        w: Array,
        *,
        loss: Loss,
        state: State,
        need_dx: bool = False,
        masks: int | None = None,
        first: int = 0,
        follow: bool = False,
    ) -> Array | None:
        """Forward and backward over device arrays: fills the gradients and state.stats, returns dE/dx if asked.

        x has the storage dtype. z^k = a^(k-1) W^k + b^k and a^k = g(z^k), keeping what the way back needs; then BP1
        to BP4, each delta before the gradient that the delta above gives. `masks` is the seed of what dropout drops in
        the step that state.counters count; None drops nothing. With `follow`, as in a training step, layers
        change what is not trained by what they have seen.
        """
        ops, layers, last, top = self.backend, self.layers, self.last, len(self.layers) - 1
        of_inputs, *drops = self.drops(masks, state, first)

        def scope(k: int, way: str) -> AbstractContextManager[None]:
            return ops.scope(f"layer {k} {way}")

        with scope(0, "forward"):
            x = self.dropped(x, of_inputs)
        inputs, saved = forward(ops, layers[:top], x, drops, scope)
        with scope(top, "forward"):
            z = last.product(ops, inputs[top])
        with ops.scope("loss"):  # BP1
            delta = ops.loss_delta(loss, last.activation, z, last.b, y, w, last.db, state)
        delta = backward(ops, layers, inputs, saved, delta, drops, scope)  # BP2, BP3, BP4
        with scope(0, "backward"):  # BP4
            layers[0].gradient(ops, x, delta)
        if follow:
            for k, layer in enumerate(layers[:top]):
                with scope(k, "forward"):
                    layer.follow(ops, saved[k], state)
        with scope(0, "backward"):
            return self.dropped(self._as_parameters(layers[0].dx(ops, delta)), of_inputs) if need_dx else None

    def _as_parameters(self, array: Array) -> Array:
        """The same in the dtype of the parameters."""
        if array.dtype == self.dtype:
            return array
        found = self.backend.empty(array.shape, self.dtype)
        self.backend.cast(array, found)
        return found

    def drops(self, masks: int | None, state: State, first: int = 0) -> list[Drop | None]:
        """What dropout takes away of the inputs, then of each hidden layer's outputs, by the seed `masks`.

        The rows are those of a batch from number `first` on.
        """
        if masks is None:
            return [None] * len(self.rates)
        counters = state.counters
        return [Drop(rate, masks, k, counters, first) if rate else None for k, rate in enumerate(self.rates)]

    def dropped(self, x: Array, drop: Drop | None) -> Array:
        """x m / (1 - rate) in a new array, or x itself; a derivative by the one is dropped as the other is."""
        if drop is None:
            return x
        out = self.backend.empty(x.shape, x.dtype)
        self.backend.dropout(x, out, drop)
        return out

    @lets_go
    def gradients(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        loss: str | Loss,
        sample_weight: npt.ArrayLike | None = None,
        *,
        masks: int | None = None,
    ) -> tuple[float, dict[str, Array]]:
        """The loss and its gradients, keyed as the parameters that are trained, plus "x"; nothing is updated.

        y is (batch, n_out), or class numbers (batch,) for a loss behind a softmax. Dropout drops nothing, as in
        `forward`; with `masks`, a seed, it drops what a trainer with these masks drops in its first step. BatchNorm
        takes the moments of this batch, as in training.
        """
        masks = mask_seed(masks)
        loss, ops = self.resolve_loss(loss), self.backend
        with ops.ordered(), self._lock:  # the gradients of a network have one place
            x, y, w = self.check_batch(x, y, loss, sample_weight)
            state = State(ops, 0)
            dx = self.backpropagate(
                self.to_storage(x),
                ops.to_device(y),
                ops.to_device(w),
                loss=loss,
                state=state,
                need_dx=True,
                masks=masks,
            )
            gradients = {name: ops.copy(view) for name, view in self._gradients.items()}
            return float(ops.to_host(state.stats)[LOSS]), {**gradients, "x": dx}

    # inputs

    def resolve_loss(self, loss: str | Loss) -> Loss:
        """The loss by name; ConfigError for an unknown one, a warning where the output repeats its link."""
        return resolve(loss, self.layers[-1].activation.name)

    def check_batch(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        loss: Loss,
        sample_weight: npt.ArrayLike | None = None,
        *,
        prefix: str = "",
    ) -> Batch:
        """x, targets and weights as arrays of the network's dtype (labels int64); InputError otherwise.

        Each lies where it lay: on the host, or on the network's GPU. Weights that were not given lie on the host.

        `prefix` stands before x, y and sample_weight in messages: "validation " for example.
        """
        try:
            return checked_batch(self, x, y, loss, sample_weight)
        except InputError as error:
            if not prefix:
                raise
            raise InputError(f"{prefix}{error}") from None

    # configuration

    def given_layers(self) -> list[Given]:
        """The layers as they were given, dropout among them."""
        layers: list[Given] = []
        for rate, layer in zip(self.rates, self.layers, strict=True):
            layers += [Dropout(rate), layer] if rate else [layer]
        return layers

    def config(self) -> dict[str, Any]:
        """A dict of plain values from which `Network.from_config` makes the same architecture."""
        return {
            "layers": [layer.config() for layer in self.given_layers()],
            "dtype": self.dtype.name,
            "precision": self.precision,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, device: str | Backend = "auto") -> Network:
        """The network that `config()` described, with parameters of its own. Raises ConfigError."""
        layers = config.get("layers") if isinstance(config, Mapping) else None
        if not isinstance(layers, list) or "dtype" not in config:
            raise ConfigError(f"network: expected a list of layers and a dtype; got {config!r:.200}")
        for k, layer in enumerate(layers):
            if not isinstance(layer, Mapping):
                raise ConfigError(f"network: layer {k}: expected a dict; got {layer!r:.200}")
        made = [from_config(dict(layer)) for layer in layers]
        return cls(made, device=device, dtype=config["dtype"], precision=config.get("precision"))

    def __reduce__(self) -> Any:
        """A copy or a pickle holds the architecture, the parameters on the host, and the name of the device."""
        with self.backend.ordered():
            parameters = {n: self.backend.to_host(view).copy() for n, view in self._parameters.items()}
        return _rebuild, (self.config(), parameters, self.backend.name)

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self.given_layers()))
        return f"Network([{layers}], dtype={self.dtype.name!r}, device={self.backend.name!r})"


def _rebuild(config: dict[str, Any], parameters: dict[str, npt.NDArray[Any]], device: str) -> Network:
    net = Network.from_config(config, device=device)
    with net.backend.ordered():
        for name, values in parameters.items():  # as they are: a copy of a network that overflowed is one too
            net.backend.write(net._parameters[name], values)
        net.store()
    return net
