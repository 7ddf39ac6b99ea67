"""A table: rows of typed columns, as a CSV or Parquet file holds them, before any of it becomes an input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Kind = Literal["number", "boolean", "date", "category"]

KINDS: tuple[Kind, ...] = get_args(Kind)
CATEGORY: Kind = "category"
PLURAL = {"number": "numbers", "boolean": "true or false", "date": "dates", "category": "categories"}


@dataclass(frozen=True, eq=False)
class Column:
    """One column. Of a category, values are int32 (n,) that index `categories`, -1 where the cell is missing.

    Of any other kind they are float64 (n,), NaN where the cell is missing: a boolean is 0 or 1, a date the days since
    1970-01-01.
    """

    name: str
    kind: Kind
    values: Array
    categories: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def missing(self) -> Array:
        """A mask (n,) of the cells without a value."""
        return self.values < 0 if self.kind == "category" else np.isnan(self.values)

    def take(self, rows: Array) -> Column:
        """These rows, in this order."""
        return Column(self.name, self.kind, self.values[rows], self.categories)


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one length, each with a name of its own. An `Encoder` makes an array of it."""

    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """TypeError: what takes arrays must not take codes of categories for numbers."""
        raise TypeError(
            "a table may hold text and gaps: gpubp.data.Encoder.fit(train).transform(table) is an array"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self), len(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns are called."""
        return tuple(column.name for column in self.columns)

    @property
    def nbytes(self) -> int:
        """Bytes of the values of all columns."""
        return sum(column.values.nbytes for column in self.columns)

    def __getitem__(self, rows: Array) -> Table:
        """`take`, as an array has it."""
        return self.take(rows)

    def take(self, rows: Array) -> Table:
        """These rows, in this order."""
        return Table(tuple(column.take(rows) for column in self.columns))

    def select(self, names: Sequence[str]) -> Table:
        """These columns, in this order; KeyError for a name that there is not."""
        by_name = {column.name: column for column in self.columns}
        return Table(tuple(by_name[name] for name in names))

    def is_numeric(self) -> bool:
        """Whether every cell has a value, and none is a category."""
        return not any(column.kind == "category" or column.missing().any() for column in self.columns)

    def matrix(self) -> Array:
        """The values of a numeric table as float64 (n, n_columns)."""
        x = np.empty(self.shape, np.float64)
        for j, column in enumerate(self.columns):
            x[:, j] = column.values
        return x
