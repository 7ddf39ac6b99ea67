"""SciPy's sparse matrices as blocks: rows are made dense a part at a time, never all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import InputError

from ._base import Blocks, Part, beside, starts_of


class SparseBlocks(Blocks):
    """The rows of a sparse matrix x (n, n_features), with targets and weights as arrays of the host.

    CSR is read as it stands, other formats are converted to it once. Rows are taken in any order, so that batches are
    those that the dense array would give.
    """

    any_order = True

    def __init__(self, x: Any, y: Any = None, w: Any = None) -> None:
        if x.ndim != 2 or 0 in x.shape:
            raise InputError(
                f"x: expected a sparse matrix (batch, n_in) with rows and columns, got shape {x.shape}; pass some data."
            )
        if x.dtype.kind not in "biuf":
            raise InputError(f"x: expected real numbers, got dtype {x.dtype}; pass numbers.")
        n, self.n_features = map(int, x.shape)
        self._x = x.tocsr()
        self._y = None if y is None else beside(y, "y", n)
        self._w = None if w is None else beside(w, "sample_weight", n)
        self.weighted = w is not None
        self.starts = starts_of(n, self.n_features * x.dtype.itemsize)

    def read(self, block: int) -> Iterator[Part]:
        """The rows of a block, made dense, in one part."""
        yield self._part(slice(*map(int, self.starts[block : block + 2])))

    def take(self, rows: NDArray[np.int64]) -> Part:
        """These rows, in this order, made dense."""
        return self._part(rows)

    def _part(self, rows: slice | NDArray[np.int64]) -> Part:
        y, w = (None if array is None else array[rows] for array in (self._y, self._w))
        return Part(self._x[rows].toarray(), y, w)


def is_sparse(x: Any) -> bool:
    """Whether x is one of SciPy's sparse matrices or arrays; SciPy is not imported for it."""
    return type(x).__module__.startswith("scipy.sparse")
