"""The residual block: what a chain of layers gives is added to what it takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

from gpubp.backend.base import Array, Backend, Drop, State
from gpubp.errors import InputError
from gpubp.kernels.activations import ACTIVATIONS

from ._base import Above, Layer
from ._chain import backward, forward
from ._dropout import Dropout


class Residual(Layer):
    """a = x + f(x) for x (batch, n): f is a chain of layers that takes n numbers and gives n; a is (batch, n).

    Nothing follows the sum. The parameters are those of the layers inside: "1.0.W" is the W of the first one in the
    block that is layer 1. Blocks may stand in blocks; Dropout stands behind a block and drops some of the sum.

    dE/dx = dE/da + J^T dE/da, J = df/dx: what goes back through f is added to what came.

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", arXiv:1603.05027. Raises InputError.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.inner = tuple(map(copy, _checked(layers)))  # a network binds its own views
        self.n_in = self.n_out = self.inner[0].n_in
        self.activation = ACTIVATIONS["identity"]
        self._drops = (None,) * len(self.inner)
        self.fewest = max(layer.fewest for layer in self.inner)

    def __copy__(self) -> Residual:
        return Residual(self.inner)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """None of its own: `leaves` finds those inside."""
        return {}

    def initials(self) -> dict[str, str | float | None]:
        """None of its own."""
        return {}

    def bind(
        self,
        ops: Backend,
        parameters: dict[str, Array],
        gradients: dict[str, Array],
        stored: dict[str, Array],
    ) -> None:
        """Nothing: the layers inside are bound by themselves."""

    def gradients(self) -> dict[str, Array]:
        """Those of the layers inside, the last one's first: "1.db", "1.dW", "0.db", ..."""
        layers = reversed([*enumerate(self.inner)])
        return {f"{k}.{name}": array for k, layer in layers for name, array in layer.gradients().items()}

    def forward(self, ops: Backend, x: Array, *, keep: bool, drop: Drop | None = None) -> tuple[Array, Any]:
        """a = x + f(x), and with `keep` what the layers inside keep; `drop` drops some of a, in its own launch."""
        saved, y = None, x
        if keep:
            inputs, kept = forward(ops, self.inner, x, self._drops)
            saved, y = (inputs, kept), inputs[-1]
        else:
            for layer in self.inner:
                y, _ = layer.forward(ops, y, keep=False)
        a = ops.empty(x.shape, x.dtype)  # of y the last layer inside may be in need on the way back
        ops.add(x, y, a)
        if drop is not None:
            ops.dropout(a, a, drop)
        return a, saved

    def delta(
        self, ops: Backend, above: Above, delta: Array, saved: Any, *, drop: Drop | None = None
    ) -> Array:
        """(dE/da, the delta of the first layer inside), and every gradient inside but that layer's."""
        upstream = above.upstream(ops, delta)
        if drop is not None:
            ops.dropout(upstream, upstream, drop)
        inputs, kept = saved
        last = self.inner[-1]
        given = upstream if last.keeps_upstream else ops.clone(upstream)
        delta = last.delta(ops, _End(), given, kept[-1])
        return upstream, backward(ops, self.inner, inputs, kept, delta, self._drops)

    @property
    def keeps_upstream(self) -> bool:
        """Always: it is added again at the end."""
        return True

    def gradient(self, ops: Backend, x: Array, delta: Array) -> None:
        """That of the first layer inside."""
        self.inner[0].gradient(ops, x, delta[1])

    def upstream(self, ops: Backend, delta: Array) -> Array:
        """dE/dx = dE/da + what came through the layers inside."""
        through = self.inner[0].upstream(ops, delta[1])
        ops.add(delta[0], through, through)
        return through

    def follow(self, ops: Backend, saved: Any, state: State) -> None:
        """What the layers inside do."""
        for layer, kept in zip(self.inner, saved[1], strict=True):
            layer.follow(ops, kept, state)

    @property
    def flops(self) -> int:
        """Those of the layers inside."""
        return sum(layer.flops for layer in self.inner)

    def kept(self, *, dropped: bool) -> int:
        """What the layers inside keep, the sum, and a copy of dE/da where the last of them writes over it."""
        copies = 1 if self.inner[-1].keeps_upstream else 2
        return sum(layer.kept(dropped=False) for layer in self.inner) + copies * self.n_out

    def described(self) -> str:
        """The layers inside, in parentheses."""
        return f"x + ({'; '.join(layer.described() for layer in self.inner)})"

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this block again, without its parameters."""
        return {"layer": "residual", "layers": [layer.config() for layer in self.inner]}

    def __repr__(self) -> str:
        return f"Residual([{', '.join(map(repr, self.inner))}])"


class _End:
    """What stands above the last layer inside: its delta is dE/da itself."""

    def upstream(self, ops: Backend, delta: Array) -> Array:
        return delta


def _checked(layers: Any) -> list[Layer]:
    """The layers, each of which takes what the one before it gives, and the first what the last does."""
    if not isinstance(layers, Iterable):
        raise InputError(f"Residual: expected a list of layers; got {layers!r}")
    found = list(layers)
    for layer in found:
        if isinstance(layer, Dropout):
            raise InputError(f"Residual: expected no Dropout inside; got {found!r}; put it behind the block")
        if isinstance(layer, Layer) and layer.categories:
            raise InputError(
                f"Residual: expected no Embedding inside; got {found!r}; put it first in the network"
            )
        if not isinstance(layer, Layer):
            raise InputError(f"Residual: expected a list of layers; got {layer!r} in {found!r}")
    if not found:
        raise InputError("Residual: expected at least one layer; got an empty list")
    for k, (below, above) in enumerate(itertools.pairwise(found)):
        if below.n_out != above.n_in:
            raise InputError(
                f"Residual: expected layer {k + 1} to take the {below.n_out} outputs of layer {k}; "
                f"got n_in={above.n_in}"
            )
    n_in, n_out = found[0].n_in, found[-1].n_out
    if n_in != n_out:
        raise InputError(
            f"Residual: expected as many outputs as inputs, {n_in}, to add them; got {n_out}; end with a layer "
            f"of n_out={n_in}"
        )
    return found
