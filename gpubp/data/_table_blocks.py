"""A Parquet file too large to be held: a table in parts, of whose columns each can be had as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gpubp.data._arrow import column, is_text, placing, values_of
from gpubp.data._packed import check_room
from gpubp.data._parquet import Choose, Group, decoded_bytes, group_of, needed, opened
from gpubp.data._table import CATEGORY, Column, Kind, Table
from gpubp.data.blockwise import Blocks, Part, RowGroups

Array = NDArray[Any]
_HELD = 64 * 2**20  # bytes of columns that are read at once; a single one may be longer


class TableBlocks(Blocks):
    """Columns of a .parquet file, in parts that are each a `Table`; what is learned from them takes whole `columns`.

    A column is of the kind that all its cells say, so that parts agree: a column of text whose kind is not in `kinds`
    is read once for it. Values are checked as they are read. Raises DataError.
    """

    def __init__(
        self,
        file: RowGroups,
        names: Sequence[str],
        kinds: dict[str, Kind],
        *,
        as_trained: bool,
        keep: NDArray[np.bool_] | None = None,
    ) -> None:
        self._file, self._kinds, self._as_trained, self._keep = file, kinds, as_trained, keep
        self.name, self.names, self.n_features = str(file.path), tuple(names), len(names)
        self._kept: Blocks | None = None
        self.starts = file.starts
        if keep is not None:
            self._kept = Blocks.subset(TableBlocks(file, names, kinds, as_trained=as_trained), keep)
            self.starts = self._kept.starts

    @property
    def columns(self) -> Iterator[Column]:
        """Each column as a whole: n numbers, or n codes of categories. Short ones are read several at once."""
        several = max(1, _HELD // (8 * int(self._file.starts[-1])))
        for i in range(0, len(self.names), several):
            for whole in self._whole(self.names[i : i + several]):
                yield whole if self._keep is None else whole.take(self._keep)

    def read(self, block: int) -> Iterator[Part]:
        """The rows of a block, in parts whose x is a `Table`."""
        if self._kept is not None:
            yield from self._kept.read(block)
            return
        self._learn_kinds()
        for row, rows in self._file.parts(block, self.names):
            yield Part(cast(Any, Table(tuple(self._column(name, rows, row) for name in self.names))))

    def row(self, k: int) -> str:
        """What messages call row k: its number in the file."""
        return super().row(k) if self._kept is None else self._kept.row(k)

    def subset(self, keep: NDArray[np.bool_]) -> TableBlocks:
        """The rows where keep (n,) is True, in their order."""
        if self._keep is not None:
            every = self._keep.copy()
            every[every] = keep
            keep = every
        return self._with(self.names, keep)

    def select(self, names: Sequence[str]) -> TableBlocks:
        """These columns, in this order."""
        return self._with(names, self._keep)

    def _with(self, names: Sequence[str], keep: NDArray[np.bool_] | None) -> TableBlocks:
        return TableBlocks(self._file, names, self._kinds, as_trained=self._as_trained, keep=keep)

    def is_numeric(self) -> bool:
        """Whether every cell has a value, and none is a category; all columns are read for it."""
        return not any(column.kind == CATEGORY or column.missing().any() for column in self.columns)

    def matrix(self) -> Blocks:
        """The values of a numeric table in parts of float64 (n, n_columns)."""
        return self.map(lambda part: cast(Any, part).matrix())

    def _learn_kinds(self) -> None:
        """The kinds of the columns of text, which no part of one can tell."""
        for name in self.names:
            if name not in self._kinds and is_text(self._file.schema.field(name).type):
                next(self._whole([name]))

    def _whole(self, names: Sequence[str]) -> Iterator[Column]:
        """These columns of all rows of the file."""
        found = {name: _Cells(int(self._file.starts[-1])) for name in names}
        for block in range(len(self._file.starts) - 1):
            for row, rows in self._file.parts(block, names):
                for name in names:
                    with placing(self._file.path, row, name, as_trained=self._as_trained):
                        found[name].put(row, *values_of(rows.column(name)))
        for name in names:
            cells = found.pop(name)
            with placing(self._file.path, 0, name, as_trained=self._as_trained):
                whole = column(name, cells.kind, cells.values(), self._kinds.get(name))
            self._kinds.setdefault(name, whole.kind)
            yield whole

    def _column(self, name: str, rows: Any, row: int) -> Column:
        with placing(self._file.path, row, name, as_trained=self._as_trained):
            return column(name, *values_of(rows.column(name)), self._kinds.get(name))


class _Cells:
    """A column of n cells, put together from what `values_of` gives of its parts."""

    kind: Kind = "number"

    def __init__(self, n: int) -> None:
        self._n = n
        self._texts: dict[str, int] = {}
        self._cells: Array | None = None

    def put(self, row: int, kind: Kind, values: Any) -> None:
        """The cells from `row` on."""
        if kind == CATEGORY:  # of text: codes of a part become those of the column
            texts, codes = values
            lookup = [self._texts.setdefault(text, len(self._texts)) for text in texts]
            values = np.array([*lookup, -1], np.int32)[codes]
        if self._cells is None:
            self.kind, self._cells = kind, np.empty(self._n, values.dtype)
        self._cells[row : row + len(values)] = values

    def values(self) -> Any:
        """What `values_of` would have given of the whole."""
        return (list(self._texts), self._cells) if self.kind == CATEGORY else self._cells


def stream_parquet(path: Path, choose: Choose) -> Group:
    """`read_parquet`, but for the features, which stay in the file. Targets and ids are held."""
    with opened(path, choose) as (file, header, choice):
        beside = choice._replace(features=[])
        one_column = 8 * file.metadata.num_rows
        check_room(path, max(decoded_bytes(file, header, beside), one_column))
        group = group_of(path, file.read(columns=needed(header, beside)), header, beside)
    names = [header[i] for i in choice.features]
    table = TableBlocks(RowGroups(path), names, dict(choice.kinds), as_trained=choice.as_trained)
    return dataclasses.replace(group, table=table)
