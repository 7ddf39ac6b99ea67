"""A Parquet file of numbers as blocks, or of whatever a preprocessing makes numbers of."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.data._files import listing
from gpubp.errors import DataError, nearest

from ._base import Array, Blocks, Part
from ._row_groups import RowGroups

Names = str | Sequence[str]
Transform = Callable[[Any], Array]  # of a pyarrow.Table


class ParquetBlocks(Blocks):
    """The rows of a .parquet file, one row group after the other, each decoded a part at a time.

    `target` names the column of the targets, or several, and `weight` that of the weights; `features` names the columns
    of x, by default all others. They hold numbers, true or false, and no missing cells, unless `transform` makes x, and
    `encode` the targets, of a pyarrow.Table of theirs: a preprocessing that was fitted before. Shuffling takes row
    groups in random order and mixes the rows within a window, so a file of few large groups is mixed less well. Raises
    DataError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        target: Names | None = None,
        *,
        features: Sequence[str] | None = None,
        weight: str | None = None,
        transform: Transform | None = None,
        encode: Transform | None = None,
    ) -> None:
        self._file = RowGroups(Path(path))
        self.name, self.starts, header = str(path), self._file.starts, self._file.schema.names
        self._targets = [target] if isinstance(target, str) else list(target or ())
        self._weight, self.weighted = weight, weight is not None
        others = {*self._targets, *([weight] if weight else [])}
        self._features = (
            [name for name in header if name not in others] if features is None else list(features)
        )
        counts = Counter(header)
        for name in (*self._features, *self._targets, *([weight] if weight else [])):
            if counts[name] != 1:
                raise self._no_such(name, header)
        if not self._features:
            raise DataError(
                f"{self.name}: expected columns of features, got none beside the target; add some."
            )
        self._transform, self._encode = transform, encode
        self.n_features = next(self.read(0)).x.shape[1]

    def read(self, block: int) -> Iterator[Part]:
        """The rows of a row group in their order, in parts of about PART_BYTES. Raises DataError."""
        weight = [] if self._weight is None else [self._weight]
        columns = list(dict.fromkeys([*self._features, *self._targets, *weight]))
        for row, table in self._file.parts(block, columns):
            yield self._part(table, row)

    def _part(self, table: Any, row: int) -> Part:
        x, y = table.select(self._features), table.select(self._targets)
        w = None if self._weight is None else self._matrix(table.select([self._weight]), row)[:, 0]
        features = self._transform(x) if self._transform else self._matrix(x, row)
        if not self._targets:
            return Part(features, None, w)
        targets = self._encode(y) if self._encode else self._matrix(y, row)
        one = targets.ndim == 2 and len(self._targets) == 1 and targets.shape[1] == 1
        return Part(features, targets[:, 0] if one else targets, w)

    def _matrix(self, table: Any, row: int) -> Array:
        """The columns of numbers side by side, in the smallest type of float that holds them all."""
        columns = []
        for name, cells in zip(table.column_names, table.columns, strict=True):
            place = f"{self.name}: row {{}}, column {name!r}: expected a number"
            if str(cells.type) not in _NUMBERS:
                raise DataError(
                    f"{self.name}: column {name!r}: expected numbers, got values of type {cells.type}; "
                    "leave it out by features=, or pass transform=."
                )
            if cells.null_count:
                at = row + int(np.argmax(cells.is_null().to_numpy()))
                raise DataError(f"{place.format(at)}, got a missing one; fill it in, or pass transform=.")
            columns.append(cells.to_numpy())
        small = all(np.can_cast(column.dtype, np.float32) for column in columns)
        out = np.empty((table.num_rows, len(columns)), np.float32 if small else np.float64)
        for k, column in enumerate(columns):
            out[:, k] = column
        return out

    def _no_such(self, name: str, header: Sequence[str]) -> DataError:
        close = None if name in header else nearest(name, header)
        got, cure = (
            ("several of them", "rename it.") if name in header else ("no such column", "check the name.")
        )
        hint = f"did you mean {close!r}?" if close else cure
        return DataError(
            f"{self.name}: expected a column {name!r}, got {got} among {listing(header)}; {hint}"
        )


_NUMBERS = {
    "bool",
    "halffloat",
    "float",
    "double",
    *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)),
}
