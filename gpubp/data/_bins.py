"""Piecewise linear encoding: a number as how far it fills each of a few intervals, which hold equally many rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Bins:
    """For the edges e_0 < ... < e_T of a column of x, T numbers: min(max((x - e_(t-1)) / (e_t - e_(t-1)), 0), 1).

    edges is float64 (n_edges,), column after column; columns (n_columns,) says which ones of x, counts (n_columns,) how
    many edges each has. A network that gets these beside x bends at the edges where it needs to, and learns what is
    steep in a short stretch of a column much sooner. Source: Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical
    Features in Tabular Deep Learning", NeurIPS 2022, section 3.2.1.
    """

    columns: Array
    counts: Array
    edges: Array

    @classmethod
    def fit(cls, x: Array | Callable[[int], Array], columns: Array, count: int) -> Bins:
        """At most `count` intervals for each of these columns of x (n, n_features), by its quantiles, which are values.

        x may be a function that gives one column (n,) of it. A column with two different values or fewer gets none.
        """
        found = {}
        for j in columns.tolist():
            values = np.sort(x(j) if callable(x) else x[:, j])
            at = np.arange(count + 1) * (len(values) - 1) // count
            found[j] = np.unique(values[at]).astype(np.float64)
        kept = {j: edges for j, edges in found.items() if len(edges) > 2}
        return cls(
            np.array(list(kept), np.int64),
            np.array([len(edges) for edges in kept.values()], np.int64),
            np.concatenate([np.empty(0), *kept.values()]),
        )

    @property
    def width(self) -> int:
        """Numbers for a row."""
        return len(self.edges) - len(self.columns)

    def transform(self, x: Array, out: Array) -> None:
        """Writes the numbers of x (n, n_features), finite, into out (n, width)."""
        at = start = 0
        for j, count in zip(self.columns.tolist(), self.counts.tolist(), strict=True):
            edges = self.edges[at : at + count]
            values = x[:, j].astype(np.float64)
            for low, high in itertools.pairwise(edges):
                out[:, start] = np.clip((values - low) / (high - low), 0, 1)
                start += 1
            at += count

    def arrays(self) -> dict[str, Array]:
        """What a checkpoint stores."""
        return {"columns": self.columns, "counts": self.counts, "edges": self.edges}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], n_features: int) -> Bins:
        """The bins whose `arrays()` these are; InputError where they cannot be."""
        columns, counts, edges = (np.asarray(arrays[name]) for name in ("columns", "counts", "edges"))
        shapes = columns.ndim == edges.ndim == 1 and columns.shape == counts.shape
        if not shapes or columns.dtype != np.int64 or counts.dtype != np.int64 or edges.dtype != np.float64:
            raise InputError("bins: expected columns, counts and edges as they were stored; fit them again.")
        steps = np.delete(np.diff(edges), np.cumsum(counts)[:-1] - 1) if len(counts) else np.diff(edges)
        inside = ((columns >= 0) & (columns < n_features)).all() and (counts > 2).all()
        if not inside or counts.sum() != len(edges) or not np.isfinite(edges).all() or (steps <= 0).any():
            raise InputError("bins: expected rising edges for columns that there are; fit them again.")
        return cls(columns, counts, edges)
