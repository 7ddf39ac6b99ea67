"""Read a .csv file: one header line, then numbers; a bad cell is named by line and column."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data._files import LARGEST, existing_file, listing, quoted, unreadable
from gpubp.errors import DataError, counted

Array = NDArray[Any]
Row = list[str]
# From the header, the positions of the feature columns and of the target columns.
Choice = tuple[Sequence[int], Sequence[int]]

_CHUNK = 8192  # rows that are held as text at a time
_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
_MISSING_TEXT = {"", "na", "n/a", "nan", "null"}


@dataclass(frozen=True)
class Table:
    """Feature columns as float64 (n, n_features), target columns as text, and the line of each row."""

    path: Path
    x: Array
    feature_names: tuple[str, ...]
    targets: tuple[Row, ...]
    target_names: tuple[str, ...]
    lines: list[int]

    def place(self, row: int, column: str) -> str:
        """How a message names a cell: its line in the file (the header is line 1) and its column."""
        return f"line {self.lines[row]}, column {column!r}"


def read_csv(path: Path, choose: Callable[[tuple[str, ...]], Choice]) -> Table:
    """The columns that `choose` picks from the header; all other columns are ignored."""
    existing_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = _header(path, reader)
            features, targets = choose(header)
            return _body(path, reader, header, features, targets)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected UTF-8 text, got other bytes ({error.reason}); save the file as UTF-8 CSV."
        ) from None
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num}: expected CSV, got a line that is none ({error}); "
            "check its quotes."
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None


def numbers(table: Table, which: int) -> Array:
    """Target column `which` as float64 (n,); DataError at the first cell that is no finite number."""
    cells, name = table.targets[which], table.target_names[which]
    return _floats(cells, 1, lambda row, _: f"{table.path}: {table.place(row, name)}")[:, 0]


def check_text(table: Table, which: int) -> Row:
    """Target column `which` as stripped text; DataError at the first missing cell."""
    cells = [cell.strip() for cell in table.targets[which]]
    for token in _MISSING_TEXT & {cell.lower() for cell in set(cells)}:
        row = next(i for i, cell in enumerate(cells) if cell.lower() == token)
        raise DataError(
            f"{table.path}: {table.place(row, table.target_names[which])}: expected a label, "
            f"got a missing one ({cells[row]!r}); fill it in or drop the row."
        )
    return cells


def is_number(cell: str) -> bool:
    """Whether a cell is written as a number (NaN and infinity count); 1_000 does not."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _header(path: Path, reader: Any) -> tuple[str, ...]:
    """The names in line 1, checked."""
    names = tuple(cell.strip() for cell in next(reader, []))
    if any("\0" in name for name in names):
        raise DataError(f"{path}: expected a text file, got binary data; save it as CSV.")
    if not any(names):
        raise DataError(f"{path}: line 1: expected column names, got a blank line; add a header line.")
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise DataError(
            f"{path}: line 1: expected names separated by commas, got {quoted(names[0])}; use commas."
        )
    if "" in names:
        raise DataError(
            f"{path}: line 1: expected a name for every column, got none for column {names.index('') + 1}; "
            "name it, or leave the column out (pandas: to_csv(..., index=False))."
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    counting = [str(i) for i in range(len(names) + 1)]
    if all(map(is_number, names)) and list(names) not in (counting[:-1], counting[1:]):
        raise DataError(
            f"{path}: line 1: expected column names, got numbers ({listing(names, 3)}); "
            "add a header line above the data."
        )
    if twice:
        raise DataError(
            f"{path}: line 1: expected distinct column names, got {twice[0]!r} more than once; rename one."
        )
    return names


def _body(
    path: Path, reader: Any, header: tuple[str, ...], features: Sequence[int], targets: Sequence[int]
) -> Table:
    """Everything below the header, converted chunk by chunk so that wide files fit in memory."""
    blocks: list[Array] = []
    columns: tuple[Row, ...] = tuple([] for _ in targets)
    lines: list[int] = []
    pick = _picker(features)
    for rows, at in _chunks(path, reader, len(header)):

        def place(row: int, column: int, at: list[int] = at) -> str:
            return f"{path}: line {at[row]}, column {header[features[column]]!r}"

        blocks.append(_floats(list(chain.from_iterable(map(pick, rows))), len(features), place))
        for column, position in zip(columns, targets, strict=True):
            column.extend(map(itemgetter(position), rows))
        lines.extend(at)
    if not lines:
        raise DataError(f"{path}: expected data below the header, got no line; add some rows.")
    names = tuple(header[i] for i in features), tuple(header[i] for i in targets)
    return Table(path, np.concatenate(blocks), names[0], columns, names[1], lines)


def _chunks(path: Path, reader: Any, width: int) -> Iterator[tuple[list[Row], list[int]]]:
    """(rows, the line where each starts) a chunk at a time; only blank lines at the end may be ragged."""
    rows: list[Row] = []
    lines: list[int] = []
    line, blank = reader.line_num + 1, 0
    for row in reader:
        if len(row) != width or blank:
            if not row or (len(row) == 1 and not row[0].strip()):
                blank = blank or line
            elif blank:
                raise DataError(
                    f"{path}: line {blank}: expected {counted(width, 'cell')}, got a blank line; remove the line."
                )
            else:
                raise DataError(
                    f"{path}: line {line}: expected {counted(width, 'cell')} as in the header, got {len(row)}; "
                    "add or remove cells, and quote those that contain commas."
                )
        else:
            rows.append(row)
            lines.append(line)
            if len(rows) == _CHUNK:
                yield rows, lines
                rows, lines = [], []
        line = reader.line_num + 1
    if rows:
        yield rows, lines


def _picker(features: Sequence[int]) -> Callable[[Row], Sequence[str]]:
    """What takes the feature cells out of a row."""
    if len(features) == 1:
        only = features[0]
        return lambda row: (row[only],)
    return itemgetter(*features)


def _floats(cells: Row, width: int, place: Callable[[int, int], str]) -> Array:
    """Cells in row order as float64 (n, width) up to LARGEST; a bad one is looked for once the fast way fails."""
    try:
        block = np.fromiter(map(float, cells), np.float64, len(cells))
        # float() takes 1_000, which no CSV means; NaN, infinity and what is too large are looked up below.
        if (np.abs(block) <= LARGEST).all() and "_" not in "".join(cells):
            return block.reshape(-1, width)
    except ValueError:
        pass
    for i, cell in enumerate(cells):
        text, expected = cell.strip(), "a number"
        if text.lower() in _MISSING:
            got, cure = f"a missing one ({text!r})", "fill it in or drop the row"
        elif not is_number(text):
            got, cure = f"text {quoted(text)}", "fix the cell, or encode or leave out the column"
        elif not np.isfinite(float(text)):
            got, cure = text, "replace it by a finite number or drop the row"
        elif abs(float(text)) > LARGEST:
            expected = f"a number of at most {LARGEST:g}"
            got, cure = text, "fix the cell, or rescale the column"
        else:
            continue
        raise DataError(f"{place(*divmod(i, width))}: expected {expected}, got {got}; {cure}.")
    raise AssertionError("unreachable: a cell failed and none is bad")
