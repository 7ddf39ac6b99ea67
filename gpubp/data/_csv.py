"""Read a .csv file into a table: a column of numbers, dates or categories by its cells, a bad cell by its place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data._cells import MISSING_TEXT, Fault, column_of, numbers_of
from gpubp.data._columns import Choice
from gpubp.data._csv_rows import Header, Row, csv_rows
from gpubp.data._table import Column, Kind, Table
from gpubp.errors import DataError

Array = NDArray[Any]


@dataclass(frozen=True)
class Sheet:
    """What was read of a .csv file: features, targets and ids as text, and the line of each row."""

    path: Path
    table: Table
    targets: tuple[Row, ...]
    target_names: tuple[str, ...]
    id_name: str | None
    ids: Row | None
    lines: list[int]

    def place(self, row: int, column: str) -> str:
        """How a message names a cell: its line in the file (the header is line 1) and its column."""
        return f"line {self.lines[row]}, column {column!r}"


class _Mixed(Exception):
    """A column of another kind whose first cells were numbers, and were kept as such."""

    def __init__(self, name: str, kind: Kind) -> None:
        super().__init__(name)
        self.name, self.kind = name, kind


def read_csv(path: Path, choose: Callable[[Path, Header], Choice]) -> Sheet:
    """The columns that `choose` picks from the header; all other columns are ignored."""
    found: dict[str, Kind] = {}
    while True:
        try:
            return _read(path, choose, found)
        except _Mixed as mixed:  # its numbers must stay as they were written
            found[mixed.name] = mixed.kind


def numbers(sheet: Sheet, which: int) -> Array:
    """Target column `which` as float64 (n,); DataError at the first cell that is no finite number."""
    cells, name = sheet.targets[which], sheet.target_names[which]
    collected = _Cells(name, "number")
    collected.add(cells)
    try:
        values = collected.column().values
    except Fault as fault:
        raise fault.error(f"{sheet.path}: {sheet.place(fault.row, name)}") from None
    if np.isnan(values).any():
        row = int(np.isnan(values).argmax())
        raise _missing(sheet, row, name, "a number", cells[row].strip())
    return values


def check_text(sheet: Sheet, which: int) -> Row:
    """Target column `which` as stripped text; DataError at the first missing cell."""
    cells, name = [cell.strip() for cell in sheet.targets[which]], sheet.target_names[which]
    missing = {cell for cell in set(cells) if cell.lower() in MISSING_TEXT}
    if missing:
        row = next(i for i, cell in enumerate(cells) if cell in missing)
        raise _missing(sheet, row, name, "a label", cells[row])
    return cells


class _Cells:
    """A column of cells, collected a chunk at a time: numbers while all of them are, else codes of their texts."""

    def __init__(self, name: str, kind: Kind | None) -> None:
        self.name, self.kind = name, kind
        self.numbers: list[Array] = []
        self.codes: list[Array] = []
        self.index: defaultdict[str, int] = defaultdict()
        self.index.default_factory = self.index.__len__
        self.as_numbers = kind in (None, "number")

    def add(self, cells: Sequence[str]) -> None:
        if self.as_numbers:
            values = numbers_of(cells)
            if values is not None:
                self.numbers.append(values)
                return
            self.as_numbers = False
        self.codes.append(np.fromiter(map(self.index.__getitem__, cells), np.int32, len(cells)))

    def column(self) -> Column:
        """The column; Fault for a cell that does not fit it, _Mixed where numbers turned out to be categories."""
        values = np.concatenate([np.empty(0), *self.numbers])
        if not self.codes:
            return Column(self.name, "number", values)
        # Cells that were read as numbers stand before the others; where they were missing, nothing is lost.
        known = int(np.isfinite(values).sum())
        codes = np.concatenate([np.full(len(values), -1, np.int32), *self.codes])
        column = column_of(self.name, list(self.index), codes, self.kind, known)
        if known:
            raise _Mixed(self.name, column.kind)
        return column


def _read(path: Path, choose: Callable[[Path, Header], Choice], found: Mapping[str, Kind]) -> Sheet:
    with csv_rows(path) as (header, chunks):
        choice = choose(path, header)
        kinds = {**found, **choice.kinds}
        columns = [_Cells(header[i], kinds.get(header[i])) for i in choice.features]
        texts: list[Row] = [[] for _ in choice.texts]
        lines: list[int] = []
        for rows, at in chunks:
            by_column = list(zip(*rows, strict=True))
            for column, i in zip(columns, choice.features, strict=True):
                column.add(by_column[i])
            for text, i in zip(texts, choice.texts, strict=True):
                text.extend(map(itemgetter(i), rows))
            lines.extend(at)
    if not lines:
        raise DataError(f"{path}: expected data below the header, got no line; add some rows.")
    table = Table(tuple(_finished(path, lines, column, choice.as_trained) for column in columns))
    ids = texts.pop() if choice.id is not None else None
    names = tuple(header[i] for i in choice.targets)
    return Sheet(path, table, tuple(texts), names, choice.id_name(header), ids, lines)


def _finished(path: Path, lines: list[int], cells: _Cells, as_trained: bool) -> Column:
    """The column of these cells; its Fault as a DataError that names file, line and column."""
    try:
        return cells.column()
    except Fault as fault:
        place = f"{path}: line {lines[fault.row]}, column {cells.name!r}"
        raise fault.error(place, cells.name, as_trained=as_trained) from None


def check_some(sheet: Sheet) -> None:
    """DataError where a target column has no value at all."""
    for cells, name in zip(sheet.targets, sheet.target_names, strict=True):
        if all(cell.strip().lower() in MISSING_TEXT for cell in cells):
            raise DataError(
                f"{sheet.path}: column {name!r}: expected a target, got missing cells only; name another."
            )


def _missing(sheet: Sheet, row: int, name: str, expected: str, cell: str) -> DataError:
    return DataError(
        f"{sheet.path}: {sheet.place(row, name)}: expected {expected}, got a missing one ({cell!r}); "
        "fill it in or drop the row."
    )
