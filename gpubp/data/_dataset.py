"""A data set: features, an encoded target, and the names that make predictions readable."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpubp.data._table import Table
from gpubp.data.blockwise import Blocks

Array = NDArray[Any]
Task = Literal["classification", "regression"]
Classes = tuple[int | float | str, ...]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of examples and what is to be predicted for each.

    x (n, n_features) is float32, or float64 where the source was 64-bit numbers or text, or a Table where it has
    categories or missing cells, or Blocks (TableBlocks) where it is too large to be held. y is int64 labels 0..k-1 of
    shape (n,) that index `classes`, or floats (n, n_outputs) for regression, or None.
    `test` is the fixed test part of a named set; it is never part of x.
    """

    name: str
    x: Array | Table | Blocks
    y: Array | None
    task: Task
    classes: Classes | None = None
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    test: Dataset | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def n_features(self) -> int:
        """Columns of x."""
        return int(self.x.shape[1])

    @property
    def n_outputs(self) -> int:
        """The number of classes, or of target columns; 0 where there is no target."""
        if self.classes is not None:
            return len(self.classes)
        if self.y is not None and self.y.ndim == 2:
            return int(self.y.shape[1])
        return len(self.target_names or ())

    def take(self, rows: Array, *, keep_test: bool = True) -> Dataset:
        """The data set of these rows, in this order; the test part stays with it if asked."""
        if isinstance(self.x, Blocks):  # whose rows stay in their order, as those of a split do
            keep = np.zeros(len(self), bool)
            keep[rows] = True
            x: Any = self.x.subset(keep)
        else:
            x = self.x.take(rows) if isinstance(self.x, Table) else self.x[rows]
        y = None if self.y is None else self.y[rows]
        return dataclasses.replace(self, x=x, y=y, test=self.test if keep_test else None)
