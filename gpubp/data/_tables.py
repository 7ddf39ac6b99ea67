"""Data sets of named columns: what the two kinds of table files have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpubp.data._columns import Wanted
from gpubp.data._csv import read_csv
from gpubp.data._dataset import Dataset, Task
from gpubp.data._large import is_large
from gpubp.data._parquet import Choose, Group, decoded_bytes, opened, read_parquet
from gpubp.data._table import Table
from gpubp.data._table_blocks import TableBlocks, stream_parquet
from gpubp.data._targets import csv_target, encode, joined_target


def table_set(
    kind: str,
    path: Path,
    columns: Wanted,
    task: Task | None,
    classes: Sequence[Any] | None,
    stream: bool | None,
) -> Dataset:
    """The data set of these columns of a .csv or .parquet file; x is a Table, or TableBlocks of what is not held."""
    table: Table | TableBlocks
    if kind == "csv":
        sheet = read_csv(path, columns.to_train)
        table, names, y = sheet.table, sheet.target_names, csv_target(sheet, task, classes)

        def place(row: int) -> str:
            return sheet.place(row, names[0])

    else:
        group = _parquet(path, columns.to_train, stream)
        table, names, y = group.table, group.target_names, joined_target(path, group, task)

        def place(row: int) -> str:
            return f"row {row}, column {names[0]!r}"

    name = f"column {names[0]!r}"
    y, found, labels = encode(y, task=task, classes=classes, source=str(path), place=place, name=name)
    return Dataset(path.stem, table, y, found, labels, table.names, names)


def read_rows(
    kind: str, path: Path, columns: Wanted, stream: bool | None
) -> tuple[Table | TableBlocks, str | None, list[str] | None]:
    """(features, name of the id column, its cells) of a .csv or .parquet file; the latter two None without one."""
    choose = columns.to_predict
    sheet = read_csv(path, choose) if kind == "csv" else _parquet(path, choose, stream)
    return sheet.table, sheet.id_name, sheet.ids


def _parquet(path: Path, choose: Choose, stream: bool | None) -> Group:
    """The file as a whole, or its features in parts: with `stream`, and by default where they are large."""
    if stream is None:
        with opened(path, choose) as found:
            stream = is_large(decoded_bytes(*found))
    return (stream_parquet if stream else read_parquet)(path, choose)
