"""Where NaN or infinity came from, after a step was stopped by it."""

from __future__ import annotations

from gpubp.backend import State
from gpubp.backend.base import Array
from gpubp.data.validate import all_finite
from gpubp.losses import Loss
from gpubp.network import Network


def first_not_finite(net: Network, x: Array, y: Array, w: Array, loss: Loss) -> str:
    """The first place in the order of computation that is not finite, in words: a layer's output, or a gradient."""
    ops = net.backend
    for name, view in net.parameters().items():
        if not all_finite(ops.to_host(view)):
            return f"parameter {name}"
    a = x
    for k, layer in enumerate(net.layers):
        a, _ = layer.forward(ops, a, keep=False)
        if not all_finite(ops.to_host(a)):
            return f"the output of layer {k} ({layer!r})"
    state = State(ops, 0)
    net.backpropagate(x, y, w, loss=loss, state=state)
    for k in reversed(range(len(net.layers))):  # the backward pass runs from the last layer down
        layer = net.layers[k]
        for name, gradient in (("db", layer.db), ("dW", layer.dW)):
            if not all_finite(ops.to_host(gradient)):
                return f"the gradient {name} of layer {k} ({layer!r})"
    return f"the loss {loss.name}, behind layer {len(net.layers) - 1}"
