"""The update of a step: one launch over all parameters; with groups, or by Muon, a launch for each range of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gpubp.backend import State
from gpubp.backend.base import Array
from gpubp.errors import ConfigError
from gpubp.layers import Product, leaves
from gpubp.network import Network
from gpubp.optimizers import Muon, Optimizer
from gpubp.optimizers.muon import Matrix, Room

from .groups import Groups, numbers_of

Slots = tuple[Array, ...]


@dataclass(frozen=True)
class _Range:
    """Parameters of one group that follow each other in the flat buffers."""

    start: int
    stop: int
    group: int


class Update:
    """Changes parameters and slots in place by their gradients; nothing where the loss or a gradient is not finite."""

    def __init__(
        self, net: Network, optimizer: Optimizer, groups: Groups, state: State, slots: Slots
    ) -> None:
        self._net, self._rule, self._state = net, optimizer.rule, state
        self._slots = slots[: self._rule.slots]
        self._ranges, self._matrices = list[_Range](), list[tuple[int, Matrix]]()
        hidden = _hidden(net, optimizer) if isinstance(optimizer, Muon) else []
        if not groups and not hidden:
            return
        rows = list[tuple[float, float]]()
        for name, (start, stop) in net.ranges().items():
            numbers = numbers_of(groups, name, optimizer.weight_decay)
            if numbers not in rows:
                rows.append(numbers)
            group = rows.index(numbers)
            if isinstance(optimizer, Muon) and name in hidden:
                self._matrices.append((group, self._matrix(optimizer, name, start)))
            else:
                self._add(_Range(start, stop, group))
        self._groups = net.backend.to_device(np.array(rows))
        if isinstance(optimizer, Muon):
            shapes = [matrix.W.shape for _, matrix in self._matrices]
            self._room = Room(net.backend, shapes, net.backend.storage(net.dtype))
            self._steps = optimizer.steps

    def _add(self, new: _Range) -> None:
        """Joins it to the range before, where that is of its group and ends where it begins."""
        last = self._ranges[-1] if self._ranges else None
        if last is not None and (last.stop, last.group) == (new.start, new.group):
            self._ranges[-1] = _Range(last.start, new.stop, new.group)
        else:
            self._ranges.append(new)

    def _matrix(self, method: Muon, name: str, start: int) -> Matrix:
        net, shape = self._net, self._net.parameters()[name].shape
        of = slice(start, start + math.prod(shape))
        W, gradient, momentum = (
            flat[of].reshape(shape) for flat in (net.flat, net.flat_gradients, self._slots[0])
        )
        stored = None if net.stored is None else net.stored[of].reshape(shape)
        return Matrix(W, gradient, momentum, stored, net.backend.to_device(np.array([method.scale(*shape)])))

    def __call__(self) -> None:
        """One update."""
        net, rule, state, ops = self._net, self._rule, self._state, self._net.backend
        if not self._ranges:
            of = slice(net.n_trained)
            slots, stored = (
                tuple(slot[of] for slot in self._slots),
                None if net.stored is None else net.stored[of],
            )
            starts = [start for start, _ in net.ranges().values()]
            ops.update(rule, net.flat[of], net.flat_gradients[of], slots, state, stored, starts)
            return
        c = ops.prepare_groups(rule, net.flat_gradients, self._groups, state)
        for part in self._ranges:
            of = slice(part.start, part.stop)
            slots = tuple(slot[of] for slot in self._slots)
            stored = None if net.stored is None else net.stored[of]
            ops.update_range(rule, net.flat[of], net.flat_gradients[of], slots, c[part.group], state, stored)
        for group, matrix in self._matrices:
            matrix.step(ops, self._room, self._steps, c[group], state)


def _hidden(net: Network, method: Muon) -> list[str]:
    """The names of the matrices that Muon takes, those of hidden products; ConfigError where there is none."""
    products = [name for name, layer in leaves(net.layers).items() if isinstance(layer, Product)]
    found = [f"{name}.W" for name in products[0 if method.first else 1 : -1]]
    if not found:
        raise ConfigError(
            f"optimizer muon: expected a hidden matrix, with first={method.first}; got {len(products)} "
            "layers with a matrix; use adamw"
        )
    return found
