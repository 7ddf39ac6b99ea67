"""Data sets of named columns: what the two kinds of table files have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpubp.data._columns import Wanted
from gpubp.data._csv import read_csv
from gpubp.data._dataset import Dataset, Task
from gpubp.data._parquet import read_parquet
from gpubp.data._table import Table
from gpubp.data._targets import csv_target, encode, joined_target


def table_set(
    kind: str, path: Path, columns: Wanted, task: Task | None, classes: Sequence[Any] | None
) -> Dataset:
    """The data set of these columns of a .csv or .parquet file; x is a Table."""
    if kind == "csv":
        sheet = read_csv(path, columns.to_train)
        table, names, y = sheet.table, sheet.target_names, csv_target(sheet, task, classes)

        def place(row: int) -> str:
            return sheet.place(row, names[0])

    else:
        group = read_parquet(path, columns.to_train)
        table, names, y = group.table, group.target_names, joined_target(path, group, task)

        def place(row: int) -> str:
            return f"row {row}, column {names[0]!r}"

    name = f"column {names[0]!r}"
    y, found, labels = encode(y, task=task, classes=classes, source=str(path), place=place, name=name)
    return Dataset(path.stem, table, y, found, labels, table.names, names)


def read_rows(kind: str, path: Path, columns: Wanted) -> tuple[Table, str | None, list[str] | None]:
    """(features, name of the id column, its cells) of a .csv or .parquet file; the latter two None without one."""
    sheet = (read_csv if kind == "csv" else read_parquet)(path, columns.to_predict)
    return sheet.table, sheet.id_name, sheet.ids
