"""What becomes of one column of a table: a number, or one for each of its categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gpubp.data._columns import ID_NAMES
from gpubp.data._table import CATEGORY, Column, Kind
from gpubp.errors import InputError, counted

Array = NDArray[Any]
Use = Literal["value", "one-hot", "ordinal", "embedded"]

USES: tuple[Use, ...] = get_args(Use)
FEW = 100  # categories of a column that become one column each without being asked for
MOST = 10_000  # categories of a column that is asked for


@dataclass(frozen=True)
class Encoding:
    """What becomes of one column.

    value: the number, or `fill` where the cell is missing; then, with `flag`, 1 where it is and 0 elsewhere.
    one-hot: for each category 1 where the cell holds it and 0 elsewhere; "" among them stands for a missing cell. A
    cell that is none of them gives zeros.
    ordinal: the number of the category, from 0 in the order of `categories`, and -1 for a cell that is none of them.
    embedded: the same for an Embedding, and len(categories) for a cell that is none of them.
    """

    name: str
    kind: Kind
    use: Use
    fill: float = 0.0
    flag: bool = False
    categories: tuple[str, ...] = ()

    @property
    def has_missing(self) -> bool:
        """Whether the training had missing cells here."""
        return self.flag or "" in self.categories

    @property
    def labels(self) -> list[str]:
        """What the numbers that it becomes are called."""
        if self.use == "one-hot":
            return [f"{self.name}={category or '(missing)'}" for category in self.categories]
        return [self.name, f"{self.name}=(missing)"] if self.flag else [self.name]

    def codes(self, column: Column) -> Array:
        """Of each cell the number of its category here, -1 where it is none of them."""
        index = {category: i for i, category in enumerate(self.categories)}
        lookup = [index.get(category, -1) for category in column.categories]
        return np.array([*lookup, index.get("", -1)], np.int64)[column.values]

    def write(self, column: Column, out: Array) -> None:
        """The numbers of a column, into out (n, len(labels))."""
        if self.use == "value":
            missing = column.missing()
            out[:, 0] = np.where(missing, self.fill, column.values)
            if self.flag:
                out[:, 1] = missing
        elif self.use == "ordinal":
            out[:, 0] = self.codes(column)
        elif self.use == "embedded":
            codes = self.codes(column)
            out[:, 0] = np.where(codes < 0, len(self.categories), codes)
        else:
            codes = self.codes(column)
            rows = np.flatnonzero(codes >= 0)
            out[:] = 0
            out[rows, codes[rows]] = 1


def useless(column: Column) -> str | None:
    """Why a column is nothing to learn from, or None."""
    present = column.values[~column.missing()]
    if not len(present):
        return "no row to train with has a value in it"
    distinct = len(np.unique(present))
    whole = column.kind == CATEGORY or (
        column.kind == "number" and bool((present == np.floor(present)).all())
    )
    if column.name.lower() in ID_NAMES and whole and distinct == len(column) > 1:
        return "it numbers the rows (rename it to keep it)"
    if column.kind == CATEGORY and distinct > FEW:
        name = repr(column.name)
        return (
            f"it holds {distinct:,} different texts in {counted(len(column), 'row')} (categorical={name}, "
            f"ordinal={name} or embed={name} keeps it)"
        )
    return None


def learned(column: Column, use: Use = "one-hot") -> Encoding:
    """What becomes of a column, learned from its cells; `use` is that of categories."""
    missing = column.missing()
    if column.kind != CATEGORY:
        median = float(np.median(column.values[~missing]))
        fill = np.floor(median) if column.kind == "boolean" else median
        return Encoding(column.name, column.kind, "value", float(fill), bool(missing.any()))
    kept = [column.categories[code] for code in np.unique(column.values[~missing]).tolist()]
    if use != "one-hot" and all(map(_is_finite_number, kept)):
        kept.sort(key=float)
    else:
        kept.sort()
    if missing.any():
        kept.append("")
    if len(kept) > MOST and use == "one-hot":
        raise InputError(
            f"column {column.name!r}: expected at most {MOST:,} categories, got {len(kept):,}; "
            f"use embed={column.name!r}, ordinal={column.name!r} or drop={column.name!r}."
        )
    return Encoding(column.name, column.kind, use, categories=tuple(kept))


def _is_finite_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
