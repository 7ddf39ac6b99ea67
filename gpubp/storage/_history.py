"""The history of a run as CSV: one line per epoch, and exactly the same numbers back."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gpubp.errors import StorageError

from ._files import read_text, write_text
from ._paths import PathLike, checked_path, show


def _cell(value: object) -> str:
    """One CSV cell, quoted if need be; csv's writer leaves a carriage return bare if lines end with \\n."""
    if isinstance(value, (int, float)):  # nearly all cells, of a file that is written again after every epoch
        return str(value)
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if re.search('[,"\r\n]', text) else text


def write_history(path: PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one CSV line per row under a header of all keys as they appear; a missing value is empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines: list[list[Any]] = (
        [columns, *([row.get(key) for key in columns] for row in rows)] if columns else []
    )
    text = "".join((",".join(map(_cell, line)) or '""') + "\n" for line in lines)
    if "\0" in text:
        raise StorageError(
            f"cannot write {show(checked_path(path))}: expected text for CSV; got a NUL character"
        )
    write_text(path, text)


def _value(text: str) -> int | float | str | None:
    if text == "":
        return None
    try:
        return int(text) if re.fullmatch(r"-?[0-9]+", text) else float(text)
    except ValueError:
        return text


def read_history(path: PathLike) -> list[dict[str, int | float | str | None]]:
    """The rows of a CSV that `write_history` wrote; numbers as int or float, exact, an empty cell as None."""
    shown = show(checked_path(path))
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows: list[dict[str, int | float | str | None]] = []
    try:
        columns = next(reader, [])
        if len(set(columns)) < len(columns):
            raise StorageError(f"{shown}, line 1: expected different column names; got {show(columns)}")
        for cells in reader:
            if len(cells) != len(columns):
                where = f"{shown}, line {reader.line_num}"
                raise StorageError(f"{where}: expected {len(columns)} cells; got {len(cells)}")
            rows.append(dict(zip(columns, map(_value, cells), strict=True)))
    except csv.Error as error:
        raise StorageError(f"{shown}, line {reader.line_num}: expected CSV; got {error}") from None
    return rows
