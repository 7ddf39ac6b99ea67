"""Embeddings of categorical columns: the first layer of a network over a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpubp.backend.base import Array, Backend, Drop
from gpubp.checks import positive
from gpubp.errors import ConfigError, InputError
from gpubp.kernels.activations import activation as find_activation

from ._base import Above, Layer

_EXACT = {"float64": 2**53, "float32": 2**24, "float16": 2**11, "uint16": 2**8}  # integers below, by storage


class Embedding(Layer):
    """a = [the other columns of x | E_1[c_1] | E_2[c_2] | ...]: for each category a row of numbers that are learned.

    `categories` has for each categorical column of x (batch, n_in), by its place, how many categories it has; they
    are numbered from 0, as scikit-learn's OrdinalEncoder does it. Each becomes `size` numbers, so that a is
    (batch, n_in - k + k size) for k columns, all other columns first. The parameter E (all categories, size) holds
    the tables one below the other, starts as N(0, 1 / size), and is subject to penalties as a matrix is. The first
    layer of a network; numbers that are no category are an InputError. Its gradient dE is dense: rows that no example
    of the batch asks for have 0, and move where the optimizer has momentum.

    Source: Guo and Berkhahn 2016, arXiv:1604.06737. Raises InputError.
    """

    def __init__(self, n_in: int, categories: Mapping[int, int], size: int = 8) -> None:
        self.n_in = positive(n_in, "n_in", "every layer needs a unit")
        self.size = positive(size, "Embedding: size", "a category needs a number")
        self.categories = _categories(categories, self.n_in)
        self.n_out = self.n_in + len(self.categories) * (self.size - 1)
        self.activation = find_activation("identity")
        self.E: Array = None
        self.dE: Array = None
        self.stored_E: Array = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """E."""
        return {"E": (sum(self.categories.values()), self.size)}

    def initials(self) -> dict[str, str | float | None]:
        """Of variance 1 / size, whatever the number of categories: a is of the size of a standardized column."""
        return {"E": "embedding"}

    def bind(
        self,
        ops: Backend,
        parameters: dict[str, Array],
        gradients: dict[str, Array],
        stored: dict[str, Array],
    ) -> None:
        """Takes the views. ConfigError where the storage of the precision cannot hold the numbers of categories."""
        self.E, self.dE, self.stored_E = parameters["E"], gradients["E"], stored["E"]
        most, exact = max(self.categories.values()), _EXACT[self.stored_E.dtype.name]
        if most > exact:
            precision = ops.precision or self.stored_E.dtype.name
            cure = "dtype 'float64'" if most > _EXACT["float32"] else "precision None or 'tf32'"
            raise ConfigError(
                f"Embedding: expected at most {exact} categories of a column in precision {precision!r}; got {most}; "
                f"use {cure}"
            )
        others = [j for j in range(self.n_in) if j not in self.categories]
        counts = np.array([*self.categories.values()], np.int64)
        plan = np.stack([np.array([*self.categories], np.int64), np.cumsum(counts) - counts, counts], axis=1)
        self._passed, self._plan = ops.to_device(np.array(others, np.int64)), ops.to_device(plan)

    def gradients(self) -> dict[str, Array]:
        """dE."""
        return {"dE": self.dE}

    def forward(self, ops: Backend, x: Array, *, keep: bool, drop: Drop | None = None) -> tuple[Array, Any]:
        """a; the way back needs x alone."""
        a = ops.embed(x, self.stored_E, self._passed, self._plan)
        if drop is not None:
            ops.dropout(a, a, drop)
        return a, None

    def delta(
        self, ops: Backend, above: Above, delta: Array, saved: Any, *, drop: Drop | None = None
    ) -> Array:
        """dE/da."""
        upstream = above.upstream(ops, delta)
        if drop is not None:
            ops.dropout(upstream, upstream, drop)
        return upstream

    def gradient(self, ops: Backend, x: Array, delta: Array) -> None:
        """dE: the sums of dE/da over the examples of each category."""
        ops.embedding_gradient(x, delta, self.dE, self._plan)

    def upstream(self, ops: Backend, delta: Array) -> Array:
        """dE/dx: that of the other columns; 0 for categories, which are no numbers to move."""
        return ops.matmul(delta, self._places(ops, delta))

    def dx(self, ops: Backend, delta: Array) -> Array:
        """The same in the dtype of the parameters."""
        out = ops.empty((delta.shape[0], self.n_in), self.E.dtype)
        return ops.matmul(delta, self._places(ops, delta), out=out)

    def _places(self, ops: Backend, delta: Array) -> Array:
        """(n_out, n_in): 1 where an output is an input."""
        ones = np.zeros((self.n_out, self.n_in), self.E.dtype)
        ones[np.arange(len(self._passed)), ops.to_host(self._passed)] = 1
        places = ops.empty(ones.shape, delta.dtype)
        ops.cast(ops.to_device(ones), places)
        return places

    def kept(self, *, dropped: bool) -> int:
        """a and delta."""
        return 2 * self.n_out

    def described(self) -> str:
        """Widths, and the columns that are embedded."""
        return f"{self.n_in} to {self.n_out}, {len(self.categories)} columns of categories as {self.size} numbers each"

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make this layer again, without its parameters."""
        categories = [[column, count] for column, count in self.categories.items()]
        return {"layer": "embedding", "n_in": self.n_in, "categories": categories, "size": self.size}

    def __repr__(self) -> str:
        return f"Embedding({self.n_in}, {self.categories}, size={self.size})"


def _categories(given: Any, n_in: int) -> dict[int, int]:
    """{column: count} in the order of the columns. Pairs in a list, as a configuration has them, are taken too."""
    try:
        pairs = [
            (column, count) for column, count in (given.items() if isinstance(given, Mapping) else given)
        ]
    except (TypeError, ValueError):
        pairs = []
    if not pairs:
        raise InputError(
            "Embedding: categories: expected a number of categories for some columns, {0: 12, 3: 7}; "
            f"got {given!r:.80}"
        )
    for column, _ in pairs:
        if isinstance(column, bool) or not isinstance(column, (int, np.integer)) or not 0 <= column < n_in:
            raise InputError(f"Embedding: categories: expected columns from 0 to {n_in - 1}; got {column!r}")
    counted = {
        int(column): positive(count, f"Embedding: categories of column {column}", "")
        for column, count in pairs
    }
    if len(counted) < len(pairs):
        raise InputError(f"Embedding: categories: expected each column once; got {given!r:.80}")
    return dict(sorted(counted.items()))
