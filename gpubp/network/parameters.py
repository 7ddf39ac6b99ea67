"""The parameters of a network: all of every layer in one flat buffer, and their gradients in another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.backend import Backend, State
from gpubp.backend.base import Array
from gpubp.checks import generator
from gpubp.data import validate
from gpubp.errors import InputError
from gpubp.host_memory import lets_go
from gpubp.initializers import default_for, initializer
from gpubp.layers import Dense, Layer, leaves

_ALIGNMENT = 16  # elements: each parameter starts at a multiple, and what fills the gaps stays 0


class Parameters:
    """Parameters and gradients of layers, which are bound to views of the buffers."""

    layers: list[Layer]
    dtype: np.dtype[Any]
    backend: Backend

    def _allocate(self) -> None:
        """One flat buffer of parameters and one of gradients: matrices first, so that penalties see one range.

        What is not trained stands last, so that updates see one range too; its gradients stay 0.
        """
        self._leaves = leaves(self.layers)
        shapes = {f"{k}.{n}": s for k, layer in self._leaves.items() for n, s in layer.shapes().items()}
        untrained = {f"{k}.{n}" for k, layer in self._leaves.items() for n in layer.untrained}
        names = sorted(shapes, key=lambda name: (name in untrained, len(shapes[name]) < 2))  # stable
        starts, size = {}, 0
        for name in names:
            starts[name] = size
            size += _aligned(shapes[name])
            if len(shapes[name]) == 2:
                self.n_weights = size
            if name not in untrained:
                self.n_trained = size
        self.flat, self.flat_gradients = (self.backend.zeros((size,), self.dtype) for _ in range(2))
        # What products read: the parameters themselves, or a copy of them in the storage of the precision.
        storage = self.backend.storage(self.dtype)
        self.stored = None if storage == self.dtype else self.backend.zeros((size,), storage)
        self._layout = {name: (starts[name], shape) for name, shape in shapes.items()}
        self._parameters, gradients = self.views(self.flat), self.views(self.flat_gradients)
        self._gradients = {name: view for name, view in gradients.items() if name not in untrained}
        stored = self._parameters if self.stored is None else self.views(self.stored)
        for k, layer in self._leaves.items():
            views = [
                {n: named[f"{k}.{n}"] for n in layer.shapes()}
                for named in (self._parameters, gradients, stored)
            ]
            layer.bind(self.backend, *views)
        self._nonnegative = {f"{k}.{n}" for k, layer in self._leaves.items() for n in layer.nonnegative}
        self._limits = [
            (layer, self.backend.to_device(np.array([layer.max_norm])))
            for layer in self._leaves.values()
            if isinstance(layer, Dense) and layer.max_norm is not None
        ]

    def initialize(self, seed: int | None = None) -> None:
        """Draws every W by its layer's initializer; biases become 0, gains 1."""
        rng = generator(seed)
        with self.backend.ordered():
            for k, layer in self._leaves.items():
                for name, how in layer.initials().items():
                    view = self._parameters[f"{k}.{name}"]
                    if isinstance(how, float):
                        self.backend.write(view, np.full(view.shape, how))
                    else:
                        draw = initializer(how or default_for(layer.activation.name))
                        shape = (view.shape[0], view.shape[1] // layer.matrices)
                        drawn = [draw(rng, shape) for _ in range(layer.matrices)]
                        self.backend.write(view, np.concatenate(drawn, axis=1))
            self.store()

    def store(self) -> None:
        """Renews the copy that products read, after parameters were changed from outside; nothing where none is."""
        if self.stored is not None:
            with self.backend.ordered():
                self.backend.cast(self.flat, self.stored)

    def constrain(self, state: State) -> None:
        """Shortens the incoming weights of units beyond their layer's `max_norm`, after an update."""
        for layer, limit in self._limits:
            self.backend.max_norm(layer.W, limit, state, None if self.stored is None else layer.stored_W)

    def views(self, flat: Array) -> dict[str, Array]:
        """Named views of a flat buffer laid out as the parameters: gradients, an optimizer's slot."""
        return {n: flat[i : i + math.prod(s)].reshape(s) for n, (i, s) in self._layout.items()}

    def ranges(self) -> dict[str, tuple[int, int]]:
        """Where each trained parameter, and what fills the gap behind it, stands in the flat buffers, in order."""
        found = {}
        for name in self._gradients:
            start, shape = self._layout[name]
            found[name] = (start, start + _aligned(shape))
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def parameters(self) -> dict[str, Array]:
        """{"0.W": (n_in, n_out), "0.b": (n_out,), ...}: views of one flat buffer on the network's device.

        Of BatchNorm there are "1.mean" and "1.variance" too, which are not trained.
        """
        return dict(self._parameters)

    @lets_go
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
                if name in self._nonnegative and float(checked[name].min()) < 0:
                    raise InputError(
                        f"{what}: expected no number below 0; got {float(checked[name].min()):g}; it is a variance"
                    )
            later.settle()
            for name, values in checked.items():
                self.backend.write(self._parameters[name], values)
            self.store()

    def inputs(self, x: npt.ArrayLike, later: validate.Later | None = None) -> npt.NDArray[Any]:
        """x (batch, n_in) as the first layer takes it, in the network's dtype; InputError otherwise."""
        checked = validate.features(x, self.n_in, self.dtype, later)
        validate.categories(checked, self.layers[0].categories, later)
        return checked

    @property
    def last(self) -> Dense:
        """The last layer, whose bias and activation the loss takes with it."""
        last = self.layers[-1]
        assert isinstance(last, Dense), f"expected a Dense layer as the last one; got {last!r}"
        return last

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
        return sum(view.size for view in self._gradients.values())


def _aligned(shape: tuple[int, ...]) -> int:
    """Elements of the flat buffers that a parameter of this shape takes."""
    return -(-math.prod(shape) // _ALIGNMENT) * _ALIGNMENT
