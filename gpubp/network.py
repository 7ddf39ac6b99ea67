"""A network: layers in order, their parameters in one flat buffer, forward, and backward by the four equations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .backend import Backend, State, get_backend
from .backend.base import Array, Drop
from .checks import generator
from .data import Blocks, Part, validate
from .data.blockwise import Pour, as_blocks, read_checked
from .errors import ConfigError, InputError, unknown_name
from .initializers import default_for, initializer
from .kernels.losses import LOSS
from .layers import Dense, Dropout, Layer, from_config, from_widths, in_order
from .losses import Loss, check_range, resolve, takes_labels

_ALIGNMENT = 16  # elements: each parameter starts at a multiple, and what fills the gaps stays 0
_CHUNK = 4096  # rows that forward takes at once
_CHUNK_BYTES = 64 * 2**20  # or so many bytes of them, where they are read
_KEPT = 4  # numbers of rows whose recorded forward passes are kept,
_KEPT_NUMBERS = 2**24  # with at most so many activations each
MOST_MASKS = 2**62  # seeds of dropout's masks
PRECISIONS = ("tf32", "bfloat16", "float16")


class Network:
    """A multilayer perceptron x (batch, n_in) -> a (batch, n_out).

    `layers` is a list of widths (hidden layers get `activation`, the last one `output`) or of layers, with Dropout
    wherever training drops outputs or inputs; the attribute `layers` holds the dense ones. `dtype` is that of
    parameters and results, "float32" or "float64"; inputs are converted to it. `precision` is that of the products:
    None or dtype's own name; the others need a GPU. `seed` fixes the initial parameters.

    Raises InputError, ConfigError, DeviceError.
    """

    def __init__(
        self,
        layers: Sequence[int] | Sequence[Layer],
        activation: str = "relu",
        output: str = "identity",
        *,
        device: str | Backend = "auto",
        dtype: npt.DTypeLike = "float32",
        precision: str | None = None,
        seed: int | None = None,
    ) -> None:
        self.layers, self.rates = _given_layers(layers, activation, output)
        self.dtype = _dtype(dtype)
        self.precision = _precision(precision, self.dtype)
        self.backend = get_backend(device).with_precision(self.dtype, self.precision)
        self._lock, self._preparing = threading.Lock(), threading.Lock()
        numbers = self.n_in + sum(layer.n_out for layer in self.layers)
        self._most_rows = min(_CHUNK, _KEPT_NUMBERS // numbers)
        self._prepared: dict[int, Callable[[Array], Array | None] | None] = {}
        with self.backend.ordered():
            self._allocate()
            self.initialize(seed)

    # parameters

    def _allocate(self) -> None:
        """One flat buffer of parameters and one of gradients: matrices first, so that penalties see one range."""
        shapes = {f"{k}.{n}": s for k, layer in enumerate(self.layers) for n, s in layer.shapes().items()}
        names = sorted(shapes, key=lambda name: len(shapes[name]) < 2)  # stable: matrices, then vectors
        starts, size = {}, 0
        for name in names:
            starts[name] = size
            size += -(-int(np.prod(shapes[name])) // _ALIGNMENT) * _ALIGNMENT
            if len(shapes[name]) == 2:
                self.n_weights = size
        self.flat, self.flat_gradients = (self.backend.zeros((size,), self.dtype) for _ in range(2))
        # What products read: the parameters themselves, or a copy of them in the storage of the precision.
        storage = self.backend.storage(self.dtype)
        self.stored = None if storage == self.dtype else self.backend.zeros((size,), storage)
        self._layout = {name: (starts[name], shape) for name, shape in shapes.items()}
        self._parameters, self._gradients = self.views(self.flat), self.views(self.flat_gradients)
        stored = self._parameters if self.stored is None else self.views(self.stored)
        for k, layer in enumerate(self.layers):
            views = [
                {n: named[f"{k}.{n}"] for n in layer.shapes()}
                for named in (self._parameters, self._gradients, stored)
            ]
            layer.bind(self.backend, *views)

    def initialize(self, seed: int | None = None) -> None:
        """Draws every W by its layer's initializer; biases become 0."""
        rng = generator(seed)
        with self.backend.ordered():
            for k, layer in enumerate(self.layers):
                draw = initializer(layer.initial or default_for(layer.activation.name))
                self.backend.write(self._parameters[f"{k}.W"], draw(rng, (layer.n_in, layer.n_out)))
                if layer.bias:
                    self.backend.write(self._parameters[f"{k}.b"], np.zeros(layer.n_out))
            self.store()

    def store(self) -> None:
        """Renews the copy that products read, after parameters were changed from outside; nothing where none is."""
        if self.stored is not None:
            with self.backend.ordered():
                self.backend.cast(self.flat, self.stored)

    def views(self, flat: Array) -> dict[str, Array]:
        """Named views of a flat buffer laid out as the parameters: gradients, an optimizer's slot."""
        return {n: flat[i : i + int(np.prod(s))].reshape(s) for n, (i, s) in self._layout.items()}

    def parameters(self) -> dict[str, Array]:
        """{"0.W": (n_in, n_out), "0.b": (n_out,), ...}: views of one flat buffer on the network's device."""
        return dict(self._parameters)

    def load_parameters(self, parameters: Mapping[str, npt.ArrayLike]) -> None:
        """Copies values in, under the names of `parameters()`. InputError where a name, shape or value is wrong.

        Nothing is changed unless everything fits.
        """
        if not isinstance(parameters, Mapping):
            raise InputError(
                f"parameters: expected a dict of arrays as parameters() gives; got {parameters!r:.60}"
            )
        missing, extra = set(self._parameters) - set(parameters), set(parameters) - set(self._parameters)
        if missing or extra:
            raise InputError(
                f"parameters: expected {', '.join(self._parameters)}; missing {sorted(missing)}, "
                f"unknown {sorted(extra)}"
            )
        checked, later = {}, validate.Later()
        with self.backend.ordered():
            for name, view in self._parameters.items():
                what = f"parameter {name}"
                given = self.backend.accept(parameters[name], what)
                values = validate.numeric(given, what, str(view.shape), later=later)
                if values.shape != view.shape:
                    raise InputError(f"{what}: expected shape {view.shape}; got {values.shape}")
                checked[name] = validate.converted(values, what, self.dtype, later)
            later.settle()
            for name, values in checked.items():
                self.backend.write(self._parameters[name], values)
            self.store()

    @property
    def n_in(self) -> int:
        """Features of an input."""
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        """Outputs."""
        return self.layers[-1].n_out

    @property
    def n_parameters(self) -> int:
        """Trainable numbers."""
        return sum(view.size for view in self._parameters.values())

    # forward

    @property
    def rows_at_once(self) -> int:
        """Rows that are taken through the layers at once where there are more: of wide inputs fewer."""
        return max(1, min(_CHUNK, _CHUNK_BYTES // (self.n_in * self.dtype.itemsize)))

    def forward(self, x: npt.ArrayLike | Blocks) -> Array:
        """The output activations (batch, n_out) for x (batch, n_in). Safe from several threads at once.

        Memory maps, sparse matrices and blocks are read in chunks. Raises InputError for a wrong shape, NaN, infinity
        or values beyond the dtype.
        """
        done = self._replayed(x)
        if done is not None:
            return done
        with self.backend.ordered():
            blocks = as_blocks(x)
            if blocks is not None:
                return self._forward_blocks(blocks)
            later = validate.Later()
            checked = validate.features(self.backend.accept(x, "x"), self.n_in, self.dtype, later)
            later.settle()
            n = checked.shape[0]
            if n <= _CHUNK:
                return self._forward(checked)
            outputs = self.backend.empty((n, self.n_out), self.dtype)
            for start in range(0, n, _CHUNK):
                part = checked[start : start + _CHUNK]
                done = self._replayed(part)
                self.backend.write(
                    outputs[start : start + _CHUNK], self._forward(part) if done is None else done
                )
            return outputs

    def _forward_blocks(self, blocks: Blocks) -> Array:
        def check(part: Part) -> tuple[npt.NDArray[Any]]:
            return (validate.features(part.x, self.n_in, self.dtype),)

        prefix = f"{blocks.name}: " if blocks.name else ""
        pour = Pour(read_checked(blocks, range(blocks.n_blocks), check, prefix))
        outputs = self.backend.empty((len(blocks), self.n_out), self.dtype)
        buffer, start = np.empty((min(self.rows_at_once, len(blocks)), self.n_in), self.dtype), 0
        while n := pour.into([buffer]):
            done = self._replayed(buffer[:n])
            done = self._forward(buffer[:n]) if done is None else done
            self.backend.write(outputs[start : start + n], done)
            start += n
        return outputs

    def _replayed(self, x: Any) -> Array | None:
        """`forward` of an array that needs no conversion, by its recording; None where there is none, or for bad x.

        The second x of as many rows makes the recording: a first may stay the only one.
        """
        fits = type(x) is np.ndarray and x.dtype == self.dtype and x.ndim == 2 and x.flags.c_contiguous
        if not fits or not x.flags.aligned or x.shape[1] != self.n_in or not 0 < len(x) <= self._most_rows:
            return None
        n = len(x)
        if not self._preparing.acquire(blocking=False):  # another thread prepares: this one need not wait
            return None
        try:
            if n not in self._prepared:
                self._prepared = dict([*self._prepared.items(), (n, None)][-_KEPT:])
                return None
            prepared = self._prepared[n]
            if prepared is None:
                prepared = self.backend.prepare(self._forward, x.shape, self.dtype) or _never
                self._prepared[n] = prepared
        finally:
            self._preparing.release()
        return prepared(x)

    def _forward(self, x: Array) -> Array:
        ops, (*hidden, last) = self.backend, self.layers
        a = self.to_storage(x)
        for layer in hidden:
            a, _ = layer.forward(ops, a, keep=False)
        a, _ = ops.bias_activation(last.product(ops, a), last.b, last.activation, keep=False)
        return a

    def to_storage(self, x: Array) -> Array:
        """x (batch, n) on the device, in the storage of its batch matrices."""
        x = self.backend.to_device(x)
        storage = self.backend.storage(self.dtype)
        if x.dtype == storage:
            return x
        stored = self.backend.empty(x.shape, storage)
        self.backend.cast(x, stored)
        return stored

    # backward

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
    ) -> Array | None:
        """Forward and backward over device arrays: fills the gradients and state.stats, returns dE/dx if asked.

        x has the storage dtype. z^k = a^(k-1) W^k + b^k and a^k = g(z^k), keeping what the way back needs; then BP1
        to BP4, each delta before the gradient that the delta above gives. `masks` is the seed of what dropout drops in
        the step that state.counters count; None drops nothing.
        """
        ops, layers, drops = self.backend, self.layers, self.drops(masks, state)
        top = len(layers) - 1
        with ops.scope("layer 0 forward"):
            inputs, saved = [self.dropped(x, drops[0])], []
        for k, layer in enumerate(layers[:top]):
            with ops.scope(f"layer {k} forward"):
                a, keep = layer.forward(ops, inputs[k], keep=True, drop=drops[k + 1])
            inputs.append(a)
            saved.append(keep)
        last = layers[top]
        with ops.scope(f"layer {top} forward"):
            z = last.product(ops, inputs[top])
        with ops.scope("loss"):  # BP1
            delta = ops.loss_delta(loss, last.activation, z, last.b, y, w, last.db, state)
        for k in range(top, 0, -1):
            with ops.scope(f"layer {k - 1} backward"):  # BP2, BP3
                below = layers[k - 1].delta(ops, layers[k], delta, saved[k - 1], drop=drops[k])
            with ops.scope(f"layer {k} backward"):  # BP4
                layers[k].gradient(ops, inputs[k], delta)
            delta = below
        with ops.scope("layer 0 backward"):
            layers[0].gradient(ops, inputs[0], delta)
            return self.dropped(layers[0].dx(ops, delta), drops[0]) if need_dx else None

    def drops(self, masks: int | None, state: State) -> list[Drop | None]:
        """What dropout takes away of the inputs, then of each hidden layer's outputs, by the seed `masks`."""
        if masks is None:
            return [None] * len(self.rates)
        counters = state.counters
        return [Drop(rate, masks, k, counters) if rate else None for k, rate in enumerate(self.rates)]

    def dropped(self, x: Array, drop: Drop | None) -> Array:
        """x m / (1 - rate) in a new array, or x itself; a derivative by the one is dropped as the other is."""
        if drop is None:
            return x
        out = self.backend.empty(x.shape, x.dtype)
        self.backend.dropout(x, out, drop)
        return out

    def gradients(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        loss: str | Loss,
        sample_weight: npt.ArrayLike | None = None,
        *,
        masks: int | None = None,
    ) -> tuple[float, dict[str, Array]]:
        """The loss and its gradients, keyed as the parameters, plus "x"; nothing is updated.

        y is (batch, n_out), or class numbers (batch,) for a loss behind a softmax. Dropout drops nothing, as in
        `forward`; with `masks`, a seed, it drops what a trainer with these masks drops in its first step.
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
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """x, targets and weights as arrays of the network's dtype (labels int64); InputError otherwise.

        Each lies where it lay: on the host, or on the network's GPU. Weights that were not given lie on the host.

        `prefix` stands before x, y and sample_weight in messages: "validation " for example.
        """
        try:
            return self._check_batch(x, y, loss, sample_weight)
        except InputError as error:
            if not prefix:
                raise
            raise InputError(f"{prefix}{error}") from None

    def _check_batch(
        self, x: npt.ArrayLike, y: npt.ArrayLike, loss: Loss, sample_weight: npt.ArrayLike | None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        accept, later = self.backend.accept, validate.Later()
        with self.backend.ordered():
            x, y = accept(x, "x"), accept(y, "y")
            checked = validate.features(x, self.n_in, self.dtype, later)
            n = checked.shape[0]
            if takes_labels(loss, y):
                y = validate.labels(y, self.n_out, n, later)
            else:
                y = validate.targets(y, self.n_out, n, self.dtype, later)
                check_range(loss, y, later)
            if sample_weight is None:
                w = np.ones(n, self.dtype)
            else:
                w = validate.weights(accept(sample_weight, "sample_weight"), n, self.dtype, later)
            later.settle()
            return checked, y, w

    # configuration

    def given_layers(self) -> list[Layer]:
        """The layers as they were given, dropout among them."""
        layers: list[Layer] = []
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


def mask_seed(value: Any) -> int | None:
    """A seed of dropout's masks, or None; InputError otherwise."""
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= value < MOST_MASKS
    if value is not None and not good:
        raise InputError(f"masks: expected None or an integer of at least 0, below 2^62; got {value!r}")
    return None if value is None else int(value)


def _never(x: Array) -> None:
    """A recorded pass of a backend that has none."""


def _given_layers(layers: Sequence[Any], activation: str, output: str) -> tuple[list[Dense], list[float]]:
    """Dense layers and rates of dropout from widths or layers."""
    if not isinstance(layers, Iterable):
        raise InputError(f"layers: expected widths, [784, 512, 10], or layers; got {layers!r}")
    layers = list(layers)
    kinds = [isinstance(layer, (Dense, Dropout)) for layer in layers]
    if any(kinds) and not all(kinds):
        raise InputError(f"layers: expected widths only or layers only; got both: {layers!r}")
    return in_order(layers if any(kinds) else [*from_widths(layers, activation, output)])


def _dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        found = None if dtype is None else np.dtype(dtype).newbyteorder("=")  # None would be float64 to NumPy
    except (TypeError, ValueError, SyntaxError):  # of a dict or a text like "f4,(" too
        found = None
    if found is None or found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise unknown_name("dtype", dtype if found is None else found.name, ("float32", "float64"))
    return found


def _precision(precision: str | None, dtype: np.dtype[Any]) -> str | None:
    if precision in (None, dtype.name):
        return None
    if precision not in (*PRECISIONS, "float32", "float64"):
        raise unknown_name("precision", precision, (dtype.name, *PRECISIONS))
    if precision in PRECISIONS and dtype == np.float32:
        return precision
    raise ConfigError(
        f"precision {precision!r} does not go with dtype {dtype.name!r}: expected None or {dtype.name!r}; "
        "change one of the two"
    )


def _rebuild(config: dict[str, Any], parameters: dict[str, npt.NDArray[Any]], device: str) -> Network:
    net = Network.from_config(config, device=device)
    with net.backend.ordered():
        for name, values in parameters.items():  # as they are: a copy of a network that overflowed is one too
            net.backend.write(net._parameters[name], values)
        net.store()
    return net
