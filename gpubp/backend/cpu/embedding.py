"""Embeddings on a CPU: one launch forward, one for the gradient of the table."""

from __future__ import annotations

from gpubp.backend.accesses import by_all, by_rows
from gpubp.backend.base import Array
from gpubp.kernels import embedding

from .launches import CpuLaunches, shape_of


class CpuEmbedding(CpuLaunches):
    """Rows of a table in the place of categories."""

    def embed(self, x: Array, table: Array, passed: Array, plan: Array) -> Array:
        a = self.empty((len(x), len(passed) + len(plan) * table.shape[1]), x.dtype)
        self._launch(
            f"embed {shape_of(a)}",
            embedding.embed,
            x.dtype,
            (x, table, a, passed, plan),
            (),
            read=(x, a),  # of the table, what is written
            written=(a,),
            accesses=(by_all(x), by_all(table), by_rows(a, written=True), by_all(passed), by_all(plan)),
        )
        return a

    def embedding_gradient(self, x: Array, delta: Array, gradient: Array, plan: Array) -> None:
        self._launch(
            f"dE {shape_of(gradient)}",
            embedding.embedding_gradient,
            x.dtype,
            (x, delta, gradient, plan),
            (),
            read=(x, delta),
            written=(gradient,),
            flops=len(x) * len(plan) * gradient.shape[1],
            accesses=(by_all(x), by_all(delta), by_all(gradient, written=True), by_all(plan)),
        )
