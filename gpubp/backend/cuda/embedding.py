"""Embeddings on a GPU: one launch forward, one for the gradient of the table."""

from __future__ import annotations

from gpubp.backend.base import Array
from gpubp.kernels.cuda import geometry

from .launches import CudaLaunches, factories, real_type, shape_of


class CudaEmbedding(CudaLaunches):
    """Rows of a table in the place of categories."""

    def embed(self, x: Array, table: Array, passed: Array, plan: Array) -> Array:
        a = self.empty((len(x), len(passed) + len(plan) * table.shape[1]), x.dtype)
        self._run(
            self._kernel(
                f"embed {shape_of(a)}",
                factories().embedding.embed,
                (real_type(x), factories().type_of(x.dtype)),
                (),
                (x, table, a, passed, plan),
                geometry.elementwise(*a.shape),
                read=(x, a),  # of the table, what is written
                written=(a,),
            )
        )
        return a

    def embedding_gradient(self, x: Array, delta: Array, gradient: Array, plan: Array) -> None:
        self._run(
            self._kernel(
                f"dE {shape_of(gradient)}",
                factories().embedding.embedding_gradient,
                (real_type(x), factories().type_of(x.dtype)),
                (),
                (x, delta, gradient, plan),
                geometry.elementwise(*gradient.shape),
                read=(x, delta),
                written=(gradient,),
                flops=len(x) * len(plan) * gradient.shape[1],
            )
        )
