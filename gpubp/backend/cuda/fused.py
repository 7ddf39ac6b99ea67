"""Dense layers with bias, activation or derivative inside the product, where a measurement says that it pays.

cuBLASLt knows relu and gelu_tanh, and the plain bias. A forward product that writes what the backward one reads beside
the matrices hands it on in `Kept`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpubp.backend.base import Array

from .epilogues import Epilogue, aux_layout
from .recording import CudaLaunch

FORWARD = {"relu": "relu_bias", "gelu_tanh": "gelu_aux_bias", "identity": "bias"}
KEEPING = {"relu": "relu_aux_bias", "gelu_tanh": "gelu_aux_bias", "identity": "bias"}
BACKWARD = {"relu": "drelu", "gelu_tanh": "dgelu"}
WITH_DB = "_bgrad"


@dataclass(frozen=True)
class Kept:
    """What a fused product keeps for the way back: `values` as `delta` takes them, and what cuBLASLt takes."""

    values: Array
    aux: Array


class Ways:
    """Ways to do the same work, each made when it is first asked for: some launches, or None where it is impossible."""

    def __init__(self, **makers: Callable[[], Sequence[CudaLaunch] | None]) -> None:
        self._makers = makers
        self._made: dict[str, Sequence[CudaLaunch] | None] = {}

    def launches(self, name: str) -> Sequence[CudaLaunch] | None:
        """Those of one way."""
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def candidates(self) -> dict[str, Callable[[], None]]:
        """Every way that is possible as one function, for the tuner; the last is made only if it is called."""
        *firsts, last = self._makers
        names = [name for name in firsts if self.launches(name) is not None]
        return {name: self._runner(name) for name in (*names, last)}

    def _runner(self, name: str) -> Callable[[], None]:
        def run() -> None:
            for launch in self.launches(name) or ():
                launch.issue()

        return run


def forward_epilogue(
    activation: str, shape: tuple[int, int], b: Array, *, keep: bool, empty: Callable[..., Array]
) -> Epilogue | None:
    """The epilogue of a = g(x W + b), a of this shape; None where there is none."""
    kind = (KEEPING if keep else FORWARD).get(activation)
    if kind is None:
        return None
    if kind in ("bias", "relu_bias"):
        return Epilogue(kind, b)
    layout, dtype = aux_layout(kind, *shape, b.dtype)
    if kind == "gelu_aux_bias" and layout != shape:  # `delta` takes aux as z: it has no padding
        return None
    return Epilogue(kind, b, empty(layout, dtype))


def kept(epilogue: Epilogue, a: Array) -> Any:
    """What a layer keeps of a forward product with this epilogue and result."""
    if epilogue.aux is None:
        return a
    return Kept(epilogue.aux if epilogue.kind == "gelu_aux_bias" else a, epilogue.aux)
