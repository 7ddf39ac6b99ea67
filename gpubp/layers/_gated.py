"""Gated linear units: one half of a product decides how much of the other passes."""

from __future__ import annotations

from typing import Any

from gpubp.backend.base import Array, Backend, Drop
from gpubp.kernels.activations import Activation

from ._base import Above
from ._product import Product


class GatedDense(Product):
    """a = g(u) v, u = x W_u + b_u, v = x W_v + b_v, for x (batch, n_in); a is (batch, n_out).

    The parameters are W = [W_u | W_v] (n_in, 2 n_out) and b = [b_u | b_v] (2 n_out,), so that each way is one product.
    `activation` names g, the gate: "silu" is SwiGLU, "gelu" GEGLU, "sigmoid" the first GLU, "relu" ReGLU; or it is what
    `gpubp.activation` made. With `bias=False` there is no b. Each half of W is drawn as the W of a Dense(n_in, n_out)
    with g is, by `initial` or the initializer that fits g; b starts at 0.

    BP2 with up = dE/da:  dE/du = up v g'(u),  dE/dv = up g(u).

    Source: Dauphin et al. 2017, arXiv:1612.08083; Shazeer 2020, arXiv:2002.05202. Raises ConfigError and InputError.
    """

    matrices = 2

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: str | Activation = "silu",
        *,
        bias: bool = True,
        initial: str | None = None,
    ) -> None:
        super().__init__(n_in, n_out, activation, bias, initial)

    def forward(self, ops: Backend, x: Array, *, keep: bool, drop: Drop | None = None) -> tuple[Array, Array]:
        """a = g(u) v, and with `keep` what `delta` needs of it; `drop` drops some of a, in a launch of its own."""
        a, saved = ops.gated(ops.matmul(x, self.stored_W), self.stored_b, self.activation, keep=keep)
        if drop is not None:
            ops.dropout(a, a, drop)
        return a, saved

    def delta(
        self, ops: Backend, above: Above, delta: Array, saved: Any, *, drop: Drop | None = None
    ) -> Array:
        """BP2, BP3: dE/dz = [dE/du | dE/dv] and db."""
        upstream = above.upstream(ops, delta)
        if drop is not None:
            ops.dropout(upstream, upstream, drop)
        return ops.gated_delta(upstream, saved, self.db)

    @property
    def keeps_upstream(self) -> bool:
        """Always: delta stands in what was saved."""
        return True

    def kept(self, *, dropped: bool) -> int:
        """z and its delta in one, a, and dE/da."""
        return 4 * self.n_out

    def described(self) -> str:
        """Widths, gate, and whether a bias is missing."""
        return f"gated {super().described()}"

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again, without its parameters."""
        return {"layer": "gated", **super().config()}

    def __repr__(self) -> str:
        bias = "" if self.bias else ", bias=False"
        return f"GatedDense({self.n_in}, {self.n_out}, {self.activation.name!r}{bias})"


def SwiGLU(n_in: int, n_out: int, *, bias: bool = True, initial: str | None = None) -> GatedDense:
    """`GatedDense` whose gate is silu(u) = u / (1 + exp(-u)), called Swish. Shazeer 2020, arXiv:2002.05202."""
    return GatedDense(n_in, n_out, "silu", bias=bias, initial=initial)


def GEGLU(n_in: int, n_out: int, *, bias: bool = True, initial: str | None = None) -> GatedDense:
    """`GatedDense` whose gate is gelu(u) = u Phi(u). Shazeer 2020, arXiv:2002.05202."""
    return GatedDense(n_in, n_out, "gelu", bias=bias, initial=initial)
