"""The way through layers in order, and back: that of a network, and of a block inside one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gpubp.backend.base import Array, Backend, Drop

from ._base import Layer

Scope = Callable[[int, str], AbstractContextManager[None]]


def _anywhere(k: int, way: str) -> AbstractContextManager[None]:
    return nullcontext()


def forward(
    ops: Backend, layers: Sequence[Layer], x: Array, drops: Sequence[Drop | None], scope: Scope = _anywhere
) -> tuple[list[Array], list[Any]]:
    """What each layer takes and, last, what the last one gives; and what each keeps for the way back.

    drops[k] drops some of what layer k gives. Launches of layer k are made inside scope(k, "forward").
    """
    inputs, saved = [x], []
    for k, layer in enumerate(layers):
        with scope(k, "forward"):
            a, keep = layer.forward(ops, inputs[k], keep=True, drop=drops[k])
        inputs.append(a)
        saved.append(keep)
    return inputs, saved


def backward(
    ops: Backend,
    layers: Sequence[Layer],
    inputs: Sequence[Array],
    saved: Sequence[Any],
    delta: Array,
    drops: Sequence[Drop | None],
    scope: Scope = _anywhere,
) -> Array:
    """From the delta of the last layer that of the first, and the gradients of all but the first.

    Each delta comes before the gradient that the delta above it gives.
    """
    for k in range(len(layers) - 1, 0, -1):
        with scope(k - 1, "backward"):  # BP2, BP3
            below = layers[k - 1].delta(ops, layers[k], delta, saved[k - 1], drop=drops[k - 1])
        with scope(k, "backward"):  # BP4
            layers[k].gradient(ops, inputs[k], delta)
        delta = below
    return delta


def leaves(layers: Sequence[Layer], prefix: str = "") -> dict[str, Layer]:
    """Every layer that is not made of others, by the name that its parameters begin with: "0", or "1.0" in a block."""
    found: dict[str, Layer] = {}
    for k, layer in enumerate(layers):
        found |= leaves(layer.inner, f"{prefix}{k}.") if layer.inner else {f"{prefix}{k}": layer}
    return found
